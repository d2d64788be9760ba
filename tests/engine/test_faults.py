"""What a training does when something around it fails, or ends it."""

import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import pytest
from command_line import command
from factory import DEMO, ROOT, demo_config
from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.commands.train import TrainingFault, train
from mmseg_adm.engine import DataStreamHook, TrainingTermination

sys.path.insert(0, str(ROOT / 'benchmarks'))

from soak import outcome

pytestmark = pytest.mark.core

ITERS = 4


def make_config(city, work_dir, **options):
    options = {
        'train_cfg__val_begin': 1000,
        'default_hooks__checkpoint__interval': 2,
        'default_hooks__checkpoint__max_keep_ckpts': 2,
        **options,
    }
    return demo_config(city, work_dir, iters=ITERS, **options)


@pytest.fixture(scope='module')
def trained(city, tmp_path_factory):
    """The work dir of an undisturbed run, begun by --resume without anything to resume."""
    work_dir = tmp_path_factory.mktemp('trained') / 'run'
    train(make_config(city, work_dir), resume=True)
    return work_dir


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained, tmp_path / 'copy')
    return tmp_path / 'copy'


@pytest.fixture
def at(monkeypatch):
    """Have something happen at the beginning of an iteration, counted from 0."""

    def happen(iteration, action):
        seed = DataStreamHook.before_train_iter

        def before_train_iter(hook, runner, batch_idx, data_batch=None):
            if runner.iter == iteration:
                action()
            seed(hook, runner, batch_idx, data_batch)

        monkeypatch.setattr(DataStreamHook, 'before_train_iter', before_train_iter)

    return happen


def log_of(work_dir: Path) -> str:
    """Of the last start."""
    return max(work_dir.glob('*/*.log')).read_text()


def hashes(folder: Path) -> dict:
    return {path: hashlib.sha256(path.read_bytes()).digest()
            for path in folder.rglob('*') if path.is_file()}  # fmt: skip


def different(first: Path, second: Path) -> list[str]:
    first, second = outcome(first), outcome(second)
    return [key for key in first | second if first.get(key) != second.get(key)]


def test_a_resume_without_a_checkpoint_starts_and_says_so(trained):
    assert f'There is no checkpoint in {trained}: starting a new training' in log_of(trained)


def test_a_run_over_another_one_is_refused(trained, city):
    before = hashes(trained)
    with pytest.raises(ValueError, match=r'iter_4\.pth is the newest.*--resume.*--work-dir'):
        train(make_config(city, trained))
    assert hashes(trained) == before


def test_the_newest_whole_checkpoint_counts_whatever_the_pointer_says(trained, copied, city):
    newest = copied / 'iter_4.pth'
    newest.write_bytes(newest.read_bytes()[:-100])
    (copied / 'last_checkpoint').write_text('')
    train(make_config(city, copied), resume=True)
    assert f'Skipped {newest}: it is cut short' in log_of(copied)
    assert f'Load checkpoint from {copied / "iter_2.pth"}' in log_of(copied)
    assert different(trained, copied) == []


def test_a_copied_run_resumes_from_itself(trained, copied, city):
    before = hashes(trained)
    for path in copied.glob('*iter_4*'):
        path.unlink()
    assert (copied / 'last_checkpoint').read_text().startswith(str(trained))
    train(make_config(city, copied, default_hooks__checkpoint__max_keep_ckpts=1), resume=True)
    assert (copied / 'last_checkpoint').read_text() == str(copied / 'iter_4.pth')
    assert not (copied / 'iter_2.pth').exists()
    assert hashes(trained) == before


def test_a_checkpoint_of_the_run_itself_can_be_named(copied, city):
    named = str(copied / 'iter_2.pth')
    train(make_config(city, copied, load_from=named), resume=True)
    assert f'Load checkpoint from {named}' in log_of(copied)


def test_with_nothing_whole_left_nothing_starts(copied, city):
    for path in copied.glob('iter_*.pth'):
        path.write_bytes(b'')
    with pytest.raises(
        ValueError, match=r'(?s)no checkpoint in .*iter_4\.pth: it is empty\n.*anew'
    ):
        train(make_config(city, copied), resume=True)


def test_a_finished_run_has_nothing_left_to_do(trained, copied, city):
    before = hashes(copied)
    train(make_config(city, copied), resume=True)
    after = hashes(copied)
    saved = [path for path in before if path.suffix == '.pth' or path.name.startswith('student_')]
    assert len(saved) == 6
    assert {path: after[path] for path in saved} == {path: before[path] for path in saved}


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_after_sigterm_a_run_saves_and_goes_on_as_if_nothing_had_been(trained, at, city, tmp_path):
    at(2, terminate)
    work_dir = tmp_path / 'run'
    with pytest.raises(TrainingTermination) as caught:
        train(make_config(city, work_dir))
    assert (caught.value.code, caught.value.iteration) == (143, 3)
    assert caught.value.checkpoint == work_dir / 'iter_3.pth'
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    at(2, lambda: pytest.fail('this iteration was trained already'))
    train(make_config(city, work_dir), resume=True)
    # Not the checkpoint between the regular ones either.
    assert different(trained, work_dir) == []


def test_amid_an_accumulation_sigterm_waits_for_its_end(at, city, tmp_path):
    at(0, terminate)
    options = dict(optim_wrapper__accumulative_counts=2)
    with pytest.raises(TrainingTermination, match='143') as caught:
        train(make_config(city, tmp_path / 'run', **options))
    assert caught.value.iteration == 2
    assert (tmp_path / 'run' / 'iter_2.pth').is_file()


def test_sigterm_of_somebody_else_is_left_to_him(at, city, tmp_path):
    noted = []
    signal.signal(signal.SIGTERM, lambda *_: noted.append('noted'))
    at(0, terminate)
    try:
        train(make_config(city, tmp_path / 'run', train_cfg__max_iters=1))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert noted == ['noted']


def test_the_command_says_how_to_go_on_after_sigterm(at, city, tmp_path):
    at(0, terminate)
    words = [
        'train', DEMO, '--work-dir', 'run', '--skip-preflight', '--cfg-options',
        'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    ]  # fmt: skip
    done = command(*words, cwd=tmp_path, SYNTHETIC_CITY_ROOT=str(city))
    assert done.returncode == 143
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        'mmseg-adm: terminated after iteration 1; to go on from iter_1.pth: mmseg-adm train '
    )
    assert line.endswith(' --resume')


def test_workers_outlive_sigterm_to_the_whole_job_and_none_is_left(at, city, tmp_path):
    children = []

    def terminate_job():
        children.extend(multiprocessing.active_children())
        for child in children:
            os.kill(child.pid, signal.SIGTERM)
        terminate()

    at(1, terminate_job)
    with pytest.raises(TrainingTermination) as caught:
        train(make_config(city, tmp_path / 'run', workers=2))
    assert caught.value.iteration == 2
    assert len(children) == 2
    # As at the end of a process.
    for child in children:
        child.terminate()
    for child in children:
        child.join(10)
        assert child.exitcode == 0


@pytest.fixture
def own_city(city, tmp_path):
    shutil.copytree(city, tmp_path / 'city')
    return tmp_path / 'city'


@pytest.mark.parametrize(('kind', 'workers'), [
    ('leftImg8bit', 0), ('gtFine', 1),
    pytest.param('leftImg8bit', 1, marks=pytest.mark.slow),
    pytest.param('gtFine', 0, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_file_that_breaks_is_named_and_how_to_go_on(kind, workers, at, own_city, tmp_path):
    def break_files():
        for path in (own_city / kind / 'train').rglob('*.png'):
            path.write_bytes(path.read_bytes()[:20])

    at(0, break_files)
    options = dict(workers=workers, default_hooks__checkpoint__interval=1)
    with pytest.raises(TrainingFault) as caught:
        train(make_config(own_city, tmp_path / 'run', **options))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f'could not load {own_city}/leftImg8bit/train/')
    assert f'{own_city}/gtFine/train/' in first
    newest = caught.value.checkpoint
    # A worker may have loaded some of what comes next.
    ahead = ('iter_2.pth', 'iter_3.pth') if workers else ()
    assert newest.name in ('iter_1.pth', *ahead)
    assert second == (
        f'It happened after iteration {newest.stem[-1]}. Once it is put right, go on from {newest} '
        'with --resume'
    )


def test_a_worker_that_dies_is_told_and_how_to_go_on(at, city, tmp_path):
    def kill_workers():
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
            child.join()

    at(2, kill_workers)
    options = dict(workers=1, default_hooks__checkpoint__interval=1)
    with pytest.raises(TrainingFault, match=r'^a data worker is lost: .*\n') as caught:
        train(make_config(city, tmp_path / 'run', **options))
    newest = caught.value.checkpoint
    assert newest.name in ('iter_2.pth', 'iter_3.pth')
    assert f'go on from {newest} with --resume' in str(caught.value)


def test_a_full_disk_is_told_and_leaves_nothing_half(at, city, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    at(2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard)))
    work_dir = tmp_path / 'run'
    try:
        with pytest.raises(TrainingFault) as caught:
            train(make_config(city, work_dir))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f'{work_dir / "iter_4.pth"} could not be written: File too large')
    assert first.endswith('All other files are intact, and nothing of it is left')
    assert second.endswith(f'go on from {work_dir / "iter_2.pth"} with --resume')
    assert read_checkpoint(work_dir / 'iter_2.pth')['meta']['iter'] == 2
    assert not list(work_dir.rglob('*.partial'))


def test_a_run_that_drew_its_seed_goes_on_with_it(city, tmp_path):
    def configure(folder, iters=ITERS, **options):
        config = make_config(city, tmp_path / folder, randomness__seed=None, **options)
        config.train_cfg.max_iters = iters
        return config

    train(configure('run', iters=2))
    shutil.copytree(tmp_path / 'run', tmp_path / 'again')
    for folder in ('run', 'again'):
        train(configure(folder), resume=True)
    assert different(tmp_path / 'run', tmp_path / 'again') == []
    seed = read_checkpoint(tmp_path / 'run' / 'iter_2.pth')['meta']['seed']
    assert read_checkpoint(tmp_path / 'run' / 'iter_4.pth')['meta']['seed'] == seed


def test_a_written_config_resumes_nothing_by_itself(copied, city):
    """mmseg's own ``tools/test.py`` would go on with the training, and find no such thing."""
    train(make_config(city, copied), resume=True)
    config = Config.fromfile(copied / DEMO.name)
    assert config.resume is False
    config.load_from = str(copied / 'iter_4.pth')
    config.work_dir = str(copied / 'tested')
    config.custom_imports = dict(imports=['mmseg_adm'])
    metrics = Runner.from_cfg(config).test()
    assert 'student/mIoU' in metrics
