"""Whether a teacher knows anything: a loss that stays flat often has one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dataset import pseudo_collate
from mmseg.evaluation import IoUMetric
from torch import Tensor

from mmseg_adm.checkpoint import local_path, read_checkpoint
from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.taps import decode_head_of, find_classifier

from .batch import spread
from .report import Report, Status
from .sandbox import evaluating

IMAGES = 8
# Of the way from chance to perfect: 48 untrained networks came to at most 0.014 of it.
MARGIN = 0.03


class Score(NamedTuple):
    """Of one network on a few images, in [0, 1].

    Attributes:
        miou: Mean over the classes that occur in the labels.
        chance: What its own predictions would score at other places, or the best single class
            predicted everywhere, whichever is more.
    """

    miou: float
    chance: float

    @property
    def better_than_chance(self) -> bool:
        """Clearly so."""
        return self.miou - self.chance > MARGIN * (1 - self.chance)


def check_teachers(model: KnowledgeDistiller, dataset: Any, report: Report) -> None:
    """Let each member that starts from a checkpoint predict a few validation images.

    One that is frozen and scores like chance fails; one that goes on may learn what it lacks.

    Args:
        model: The distiller.
        dataset: The validation set, ``None`` if there is none.
        report: Takes the lines.
    """
    checkpoints = checkpoints_of(model)
    for name, checkpoint in checkpoints.items():
        report.add(f'weights of {name}', 'ok', f'{checkpoint} fits strictly')
    if not checkpoints:
        return
    if dataset is None:
        report.add('teacher', 'warning', 'not scored: the config has no validation set')
        return
    with evaluating(model):
        status: Status = 'failed' if model.frozen else 'warning'
        scores = report.attempt('teacher', status, score_teachers, model, dataset)
    for name, score in (scores or {}).items():
        count = min(IMAGES, len(dataset))
        text = (
            f'mIoU {100 * score.miou:.1f} on {count} validation images, '
            f'{100 * score.chance:.1f} would be chance'
        )
        if score.better_than_chance:
            report.add(f'score of {name}', 'ok', text)
        else:
            frozen = name in model.frozen
            report.add(
                f'score of {name}',
                'failed' if frozen else 'warning',
                f'{text}: {"it teaches" if frozen else "it starts as"} noise. Were these weights '
                f'({checkpoints[name]}) trained, on these classes in this order, with this '
                'preprocessing?',
            )


def checkpoints_of(model: KnowledgeDistiller) -> dict[str, str]:
    """Those that members start from, frozen ones and ones in training."""
    frozen = {name: str(member.checkpoint) for name, member in model.frozen.items()}
    return frozen | model.checkpoints


@torch.no_grad()
def score_teachers(model: KnowledgeDistiller, dataset: Any) -> dict[str, Score]:
    """The score of each member with a checkpoint on validation images spread over the set."""
    names = tuple(checkpoints_of(model))
    classes = {name: find_classifier(model.network(name)).out_channels for name in names}
    areas: dict[str, list[Sequence[Tensor]]] = {name: [] for name in names}
    for index in spread(len(dataset), IMAGES):
        predictions = model.predict_members(pseudo_collate([dataset[index]]), names)
        for name in names:
            (sample,) = predictions[name]
            head: Any = decode_head_of(model.network(name))
            prediction = sample.pred_sem_seg.data.squeeze()
            labels = sample.gt_sem_seg.data.squeeze().to(prediction)
            areas[name].append(
                IoUMetric.intersect_and_union(prediction, labels, classes[name], head.ignore_index)
            )
    return {name: _score(*_summed(areas[name])) for name in names}


def _summed(areas: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(each).sum(dim=0) for each in zip(*areas, strict=True)]


def _score(intersection: Tensor, union: Tensor, predicted: Tensor, labelled: Tensor) -> Score:
    total = labelled.sum()
    if not total:
        raise ValueError('no pixel of the validation images tried is labelled')
    seen = labelled > 0
    shares, true_shares = predicted / total, labelled / total
    # The same predictions, scattered: a class meets another by the product of their shares.
    met = shares * true_shares
    scattered = (met / (shares + true_shares - met))[seen].mean()
    constant = true_shares.max() / seen.sum()
    return Score(
        miou=float((intersection / union)[seen].mean()), chance=float(max(scattered, constant))
    )


def check_recorded_classes(model: KnowledgeDistiller, classes: Sequence[str], report: Report):
    """Compare the class names in a member's checkpoint with the data's, in order."""
    for name, checkpoint in checkpoints_of(model).items():
        recorded = recorded_classes(local_path(checkpoint))
        line = f'classes of {name}'
        if recorded is None:
            report.add(
                line,
                'warning',
                'its checkpoint does not record them: whether they are those of the data, in the '
                'same order, only its score tells',
            )
        elif problem := first_difference(recorded, classes, 'its checkpoint', 'the data'):
            frozen = name in model.frozen
            advice = 'Take a teacher that was trained on these labels'
            report.add(
                line,
                'failed' if frozen else 'warning',
                f'{problem}. {advice if frozen else "It has to learn them anew"}',
            )
        else:
            report.add(line, 'ok', f'the {len(classes)} of the data, in the same order')


def recorded_classes(checkpoint: Any) -> list[str] | None:
    """The class names that mmseg wrote into a checkpoint, of this generation or the last."""
    meta = read_checkpoint(checkpoint).get('meta') or {}
    dataset_meta = meta.get('dataset_meta') or {}
    for place in (dataset_meta, meta):
        for key in ('classes', 'CLASSES'):
            if place.get(key):
                return list(place[key])
    return None


def first_difference(
    first: Sequence[str], second: Sequence[str], one: str, other: str
) -> str | None:
    """How two lists of class names differ, ``None`` if they don't but in case."""
    if len(first) != len(second):
        return f'{one} has {len(first)} classes, {other} {len(second)}'
    for index, names in enumerate(zip(first, second, strict=True)):
        if names[0].lower() != names[1].lower():
            order = sorted(map(str.lower, first)) == sorted(map(str.lower, second))
            reason = ' (the same names in another order)' if order else ''
            return f"class {index} is '{names[0]}' in {one} and '{names[1]}' in {other}{reason}"
    return None
