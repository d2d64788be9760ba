import json
import os
import shutil
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
import worker
from factory import ROOT, save_segmentor
from method_cases import METHODS
from torch.testing import assert_close

from mmseg_adm.datasets import StreamDataset, StreamSampler

pytestmark = pytest.mark.slow
# Those whose divisors are images, channels or nodes, alike on every rank.
UNMASKED = ('AT', 'CWD', 'SKD')
MASKED = [name for name in worker.CASES if not name.startswith(UNMASKED)]


@pytest.fixture(scope='module')
def launched(tmp_path_factory, city):
    """The folder that two processes wrote their findings into."""
    folder = tmp_path_factory.mktemp('two_processes')
    save_segmentor(folder / worker.TEACHER, worker.network(8))
    city_teacher = worker.network(8, classes=worker.CITY_CLASSES)
    save_segmentor(folder / worker.CITY_TEACHER, city_teacher)
    for rank in range(worker.WORLD_SIZE):
        shutil.copytree(city, folder / f'city_{rank}')
    result = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nnodes=1',
         f'--nproc_per_node={worker.WORLD_SIZE}', worker.__file__, str(folder)],
        env=os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def largest_difference(found: dict, expected: dict) -> float:
    """Over all parameters, relative to the largest gradient."""
    assert found.keys() == expected.keys()
    scale = max(gradient.abs().max() for gradient in expected.values())
    difference = max((found[name] - expected[name]).abs().max() for name in expected)
    return float(difference / scale)


@pytest.fixture(scope='module')
def joined(launched):
    """Gradients of one process on the joined batch, by method."""
    return {
        name: worker.gradients(worker.distiller(name, launched), worker.joined_batch())
        for name in worker.CASES
    }


def test_every_method_is_compared():
    assert {variant.method for variant in worker.CASES.values()} == set(METHODS)


def test_ranks_have_unequal_shares_of_labels():
    batch = worker.joined_batch()
    ignored = [
        [
            (sample.gt_sem_seg.data == 255).float().mean().item()
            for sample in worker.share_of(batch, rank)['data_samples']
        ]
        for rank in range(worker.WORLD_SIZE)
    ]
    assert max(ignored[0]) < 0.25
    assert min(ignored[1]) > 0.75


@pytest.mark.parametrize('name', worker.CASES)
def test_gradients_are_those_of_the_joined_batch(name, launched, joined):
    found = torch.load(launched / f'joined_{name}.pth')
    assert largest_difference(found, joined[name]) < 1e-4


@pytest.mark.parametrize('name', MASKED)
def test_a_divisor_of_each_rank_gives_other_gradients(name, launched, joined):
    found = torch.load(launched / f'local_{name}.pth')
    assert largest_difference(found, joined[name]) > 1e-2


@pytest.mark.parametrize('name', METHODS)
def test_a_method_starts_and_stops_under_ddp(name, launched):
    first, second = (torch.load(launched / f'states_{name}_{rank}.pth') for rank in range(2))
    assert_close(first, second, rtol=0, atol=0)
    own = [key for key in first[0] if key.startswith('methods.')]
    for key in own:
        moved = [not before[key].equal(after[key]) for before, after in pairwise(first)]
        assert moved == [strength > 0 for strength in worker.STRENGTHS], key
    heads = [key for key in first[0] if key.endswith('decode_head.conv_seg.weight')]
    assert len(heads) >= 2
    for key in heads:
        assert all(not before[key].equal(after[key]) for before, after in pairwise(first))


def test_ranks_pause_a_member_together(launched):
    joint = worker.decision(launched, worker.deciding_batch())
    found = [torch.load(launched / f'joint_{rank}.pth') for rank in range(2)]
    assert found[0] == pytest.approx(joint)
    assert found[1] == found[0]
    alone = [torch.load(launched / f'alone_{rank}.pth')[0] for rank in range(2)]
    assert alone[0] != alone[1], 'the ranks would agree anyway'


def test_ranks_skip_a_step_together(launched):
    for rank in range(worker.WORLD_SIZE):
        states, skipped = torch.load(launched / f'skipped_{rank}.pth', weights_only=True)
        assert skipped == [0, 1, 1, 1]
        first, second, third, fourth = states
        assert all(first[name].equal(second[name]) for name in first)
        for before, after in ((second, third), (third, fourth)):
            assert any(not before[name].equal(after[name]) for name in before)
        assert all(value.isfinite().all() for value in fourth.values())


def test_each_rank_knows_what_a_frozen_member_has_predicted_there(launched, city):
    metrics, counts = worker.validate(launched, city)
    assert metrics[0] == metrics[1]
    assert counts == [3, 0]
    for rank in range(worker.WORLD_SIZE):
        found, ran = json.loads((launched / f'validated_{rank}.json').read_text())
        assert found == metrics
        assert ran == [2, 0]


def test_without_its_idle_parameters_ddp_would_refuse(launched):
    for rank in range(worker.WORLD_SIZE):
        problem = (launched / f'without_idle_{rank}.txt').read_text()
        assert 'Expected to have finished reduction' in problem


@pytest.mark.parametrize(('part', 'skipped'), [('read', 0), ('skipped', 4)])
def test_the_stream_is_dealt_out(part, skipped, launched):
    by_rank = [found[part] for found in streams(launched)]
    dealt = [tuple(position) for pair in zip(*by_rank, strict=True) for position in pair]
    stream = StreamSampler(StreamDataset(range(worker.SIZE_OF_DATA)), seed=3)
    start = skipped * worker.WORLD_SIZE
    assert dealt == [tuple(position) for position in islice(stream, start, start + len(dealt))]


def test_each_rank_looks_for_itself(launched):
    healthy, broken = (
        json.loads((launched / f'preflight_{rank}.json').read_text()) for rank in range(2)
    )
    assert 'train data' in broken['failed']
    assert broken['terms'] == 0
    assert healthy['failed'] == []
    assert healthy['terms'] > 0
    assert healthy['world size'] == broken['world size'] == worker.WORLD_SIZE


def test_a_trial_step_that_fails_on_one_rank_ends_both(launched):
    problems = [(launched / f'trial_{rank}.txt').read_text() for rank in range(2)]
    assert problems[0] == problems[1]
    assert 'training step: RuntimeError: a trial alone. It was tried with' in problems[0]
    assert not list((launched / 'failed').rglob('*.pth'))


def test_one_rank_builds_and_downloads_alone(launched):
    assert (launched / 'alone.txt').read_text().startswith('teacher-')


def test_ranks_draw_one_seed(launched):
    first, second = (found['drawn seed'] for found in streams(launched))
    assert first == second


def streams(folder: Path) -> list[dict]:
    """What each rank read."""
    paths = [folder / f'stream_{rank}.json' for rank in range(worker.WORLD_SIZE)]
    return [json.loads(path.read_text()) for path in paths]
