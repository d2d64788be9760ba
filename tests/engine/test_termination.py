"""Of the hook alone; whole trainings that are told to end are in tests/distributed."""

import signal
from types import SimpleNamespace

import pytest
import torch

from mmseg_adm.engine.hooks import termination
from mmseg_adm.engine.hooks.termination import LEAD, TerminationHook


@pytest.fixture
def store(monkeypatch):
    """Of two processes, as torch.distributed has it."""
    store = torch.distributed.HashStore()
    monkeypatch.setattr(termination, 'get_world_size', lambda: 2)
    monkeypatch.setattr(torch.distributed.distributed_c10d, '_get_default_store', lambda: store)
    return store


def run(timestamp='now', counts=1):
    wrapper = SimpleNamespace(_accumulative_counts=counts)
    return SimpleNamespace(timestamp=timestamp, optim_wrapper=wrapper)


# Amid an accumulation no process waits for another.
@pytest.mark.parametrize(('counts', 'lead'), [(1, LEAD), (8, LEAD + 7)])
def test_processes_end_after_the_same_iteration(counts, lead, store):
    runner = run(counts=counts)
    told, other = TerminationHook(), TerminationHook()
    assert other._agreed(runner, 4) is None
    told.told = True
    assert told._agreed(runner, 5) == 5 + lead
    # One is told, the other learns of it; one that is told later says no other iteration.
    assert other._agreed(runner, 5) == 5 + lead
    other.told = True
    assert other._agreed(runner, 6) == 5 + lead


def test_runs_agree_each_by_itself(store):
    first = TerminationHook()
    first.told = True
    first._agreed(run('now'), 5)
    assert TerminationHook()._agreed(run('later'), 5) is None


def test_a_process_alone_ends_at_once():
    hook = TerminationHook()
    assert hook._agreed(SimpleNamespace(), 5) is None
    hook.told = True
    assert hook._agreed(SimpleNamespace(), 5) == 5


def test_a_handler_of_the_user_is_left_alone():
    own = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        handler = signal.getsignal(signal.SIGTERM)
        hook = TerminationHook()
        hook.before_train(SimpleNamespace())
        assert signal.getsignal(signal.SIGTERM) is handler
        hook.stop_listening()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, own)


def test_a_signal_is_noted_and_the_old_answer_comes_back():
    hook = TerminationHook()
    hook.before_train(SimpleNamespace())
    assert not hook.told
    signal.raise_signal(signal.SIGTERM)
    assert hook.told
    hook.stop_listening()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_forked_child_dies_of_the_signal(monkeypatch):
    hook = TerminationHook()
    hook.process = -1
    sent = []
    monkeypatch.setattr(termination.os, 'kill', lambda process, number: sent.append(number))
    monkeypatch.setattr(termination.signal, 'signal', lambda number, handler: sent.append(handler))
    hook._note(signal.SIGTERM, None)
    assert sent == [signal.SIG_DFL, signal.SIGTERM]
    assert not hook.told
