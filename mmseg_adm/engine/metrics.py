"""Metrics of one network among several, and of each class."""

from __future__ import annotations

from pathlib import Path

from mmengine.evaluator import Evaluator
from mmseg.evaluation import IoUMetric

from mmseg_adm.registry import METRICS


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """:class:`mmseg.evaluation.IoUMetric` with ``IoU.<class>`` in per cent beside the means.

    Arguments are those of the base class. Classes that neither labels nor predictions hold are
    left out.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The base class's metrics and the IoU of each class."""
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        intersect, union, _, _ = (sum(areas) for areas in zip(*results, strict=True))
        for name, i, u in zip(self.dataset_meta['classes'], intersect, union, strict=True):
            if u > 0:
                metrics[f'IoU.{name}'] = round(100 * float(i / u), 2)
        return metrics


def of_member(evaluator: Evaluator, member: str) -> Evaluator:
    """Name an evaluator's metrics after a member, and place its files in a folder called so.

    A prefix that a metric has of its own comes after the member's name.

    Args:
        evaluator: Is changed in place.
        member: Whose predictions it scores.

    Returns:
        The evaluator.
    """
    for metric in evaluator.metrics:
        own = getattr(metric, 'prefix', None)
        metric.prefix = f'{member}/{own}' if own else member
        if folder := getattr(metric, 'output_dir', None):
            metric.output_dir = str(Path(folder) / member)
            # IoUMetric does so on rank 0 alone, and the others may write first.
            Path(metric.output_dir).mkdir(parents=True, exist_ok=True)
        if file := getattr(metric, 'out_file_path', None):
            metric.out_file_path = str(Path(file).parent / member / Path(file).name)
    return evaluator
