"""What the first validation and the first checkpoint would stumble over, hours after the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from mmseg_adm.config.registered import class_of
from mmseg_adm.config.structure import metrics_of
from mmseg_adm.export import plain_config
from mmseg_adm.models import KnowledgeDistiller

from .report import Report

# Of a batch, at most.
IMAGES = 4


def check_validation(
    config: Config, model: Any, dataset: Any, hooks: Sequence, report: Report
) -> None:
    """Let every network predict the first validation images, and the hooks do what they do then.

    Args:
        config: Of the run.
        model: Not the one that will train: it is left in evaluation mode.
        dataset: The validation set.
        hooks: Those with a method ``rehearse(model, dataset)`` are asked. They go on without what
            they cannot do, so that this is a warning.
        report: Takes the lines.
    """
    report.check('validation', _predict, config, model.eval(), dataset)
    if not isinstance(model, KnowledgeDistiller):
        return
    for hook in hooks:
        if rehearse := getattr(hook, 'rehearse', None):
            report.attempt(type(hook).__name__, 'warning', rehearse, model, dataset)


def _predict(config: Config, model: Any, dataset: Any) -> str:
    """Predict one batch with every network, and look at what would be scored.

    Raises:
        ValueError: If there are no labels, or they differ from the predictions in size.
    """
    loader = config.get('val_dataloader') or {}
    count = min(loader.get('batch_size') or 1, IMAGES, len(dataset))
    if not count:
        raise ValueError('the validation set is empty: look at data_root and data_prefix')
    data = pseudo_collate([dataset[index] for index in range(count)])
    if isinstance(model, KnowledgeDistiller):
        predictions = model.predict_members(data, model.member_names)
    else:
        predictions = {'the model': model.val_step(data)}
    if _scores_labels(config):
        for name, samples in predictions.items():
            for sample in samples:
                _check_sizes(name, sample)
    images = f'{count} image{"s" if count > 1 else ""}'
    return f'{", ".join(predictions)} predict a batch of {images}'


def _check_sizes(name: str, sample: SegDataSample) -> None:
    if 'gt_sem_seg' not in sample:
        raise ValueError(
            "val_dataloader: its images come without labels: add dict(type='LoadAnnotations') to "
            "the data set's pipeline"
        )
    sizes = {'labels': sample.gt_sem_seg.shape[-2:], 'prediction': sample.pred_sem_seg.shape[-2:]}
    if sizes['labels'] != sizes['prediction']:
        found = ', its '.join(f'{key} {size[0]}x{size[1]}' for key, size in sizes.items())
        raise ValueError(
            f"{sample.get('img_path', 'a validation image')}: its {found} pixels ('{name}'). mmseg "
            'scores at the size of the file: place LoadAnnotations after Resize in the pipeline of '
            'val_dataloader'
        )


def _scores_labels(config: Config) -> bool:
    """Whether one of mmseg's metrics compares predictions with labels."""
    metrics = [metric for _, metric in metrics_of(config, 'val') if isinstance(metric, Mapping)]
    kinds = [class_of(each.get('type'), METRICS) for each in metrics if not each.get('format_only')]
    return any(isinstance(kind, type) and issubclass(kind, IoUMetric) for kind in kinds)


def check_export(config: Config) -> None:
    """Make the config of the student as it is written beside each checkpoint, and read it.

    Raises:
        ValueError: If it cannot be made.
    """
    plain = plain_config(config)
    Config.fromstring(plain.pretty_text, '.py')
