"""IoU of each class as a metric, which mmseg's prints and does not return."""

from __future__ import annotations

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
