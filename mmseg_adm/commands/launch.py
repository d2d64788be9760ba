"""The way from a config file to a Runner that starts, for commands and Python alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_distributed, master_only
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from mmseg.models import BaseSegmentor

from mmseg_adm.checkpoint import (
    check_plain_weights,
    install_safe_loading,
    install_whole_writing,
    trust_checkpoints,
)
from mmseg_adm.config import (
    check_config,
    drop_downloads,
    read_config,
    resolve_config,
)
from mmseg_adm.datasets.checks import check_data_paths
from mmseg_adm.engine import QuietRunner
from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.mistakes import described
from mmseg_adm.paths import check_folder, find_checkpoint
from mmseg_adm.writing import write_text

CHANNELS_LAST = 'mmseg_adm.ChannelsLastHook'


def load_config(
    source: str | Path | Config,
    cfg_options: Mapping | None = None,
    pretrained: bool = True,
    trust_checkpoint: bool = False,
) -> Config:
    """A config that runs, its members in full; ``source`` stays as it is.

    Args:
        source: A config, its path or its name (``mmseg_adm::...``).
        cfg_options: Overrides by dotted key.
        pretrained: Whether to start from checkpoints that would have to be downloaded.
        trust_checkpoint: Whether local checkpoints may hold, and run, more than weights; for
            this process, until the next call.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a member would stay untrained that is to go on from its weights.
    """
    install_safe_loading()
    install_whole_writing()
    trust_checkpoints(trust_checkpoint)
    config = source if isinstance(source, Config) else read_config(source)
    config = resolve_config(config, cfg_options)
    if not pretrained:
        drop_downloads(config)
    return config


def prepare_runner(
    config: Config,
    work_dir: str | Path | None = None,
    launcher: str = 'none',
) -> None:
    """Say where a run writes and how it is launched, and fit it to this machine, in place.

    Args:
        config: Of the run.
        work_dir: By default that of the config, else ``work_dirs/<name of the config>``.
        launcher: As of ``--launcher``.

    Raises:
        ValueError: If the config asks for what would silently train nothing, or has neither a
            work dir nor a name to call one by.
    """
    config.launcher = launcher
    work_dir = work_dir or config.get('work_dir')
    if work_dir is None:
        if config.filename is None:
            raise ValueError('the config has no file name to call its work dir by: give work_dir')
        work_dir = Path('work_dirs') / Path(config.filename).stem
    config.work_dir = str(work_dir)
    fit_to_machine(config)
    if launcher != 'none':
        _prepare_distributed(config, launcher)


def check_run(config: Config, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """Refuse what can be refused of a prepared run without building anything.

    Args:
        config: Of the run.
        splits: Which of its data sets it uses, the first one in any case.

    Raises:
        ValueError: If a setting is missing, a type, an option or a metric is not there, or the run
            would replace a config of the user's.
        OSError: If nothing can be written into the work dir, or data or a checkpoint are not there.
    """
    check_folder('the work dir', config.work_dir)
    if 'train' in splits:
        check_own_config(config)
    check_config(config, splits)
    check_data_paths(config, splits)
    check_local_checkpoints(config)


def check_own_config(config: Config) -> None:
    """Refuse to write the config of a training in the place of one that is a user's.

    Raises:
        ValueError: With the path.
    """
    if config.filename is None:
        return  # It is called by the time.
    folder = Path(config.work_dir)
    path = folder / Path(config.filename).name
    # What a training leaves.
    traces = ('last_checkpoint', '*.pth', '*/vis_data')
    if path.exists() and not any(next(folder.glob(trace), None) for trace in traces):
        raise ValueError(
            f'{path} is there, and no training has written it: this one would put its own config '
            'in the place. Choose another --work-dir'
        )


def check_local_checkpoints(config: Config) -> None:
    """Refuse files that a run starts from and that are not there.

    Raises:
        FileNotFoundError: With the setting.
    """
    members = config.model.get('members') or {}
    sources = {f"member '{name}': ": (member or {}).get('checkpoint')
               for name, member in members.items()}  # fmt: skip
    for of, source in {**sources, '': config.get('load_from')}.items():
        if source and '://' not in str(source):
            try:
                find_checkpoint(source)
            except FileNotFoundError as error:
                raise FileNotFoundError(f'{of}{error}') from None


def fit_to_machine(config: Config) -> None:
    """Refuse what would silently train nothing, and replace what this machine has not, in place.

    Raises:
        ValueError: If the config checkpoints activations.
    """
    if config.get('activation_checkpointing'):
        raise ValueError(
            "MMEngine's activation_checkpointing gives a backbone that is read by a method no "
            'gradient: remove it from the config'
        )
    replace_sync_bn(config)


def replace_sync_bn(config: Config) -> None:
    """Without CUDA, replace SyncBN, which cannot train there in several processes, by BN."""
    if torch.cuda.is_available():
        return

    def replace(node: object) -> int:
        count = 0
        if isinstance(node, dict):
            if node.get('type') in ('SyncBN', 'MMSyncBN'):
                node['type'] = 'BN'
                count += 1
            node = list(node.values())
        if isinstance(node, (list, tuple)):
            count += sum(replace(child) for child in node)
        return count

    if replace(config.model) + bool(config.pop('sync_bn', None)):
        print_log(
            'No CUDA device: SyncBN is replaced by BN. With several processes each one then '
            'normalizes by its own images',
            logger='current',
            level=30,
        )


def _prepare_distributed(config: Config, launcher: str) -> None:
    # Unlike MMEngine's default this one broadcasts buffers: plain BN has other statistics on
    # each rank, and rank 0 saves its own.
    wrapper: dict = dict(type='MMDistributedDataParallel')
    if config.get('find_unused_parameters'):
        # MMEngine reads it only where no wrapper is set.
        wrapper['find_unused_parameters'] = True
    if not torch.cuda.is_available():
        if launcher != 'pytorch':
            raise ValueError(f'--launcher {launcher} needs CUDA; without it use pytorch')
        wrapper['device_ids'] = None
        config.env_cfg.dist_cfg = dict(backend='gloo')
        if not is_distributed():
            # MMEngine's launcher would call torch.cuda.set_device.
            torch.distributed.init_process_group('gloo')
    config.model_wrapper_cfg = wrapper | (config.get('model_wrapper_cfg') or {})


def leave_process_group() -> None:
    """End together: a process that exits while others still write takes the launch down."""
    if is_distributed():
        barrier()
        torch.distributed.destroy_process_group()


def enable_amp(config: Config) -> None:
    """``--amp``: float16 with loss scaling on a GPU, bfloat16 on a CPU.

    Raises:
        ValueError: If the optimizer wrapper is neither a plain one nor one per group.
    """
    if config.optim_wrapper.get('constructor') == 'mmseg_adm.GroupOptimWrapperConstructor':
        config.optim_wrapper.dtype = 'float16' if torch.cuda.is_available() else 'bfloat16'
        return
    kind = config.optim_wrapper.get('type', 'OptimWrapper')
    if kind in ('AmpOptimWrapper', 'mmseg_adm.CPUAmpOptimWrapper'):
        print_log('AMP training is already enabled in your config.', 'current', level=30)
        return
    if kind != 'OptimWrapper':
        raise ValueError(f'--amp needs optim_wrapper.type OptimWrapper, got {kind}')
    if torch.cuda.is_available():
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.loss_scale = 'dynamic'
    else:
        config.optim_wrapper.type = 'mmseg_adm.CPUAmpOptimWrapper'


def enable_channels_last(config: Config) -> None:
    """``--channels-last``; the written config says so too."""
    hooks = [*(config.get('custom_hooks') or [])]
    if not any(hook.get('type') == CHANNELS_LAST for hook in hooks):
        config.custom_hooks = [*hooks, dict(type=CHANNELS_LAST)]


@contextmanager
def kept_if_started(config: Config, runner: Callable[[], Runner | None]) -> Iterator[None]:
    """Leave nothing behind of a run that was refused before its first iteration.

    Args:
        config: Of the run.
        runner: What the block has built so far.

    Raises:
        ValueError: In place of what else the block raises before that: it comes from a config
            that does not fit.
    """
    folder = Path(config.work_dir).absolute()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    written = folder / Path(config.filename or 'config.py').name
    before = written.read_bytes() if written.is_file() else None
    try:
        yield
    except Exception as error:
        refused = runner()
        if refused is not None and _iterations_of(refused) > 0:
            raise
        if new:
            shutil.rmtree(folder, ignore_errors=True)
            for parent in new[1:]:
                with suppress(OSError):  # others have begun to write into it
                    parent.rmdir()
        elif refused is not None:
            # Others may run in this folder, and write into it.
            shutil.rmtree(refused.log_dir, ignore_errors=True)
            _restore(written, before)
        if isinstance(error, (ValueError, OSError)):
            raise
        text = f'the run could not start: {described(error)} (--debug shows where)'
        raise ValueError(text) from error


def _iterations_of(runner: Runner) -> int:
    # Not Runner.iter, which builds the loop if it could not be built.
    loop = runner._train_loop
    return loop.iter if isinstance(loop, BaseLoop) else 0


def _restore(path: Path, content: bytes | None) -> None:
    """Have a file as it was before."""
    if content is None:
        path.unlink(missing_ok=True)
    elif path.read_bytes() != content:
        path.write_bytes(content)


class EvaluationRunner(QuietRunner):
    """A runner that keeps its config beside its log: the one in a work dir is a training's."""

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        """Load weights, and refuse those that do not fit a plain segmentor.

        A distiller refuses them itself; MMEngine would leave weights as they are drawn, and log it.
        """
        checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        model = unwrapped(self)
        if isinstance(model, BaseSegmentor):
            check_plain_weights(checkpoint, model, filename)
        return checkpoint

    @master_only
    def dump_config(self) -> None:
        """Write the config into this run's own folder."""
        path = Path(self.log_dir) / Path(self.cfg.filename or 'config.py').name
        write_text(path, self.cfg.pretty_text)
