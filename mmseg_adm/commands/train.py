"""Train a distiller, a pair of networks, or a plain segmentor."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmseg_adm.paths import check_folder

from .flags import add_config_flags, add_runner_flags, check_config, config_of
from .main import RANKS

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those of MMSegmentation's, and those of a pair."""
    add_config_flags(parser, pairs=True)
    add_runner_flags(parser, 'where logs and checkpoints go; by default work_dirs/<config>')
    parser.add_argument(
        '--resume',
        action='store_true',
        help='go on from the newest whole checkpoint in the work dir; without any, start',
    )
    parser.add_argument(
        '--allow-changes',
        action='store_true',
        help='with --resume: go on with other settings than the run had, where they take effect',
    )
    parser.add_argument(
        '--amp', action='store_true', help='enable automatic-mixed-precision training'
    )
    parser.add_argument(
        '--channels-last',
        action='store_true',
        help='lay out weights and maps with the channels last: for depthwise networks on a CPU, '
        'and with --amp on a GPU',
    )
    parser.add_argument(
        '--tensorboard',
        action='store_true',
        help='write losses, metrics and pictures for TensorBoard too, into the work dir',
    )
    parser.add_argument(
        '--skip-preflight', action='store_true', help='start without looking at the run first'
    )


def check(args: argparse.Namespace) -> None:
    """Refuse what the flags alone tell."""
    check_config(args)
    if args.work_dir:
        check_folder('--work-dir', args.work_dir)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = config_of(args)
    from mmseg_adm.engine import TrainingTermination

    try:
        train(
            config,
            args.work_dir,
            resume=args.resume,
            allow_changes=args.allow_changes,
            amp=args.amp,
            channels_last=args.channels_last,
            tensorboard=args.tensorboard,
            preflight=not args.skip_preflight,
            trust_checkpoint=args.trust_checkpoint,
            launcher=args.launcher,
        )
    except TrainingInterrupt as interrupt:
        raise KeyboardInterrupt(_how_to_resume(interrupt.checkpoint, args.argv)) from None
    except TrainingTermination as termination:
        if not any(int(os.environ.get(rank, 0)) for rank in RANKS):
            how = _how_to_resume(termination.checkpoint, args.argv)
            text = f'mmseg-adm: terminated after iteration {termination.iteration}{how}'
            print(text, file=sys.stderr, flush=True)
        raise  # exits with 143, as after Ctrl-C with 130: 128 and the number of the signal


def train(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    amp: bool = False,
    channels_last: bool = False,
    tensorboard: bool = False,
    preflight: bool = True,
    cfg_options: Mapping | None = None,
    pretrained: bool = True,
    trust_checkpoint: bool = False,
    launcher: str = 'none',
) -> Runner:
    """Train what a config says, as ``mmseg-adm train`` does.

    Args:
        config: A config, its path or its name (``mmseg_adm::...``); :func:`mmseg_adm.pair`
            makes one of two networks. It stays as it is.
        work_dir: Where logs and checkpoints go; by default that of the config, else
            ``work_dirs/<name of the config>``.
        resume: Go on from the newest whole checkpoint in ``work_dir``; without any, start.
        allow_changes: With ``resume``: also with other settings than the run had, where they take
            effect.
        amp: Mixed precision: float16 on a GPU, bfloat16 on a CPU.
        channels_last: Lay out weights and maps with the channels last.
        tensorboard: Write losses, metrics and pictures for TensorBoard too.
        preflight: Whether to look at the run first and refuse one that could only go wrong.
        cfg_options: Overrides by dotted key: ``{'train_cfg.max_iters': 1000}``.
        pretrained: Whether to start from checkpoints that would have to be downloaded.
        trust_checkpoint: Whether local checkpoints may hold, and run, more than weights.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``: how the processes of a
            distributed training were started.

    Returns:
        MMEngine's Runner after the last iteration, with its ``model``, its ``work_dir``, and what
        was logged in ``message_hub``.

    Raises:
        FileNotFoundError: If config, data or a checkpoint is not there.
        ValueError: If the config does not fit, is not that of the run that it resumes, preflight
            found what must be put right, or ``work_dir`` holds the checkpoints of another training.
        TrainingFault: If data, a worker or the disk failed while it was under way.
        TrainingInterrupt: After Ctrl-C.
        TrainingTermination: After SIGTERM, once it has saved a checkpoint.
        LostProcess: If another process of the training has died: with exit status 1.
    """
    from mmengine.dist import is_distributed

    from mmseg_adm.config import add_tensorboard
    from mmseg_adm.config.lengths import check_lengths
    from mmseg_adm.engine import TrainingRunner, TrainingTermination, UnreadableSample
    from mmseg_adm.engine.checkpoints import newest_checkpoint, refuse_another_run

    from .launch import (
        check_run,
        enable_amp,
        enable_channels_last,
        kept_if_started,
        leave_process_group,
        load_config,
        prepare_runner,
    )

    config = load_config(config, cfg_options, pretrained, trust_checkpoint)
    if tensorboard:
        add_tensorboard(config)
    opened_before = is_distributed()
    prepare_runner(config, work_dir, launcher)
    check_run(config)
    if amp:
        enable_amp(config)
    if channels_last:
        enable_channels_last(config)
    hook = (config.get('default_hooks') or {}).get('preflight')
    if hook and not preflight:
        hook.enabled = False
    config.resume = resume
    check_lengths(config)
    if allow_changes:
        _allow_changes(config)
    if not resume:
        refuse_another_run(config)
    runner = None
    try:
        with kept_if_started(config, lambda: runner):
            runner = TrainingRunner.from_cfg(config)
            runner.train()
    except KeyboardInterrupt:
        raise TrainingInterrupt(newest_checkpoint(config)) from None
    except TrainingTermination as termination:
        termination.checkpoint = newest_checkpoint(config)
        if not opened_before:
            leave_process_group()
        raise
    except (OSError, UnreadableSample) as error:
        if runner is None or runner.iter == 0:
            raise
        raise TrainingFault(error, runner.iter, newest_checkpoint(config)) from error
    if not opened_before:
        leave_process_group()
    return runner


def _allow_changes(config: Config) -> None:
    """Let a run go on with other settings.

    Raises:
        ValueError: If none is resumed.
    """
    if not config.resume:
        raise ValueError('--allow-changes belongs to --resume: a new run has nothing to change')
    if guard := (config.get('default_hooks') or {}).get('resume_guard'):
        guard.allow_changes = True


class TrainingFault(OSError):
    """Data, a worker or the disk failed while a training was under way.

    Args:
        error: What is wrong.
        iteration: How many it has trained.
        checkpoint: The newest whole one that it saved, if it had come to that.
    """

    def __init__(self, error: Exception, iteration: int, checkpoint: Path | None) -> None:
        how = (
            f'go on from {checkpoint} with --resume'
            if checkpoint
            else 'start it again: it has saved no checkpoint yet'
        )
        super().__init__(
            f'{error}\nIt happened after iteration {iteration}. Once it is put right, {how}'
        )
        self.checkpoint = checkpoint


class TrainingInterrupt(KeyboardInterrupt):
    """Ctrl-C in a training.

    Args:
        checkpoint: The last one that it saved, if it had come to that.
    """

    def __init__(self, checkpoint: Path | None) -> None:
        super().__init__(
            f'the last checkpoint is {checkpoint}' if checkpoint else 'before the first checkpoint'
        )
        self.checkpoint = checkpoint


def _how_to_resume(checkpoint: Path | None, argv: list[str]) -> str:
    if checkpoint is None:
        return ' before the first checkpoint: there is nothing to resume from'
    command = argv if '--resume' in argv else [*argv, '--resume']
    # Several processes are launched by a command that is not known here.
    start = 'the same launch of ' if 'RANK' in os.environ else ''
    return f'; to go on from {checkpoint.name}: {start}mmseg-adm {shlex.join(command)}'
