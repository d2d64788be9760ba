"""``--trust-checkpoint`` through the tools, as a user passes it."""

import argparse

import pytest
import torch
from command_line import command
from factory import DEMO, demo_config, save_segmentor

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.export import plain_config

pytestmark = pytest.mark.core

OFFLINE = DEMO.with_name(DEMO.name.replace('adm_', 'adm-offline_', 1))


@pytest.fixture(scope='module')
def run(tmp_path_factory, city):
    """Run a tool on a pair whose frozen teacher's file holds more than weights."""
    folder = tmp_path_factory.mktemp('trust')
    # Written with the narrow networks: a file of its own spares the flags.
    config = demo_config(city, folder / 'work', iters=1, config=OFFLINE)
    teacher = save_segmentor(folder / 'teacher.pth', plain_config(config, 'teacher').model)
    content = torch.load(teacher) | {'args': argparse.Namespace(lr=0.1)}
    torch.save(content, teacher)
    config.model.members.teacher.checkpoint = teacher
    config.dump(folder / 'config.py')

    def tool(name, *args):
        return command(name, str(folder / 'config.py'), *args, cwd=folder)

    tool.folder = folder
    return tool


def test_training_refuses_what_needs_code(run):
    result = run('train')
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert f"member 'teacher': refused to load {run.folder / 'teacher.pth'}: " in last
    assert '(GLOBAL argparse.Namespace)' in last
    assert 'pass --trust-checkpoint, which runs the code in it' in last


def test_training_and_testing_trust_it_when_told_to(run):
    trained = run('train', '--trust-checkpoint')
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert '--trust-checkpoint: running the code in ' in trained.stdout + trained.stderr
    read_checkpoint(run.folder / 'work' / 'iter_1.pth')

    # The flag is each command's own.
    for flags, expected in (((), 2), (('--trust-checkpoint',), 0)):
        tested = run('test', str(run.folder / 'work' / 'iter_1.pth'), *flags)
        assert tested.returncode == expected, tested.stderr[-3000:]


@pytest.mark.parametrize('tool', ['export', 'preflight', 'profile'])
def test_every_tool_that_loads_weights_has_the_flag(tool, run):
    helped = run(tool, '--help')
    assert '--trust-checkpoint' in helped.stdout
