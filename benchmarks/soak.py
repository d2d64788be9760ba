"""Kills a training at random moments, resumes it each time, and compares it with one left alone.

python benchmarks/soak.py --kills 60 --processes 2

Small networks learn on drawn data, by the command ``mmseg-adm train ... --resume``. Each life of
the training is a process (or two) of its own, ended by SIGKILL after a random time, half of them
once it next writes a file. At the end weights, optimizer, logged values, metrics and the files that
are kept must equal those of the undisturbed run to the bit; where they don't, the exit status is 1.
A training that comes to its end before all kills are spent is followed by another one.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.commands.main import main as mmseg_adm
from mmseg_adm.datasets.synthetic_city import write_synthetic_city

PAIR = 'pspnet_r18-w32-d8_pspnet_r18-w16-d8'
CONFIG = f'mmseg_adm::adm/adm_{PAIR}_1xb8-demo_synthetic-city-96x128.py'
# What a training imports, and takes long to.
IMPORTED = (
    'mmseg.datasets',
    'mmseg.models',
    'mmseg_adm.commands.launch',
    'torch._dynamo',
    'mmseg_adm.engine.panel',
)
# Checkpoints of every third iteration, a validation of every ninth: some kills hit each of them.
OPTIONS = (
    'train_cfg.val_interval=9',
    'default_hooks.checkpoint.interval=3',
    'default_hooks.logger.interval=1',
    'default_hooks.preflight.enabled=False',
    'optim_wrapper.optimizer.lr=0.01',
    'train_dataloader.batch_size=2',
    'model.data_preprocessor.size=(32,48)',
    *(f'{split}_dataloader.{option}' for split in ('train', 'val', 'test')
      for option in ('num_workers=0', 'persistent_workers=False')),
    *(f'model.members.{member}.{option}' for member, width in (('student', 4), ('teacher', 8))
      for option in (f'backbone.base_channels={width}', f'backbone.stem_channels={width}',
                     f'decode_head.in_channels={8 * width}', f'decode_head.channels={2 * width}')),
)  # fmt: skip
ITERATIONS = 90
# Seconds from the start of a life to its kill, at random between these; the first step comes after
# about half of it.
LIFE = (0.5, 6.0)
# The share of kills that then wait for the next write.
AIMED = 0.5
# Seconds that the other process has to end by itself.
PATIENCE = 5.0
# What a run holds beyond its state: where it lies, when and how fast it ran.
OF_THE_MOMENT = ('last_ckpt', 'best_ckpt', 'cfg', 'eta', 'experiment_name')
# In MMEngine's message hub: for display, where a validation that is made up for comes before a
# step, not after one; and which files were removed. What is left is compared.
PASSING = ('iter', 'epoch', 'outdated_checkpoints')


def outcome(work_dir: Path) -> dict[str, str]:
    """All that a training leaves, but for where, when and how fast it ran, by what it is.

    Raises:
        ValueError: If a validation was logged twice, with other values.
    """
    found = {}
    for path in sorted(work_dir.rglob('*')):
        name = path.relative_to(work_dir)
        # Each start has a folder of its own for its log.
        if path.is_file() and not name.parts[0].startswith('20'):
            found[f'{name}'] = 'there'
            if path.suffix == '.pth':
                found |= _flat(f'{name}', _contents(path))
            elif path.suffix == '.png' or path.name.startswith('student_'):
                found[f'{name}'] = hashlib.sha256(path.read_bytes()).hexdigest()
    found['last_checkpoint'] = Path((work_dir / 'last_checkpoint').read_text()).name
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for row in map(json.loads, log.read_text().splitlines()):
            if 'student/mIoU' in row:
                key, value = f'metrics of {row["step"]}', str(_lasting(row))
                if found.setdefault(key, value) != value:
                    raise ValueError(f'{log} has other {key}: {value}, not {found[key]}')
    return found


def _contents(path: Path) -> dict:
    content = read_checkpoint(path)
    content['meta'] = _lasting(content['meta'])
    if hub := content.pop('message_hub', None):
        infos = hub['runtime_info']
        content['infos'] = {key: value for key, value in _lasting(infos).items()
                            if key not in PASSING}  # fmt: skip
        content['best'] = Path(infos.get('best_ckpt', 'none')).name
        content['logged'] = _lasting({name: torch.as_tensor(buffer.data[0])
                                      for name, buffer in hub['log_scalars'].items()})  # fmt: skip
    return content


def _lasting(values: dict) -> dict:
    return {key: value for key, value in values.items()
            if key not in OF_THE_MOMENT and 'time' not in key and key != 'memory'}  # fmt: skip


def _flat(path: str, value: object) -> Iterator[tuple[str, str]]:
    """A nested state by path, tensors by their hash."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _flat(f'{path}/{key}', child)
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from _flat(f'{path}/{index}', child)
    elif isinstance(value, torch.Tensor):
        content = value.detach().contiguous().view(torch.uint8) if value.ndim else value
        digest = hashlib.sha256(content.numpy().tobytes()).hexdigest()
        yield path, f'{value.dtype} {tuple(value.shape)} {digest}'
    else:
        yield path, str(value)


class Life:
    """A training between its start and its end, in one or two processes.

    Args:
        work_dir: Of the training.
        processes: How many.
        iterations: To the end of the training.
    """

    def __init__(self, work_dir: Path, processes: int, iterations: int) -> None:
        self.environment = {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
        argv = ['train', CONFIG, '--work-dir', str(work_dir), '--resume']
        if processes > 1:
            argv += ['--launcher', 'pytorch']
            self.environment |= {
                'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(_free_port()),
                'WORLD_SIZE': str(processes),
            }  # fmt: skip
        argv += ['--cfg-options', f'train_cfg.max_iters={iterations}', *OPTIONS]
        log = work_dir.with_suffix('.log')
        self.living = {self._start(argv, rank, log): rank for rank in range(processes)}
        self.statuses: list[int] = []

    def _start(self, argv: list[str], rank: int, log: Path) -> int:
        """Fork: to import PyTorch anew would take most of a life."""
        # Not for the child to print once more.
        sys.stdout.flush()
        process = os.fork()
        if process:
            return process
        status = 1
        try:
            with log.open('a') as output:
                for stream in (1, 2):
                    os.dup2(output.fileno(), stream)
            own = {'RANK': str(rank), 'LOCAL_RANK': str(rank)} if len(self.environment) > 2 else {}
            os.environ.update(self.environment | own)
            torch.set_num_threads(1)
            status = mmseg_adm(argv)
        except BaseException:  # nothing may go on above this fork
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether all of it ends within this time; by itself, without one."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.living:
            for process in list(self.living):
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    del self.living[process]
                    self.statuses.append(os.waitstatus_to_exitcode(status))
            if deadline is not None and time.monotonic() >= deadline:
                break
            time.sleep(0.01)
        return not self.living

    def waits_for_a_write(self, folder: Path) -> bool:
        """Whether it begins to write a file there, before it ends."""
        while not self.wait(0):
            if next(folder.glob('*.partial'), None):
                return True
        return False

    def kill(self, processes: list[int]) -> None:
        """End some of its processes, without warning."""
        for process in processes:
            os.kill(process, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def soak(kills: int, processes: int, seed: int, folder: Path, iterations: int) -> Counter:
    """Kill trainings in ``folder`` so many times; returns what was seen, by its name.

    Raises:
        RuntimeError: If a training could not be resumed.
    """
    chance, seen = random.Random(seed), Counter()
    _finish(folder / 'undisturbed', processes, iterations)
    expected = outcome(folder / 'undisturbed')
    while seen['kills'] < kills:
        seen['trainings'] += 1
        work_dir = folder / f'killed_{seen["trainings"]}'
        while seen['kills'] < kills:
            life = Life(work_dir, processes, iterations)
            ended = life.wait(chance.uniform(*LIFE))
            aimed = chance.random() < AIMED
            if ended or (aimed and not life.waits_for_a_write(work_dir)):
                break
            victims = chance.sample(list(life.living), chance.randint(1, len(life.living)))
            life.kill(victims)
            seen['kills'] += 1
            if not life.wait(PATIENCE):
                seen['processes that did not end by themselves'] += len(life.living)
                life.kill(list(life.living))
                life.wait()
            _look(work_dir, seen)
        _finish(work_dir, processes, iterations)
        seen['resumed to the end'] = seen['kills']
        found = outcome(work_dir)
        different = sorted(key for key in expected.keys() | found.keys()
                           if expected.get(key) != found.get(key))  # fmt: skip
        seen['differences'] += len(different)
        seen['values that were compared'] += len(expected)
        for key in different[:20]:
            print(f'{work_dir.name}: {key}: {found.get(key)}, undisturbed: {expected.get(key)}')
    return seen


def _look(work_dir: Path, seen: Counter) -> None:
    """Note what a kill has left."""
    if not list(work_dir.glob('iter_*.pth')):
        seen['kills before the first checkpoint'] += 1
    if list(work_dir.rglob('*.partial')):
        seen['kills amid a write'] += 1


def _finish(work_dir: Path, processes: int, iterations: int) -> None:
    life = Life(work_dir, processes, iterations)
    life.wait()
    if any(life.statuses):
        raise RuntimeError(
            f'{work_dir} could not be resumed: exit status {life.statuses}, log '
            f'{work_dir.with_suffix(".log")}'
        )


def main() -> int:
    """Read the command line and soak."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=60)
    parser.add_argument('--processes', type=int, choices=(1, 2), default=1)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--iterations', type=int, default=ITERATIONS)
    parser.add_argument('--folder', type=Path, help='where it trains; by default a temporary one')
    args = parser.parse_args()
    start = time.monotonic()
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # MMEngine collects garbage in each life
    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        city = write_synthetic_city(folder / 'city', num_train=8, num_val=1, size=(48, 96))
        os.environ['SYNTHETIC_CITY_ROOT'] = str(city)
        # MMEngine formats the config for each checkpoint: half a second that proves nothing here.
        for name in ('yapf.yapflib.yapf_api.FormatCode', 'mmengine.config.config.FormatCode'):
            stack.enter_context(patch(name, lambda text, **_: (text, True), create=True))
        seen = soak(args.kills, args.processes, args.seed, folder, args.iterations)
    table = Table(title=f'{args.kills} kills, {args.processes} process(es), seed {args.seed}')
    table.add_column('')
    table.add_column('', justify='right')
    for name, count in seen.items():
        table.add_row(name, str(count))
    table.add_row('minutes', f'{(time.monotonic() - start) / 60:.1f}')
    Console().print(table)
    return 1 if seen['differences'] else 0


if __name__ == '__main__':
    sys.exit(main())
