"""Look at the whole run before its first iteration."""

from __future__ import annotations

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.models.methods.base import flag
from mmseg_adm.preflight import as_text, inspect_run
from mmseg_adm.registry import HOOKS


@HOOKS.register_module()
class PreflightHook(Hook):
    """Logs what preflight finds, and stops a run that could only go wrong.

    Before iteration 1 of a fresh run, not on resuming. Nothing of the run changes: it gives the
    same weights as without. The values in the label maps are left to :class:`DataCheckHook`.

    Args:
        enabled: Whether it looks at all.
    """

    # After the hooks that refuse a wrong config at no cost.
    priority = 'LOWEST'

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = flag('enabled', enabled)

    def before_train(self, runner: Runner) -> None:
        """Inspect the run, each process for itself; they end together.

        Raises:
            ValueError: If a check failed in any process; with all that failed.
        """
        if not self.enabled or runner.iter > 0:
            return
        datasets = {'train': runner.train_dataloader.dataset}
        if runner.val_loop is not None:
            datasets['val'] = runner.val_dataloader.dataset
        report = inspect_run(
            runner.cfg,
            unwrapped(runner),
            runner.optim_wrapper,
            datasets,
            runner.hooks,
            label_maps=0,
        )
        runner.logger.info(f'Preflight:\n{as_text(report)}')
        everywhere = all_gather_object([f'{each.name}: {each.text}' for each in report.failed])
        failed = list(dict.fromkeys(line for lines in everywhere for line in lines))
        if failed:
            raise ValueError(
                '\n  '.join(['preflight found what must be put right first:', *failed])
                + '\nTo train all the same: --skip-preflight, or --cfg-options '
                'default_hooks.preflight.enabled=False'
            )
