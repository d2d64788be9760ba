"""The one way into every command: its lines, its mistakes, its exit status."""

import os
import subprocess
import sys

import pytest
from command_line import command
from factory import DEMO, ROOT, demo_config

import mmseg_adm
from mmseg_adm.commands import info as info_command
from mmseg_adm.commands import main as entry
from mmseg_adm.commands.flags import options_of
from mmseg_adm.commands.main import COMMANDS, main

pytestmark = pytest.mark.core

WRAPPERS = {
    'train': 'train', 'test': 'test', 'preflight': 'preflight', 'export_student': 'export',
    'export_onnx': 'export', 'benchmark': 'benchmark', 'profile_step': 'profile', 'demo': 'demo',
}  # fmt: skip
# After a line that was refused, what took long to import must not be there.
LIGHT = """
import sys
from mmseg_adm.commands.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as error:
    status = error.code
heavy = {'torch', 'mmcv', 'mmseg', 'mmengine', 'numpy'} & sys.modules.keys()
sys.exit(f'imported {heavy}' if heavy else status)
"""


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {'PYTHONPATH': str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_command_all_are_listed_a_line_each(tmp_path):
    done = command(cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    for name in COMMANDS:
        assert len([line for line in lines if line.split()[:1] == [name]]) == 1
    assert all(line.split()[0] in COMMANDS for line in lines[lines.index('commands:') + 2 :])


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_its_help(name, tmp_path):
    done = command(name, '--help', cwd=tmp_path)
    assert done.returncode == 0
    assert f'usage: mmseg-adm {name} ' in done.stdout
    assert '--debug' in done.stdout


@pytest.mark.parametrize(('wrapper', 'name'), WRAPPERS.items())
def test_the_tools_are_the_commands(wrapper, name):
    done = python(ROOT / 'tools' / f'{wrapper}.py', '--help')
    assert done.returncode == 0, done.stderr
    assert f'usage: mmseg-adm {name} ' in done.stdout


def test_every_tool_is_known_here():
    assert {path.stem for path in ROOT.glob('tools/*.py')} == set(WRAPPERS)


def test_python_m():
    assert python('-m', 'mmseg_adm').stdout == python('-m', 'mmseg_adm', '--help').stdout


@pytest.mark.parametrize(
    ('line', 'status'),
    [(['--help'], 0), (['train', '--help'], 0), (['train', '--amq'], 2), (['tarin'], 2),
     (['test', 'config.py'], 2), (['train', 'c.py', '--cfg-options', 'x'], 2)],
)  # fmt: skip
def test_help_and_wrong_lines_do_not_wait_for_pytorch(line, status):
    done = python('-c', LIGHT, *line)
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize(
    ('line', 'text'),
    [
        (['tarin'], "argument COMMAND: invalid choice: 'tarin'"),
        (['train', 'c.py', '--amq'], 'unrecognized arguments: --amq'),
        (['test', 'c.py'], 'the following arguments are required: checkpoint'),
        (['train', 'c.py', '--cfg-options', 'x'], "--cfg-options: expected KEY=VALUE, got 'x'"),
        (['train', 'c.py', '--amq'], '(mmseg-adm train --help lists what there is)'),
        (['benchmark', 'p.py', '--jobs', '0'], "--jobs: expected an integer >= 1, got '0'"),
        (['benchmark', 'p.py', '--gpus', 'x'], "--gpus: expected an integer >= 1, got 'x'"),
        (['profile', 'c.py', '--rounds', '-1'], "--rounds: expected an integer >= 1, got '-1'"),
        (['train'], 'name a config, or two networks'),
        (['train', '.'], '. is a folder without configs: name a file'),
        (['train', 'mmseg_adm::_base_/default_runtime.py'], 'has no model: is it a part of'),
        (['train', 'none.py'], 'config not found: none.py'),
        (['preflight', 'mmseg::none.py'], "mmseg has no config 'none.py'"),
        (['benchmark', 'none.py'], 'plan not found: '),
        (['export', 'c.py', 'c.pth', '--shape', '1', '1'], '--shape belongs to --onnx'),
    ],
)
def test_a_mistake_is_one_line_and_two(line, text, tmp_path):
    done = command(*line, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ''
    (said,) = done.stderr.splitlines()
    assert said.startswith('mmseg-adm: ')
    assert text in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('name', 'text', 'said'),
    [
        ('open.py', 'model = (', 'open.py cannot be read: SyntaxError in line 1'),
        ('name.py', 'model = nothing', "name.py cannot be read: NameError: name 'nothing'"),
        ('base.py', "_base_ = './none.py'", 'none.py: No such file or directory'),
        ('notes.md', '# A note', 'notes.md cannot be read: OSError: Only py/yml/yaml/json'),
        ('five.py', 'model = 5', 'five.py has no model'),
    ],
)
def test_a_config_that_is_none_is_one_line(name, text, said, tmp_path):
    (tmp_path / name).write_text(text)
    done = command('train', name, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count('\n') == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('param_scheduler.7.end=3', 'the overrides do not fit the config: Index 7 exceeds'),
        ('model=5', 'has no model'),
    ],
)
def test_overrides_that_do_not_fit_are_one_line(option, said, tmp_path):
    done = command('train', DEMO, '--cfg-options', option, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('how', [dict(flag=['--debug']), dict(variable='1')])
def test_frames_on_demand(how, tmp_path):
    environment = {'MMSEG_ADM_DEBUG': how['variable']} if 'variable' in how else {}
    done = command('train', 'none.py', *how.get('flag', []), cwd=tmp_path, **environment)
    assert done.stderr.startswith('Traceback')
    assert done.stderr.rstrip().endswith('FileNotFoundError: config not found: none.py')


def failing(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize('kind', [ValueError, TypeError, FileNotFoundError, PermissionError])
def test_lines_of_a_message_stay(kind, monkeypatch, capsys):
    monkeypatch.setattr(info_command, 'run', failing(kind('one\n  two')))
    assert main(['info']) == 2
    assert capsys.readouterr().err == 'mmseg-adm: one\n  two\n'


@pytest.mark.parametrize('kind', [RuntimeError, KeyError, AssertionError])
def test_a_bug_keeps_its_traceback(kind, monkeypatch):
    monkeypatch.setattr(info_command, 'run', failing(kind('bug')))
    with pytest.raises(kind):
        main(['info'])


@pytest.mark.parametrize('variable', entry.RANKS)
def test_another_rank_waits_for_the_first_to_say_it(variable, monkeypatch, capsys):
    monkeypatch.setattr(info_command, 'run', failing(ValueError('wrong')))
    waited = []
    monkeypatch.setattr('time.sleep', waited.append)
    monkeypatch.setenv(variable, '0')
    assert main(['info']) == 2
    assert (waited, capsys.readouterr().err) == ([], 'mmseg-adm: wrong\n')
    monkeypatch.setenv(variable, '3')
    assert main(['info']) == 2
    assert waited == [entry.PATIENCE]
    assert capsys.readouterr().err == 'mmseg-adm: rank 3: wrong\n'


# -------------------------------------------------------------------------------------- Ctrl-C


def interrupt_at(iteration, monkeypatch):
    from mmengine.runner import IterBasedTrainLoop

    run_iter = IterBasedTrainLoop.run_iter

    def interrupted(loop, data_batch):
        if loop.runner.iter == iteration:
            raise KeyboardInterrupt
        run_iter(loop, data_batch)

    monkeypatch.setattr(IterBasedTrainLoop, 'run_iter', interrupted)


@pytest.fixture
def small(city, tmp_path):
    config = demo_config(city, 'run', iters=4)
    config.default_hooks.checkpoint.interval = 2
    config.dump(tmp_path / 'small.py')
    return tmp_path


def test_interrupted_it_says_how_to_go_on(small, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        done = command('train', 'small.py', '--cfg-options', 'train_cfg.val_interval=9', cwd=small)
    assert done.returncode == 130
    again = 'train small.py --cfg-options train_cfg.val_interval=9 --resume'
    assert done.stderr.splitlines()[-1] == (
        f'mmseg-adm: interrupted; to go on from iter_2.pth: mmseg-adm {again}'
    )
    assert command(*again.split(), cwd=small).returncode == 0
    assert (small / 'run' / 'iter_4.pth').is_file()


def test_interrupted_before_the_first_checkpoint(small, monkeypatch):
    interrupt_at(1, monkeypatch)
    done = command('train', 'small.py', cwd=small)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == (
        'mmseg-adm: interrupted before the first checkpoint: there is nothing to resume from'
    )


def test_a_mistake_in_the_middle_of_a_training_keeps_its_log(small, monkeypatch):
    from mmengine.runner import IterBasedTrainLoop

    def wrong(loop, data_batch):
        loop._iter += 1
        raise ValueError('the loss is nan')

    monkeypatch.setattr(IterBasedTrainLoop, 'run_iter', wrong)
    done = command('train', 'small.py', cwd=small)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == 'mmseg-adm: the loss is nan'
    assert list((small / 'run').glob('*/*.log'))


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('/my disk/a b.pth', '/my disk/a b.pth'),
        (' 5 ', 5),
        ('[1, (2, a)]', [1, (2, 'a')]),
        ('1, 2', [1, 2]),
        ('True', True),
        ('"a"', 'a'),
    ],
)
def test_a_setting_is_read_as_by_mmengine_but_for_spaces_in_paths(text, value):
    assert options_of([f'model.key={text}']) == {'model.key': value}


# ---------------------------------------------------------------------------------------- info


def test_info_says_what_a_bug_report_needs(tmp_path):
    done = command('info', cwd=tmp_path)
    facts = dict(line.split(': ', 1) for line in done.stdout.splitlines())
    assert facts['mmseg_adm'].startswith(mmseg_adm.__version__)
    assert facts['OpenMMLab stack'] in ('onedl', 'openmmlab')
    assert len([name for name in facts if name.startswith(('mm', 'onedl-'))]) == 4
    for name in ('Python', 'PyTorch', 'numpy', 'OS', 'CPU', 'CUDA'):
        assert facts[name]


# -------------------------------------------------------------------------------------- Python


def test_the_package_is_light():
    done = python('-c', 'import sys, mmseg_adm; sys.exit("torch" in sys.modules)')
    assert done.returncode == 0, done.stderr


def test_no_other_name():
    with pytest.raises(AttributeError, match="'mmseg_adm' has no attribute 'trian'"):
        mmseg_adm.trian  # noqa: B018


def test_a_config_without_a_name_needs_a_work_dir(city):
    from mmengine.config import Config

    config = Config(demo_config(city, 'x').to_dict())
    config.pop('work_dir')
    with pytest.raises(ValueError, match=r'the config has no file name .* give work_dir'):
        mmseg_adm.train(config)


def test_an_export_leaves_what_a_training_wrote(tmp_path):
    (tmp_path / 'last_checkpoint').touch()
    (tmp_path / 'student.pth').touch()
    with pytest.raises(ValueError, match='among the files of a training'):
        mmseg_adm.export_student(DEMO, tmp_path / 'iter_1.pth', tmp_path / 'student.pth')
