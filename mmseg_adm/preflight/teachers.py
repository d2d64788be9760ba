"""Whether a teacher knows anything: a loss that stays flat often has one that does not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dataset import pseudo_collate
from mmseg.evaluation import IoUMetric
from torch import Tensor

from mmseg_adm.checkpoint import local_path, read_checkpoint
from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.taps import decode_head_of, find_classifier

from .data import first_difference, spread
from .report import Report, Status

IMAGES = 8
# Among how many it looks for images of several classes: one class alone anybody can predict.
SEARCHED = 64
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
        model: Not the one that will train: it is left in evaluation mode.
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
    status: Status = 'failed' if model.frozen else 'warning'
    heads: list[Any] = [decode_head_of(model.network(name)) for name in checkpoints]
    ignored = {head.ignore_index for head in heads}
    samples = report.attempt('teacher', status, telling_samples, dataset, ignored)
    if samples is None:
        return
    if len(_classes_in(samples, ignored)) < 2:
        report.add(
            'teacher',
            'warning',
            f'not scored: of {min(SEARCHED, len(dataset))} validation images, spread over the set, '
            'none shows a second class',
        )
        return
    scores = report.attempt('teacher', status, score_teachers, model.eval(), samples)
    for name, score in (scores or {}).items():
        status, verdict = 'ok', ''
        if not score.better_than_chance:
            frozen = name in model.frozen
            status = 'failed' if frozen else 'warning'
            verdict = (
                f': {"it teaches" if frozen else "it starts as"} noise. Were these weights '
                f'({checkpoints[name]}) trained, on these classes in this order, with this '
                'preprocessing?'
            )
        found = f'mIoU {100 * score.miou:.1f} on {len(samples)} validation images, '
        chance = f'{100 * score.chance:.1f} would be chance'
        report.add(f'score of {name}', status, found + chance + verdict)


def checkpoints_of(model: KnowledgeDistiller) -> dict[str, str]:
    """Those that members start from, frozen ones and ones in training."""
    frozen = {name: str(member.checkpoint) for name, member in model.frozen.items()}
    return frozen | model.checkpoints


def telling_samples(dataset: Any, ignored: Collection[int]) -> list[dict]:
    """At most ``IMAGES`` samples, spread over the set; those of several classes before others.

    Args:
        dataset: Whose samples have labels.
        ignored: Labels that are no class.
    """
    several: list[dict] = []
    others: list[dict] = []
    # The first look is at few images; where these show one class each, it goes on.
    for index in dict.fromkeys((*spread(len(dataset), IMAGES), *spread(len(dataset), SEARCHED))):
        sample = dataset[index]
        found = several if len(_classes_in([sample], ignored)) > 1 else others
        if len(found) < IMAGES:
            found.append(sample)
        if len(several) == IMAGES:
            break
    return [*several, *others][:IMAGES]


def _classes_in(samples: Sequence[dict], ignored: Collection[int]) -> set[int]:
    labels = [sample['data_samples'].gt_sem_seg.data.unique().tolist() for sample in samples]
    return {label for each in labels for label in each}.difference(ignored)


@torch.no_grad()
def score_teachers(model: KnowledgeDistiller, samples: Sequence[dict]) -> dict[str, Score]:
    """The score of each member with a checkpoint on validation samples."""
    names = tuple(checkpoints_of(model))
    classes = {name: find_classifier(model.network(name)).out_channels for name in names}
    areas: dict[str, list[Sequence[Tensor]]] = {name: [] for name in names}
    for data in samples:
        predictions = model.predict_members(pseudo_collate([data]), names)
        for name in names:
            (sample,) = predictions[name]
            head: Any = decode_head_of(model.network(name))
            prediction = sample.pred_sem_seg.data.squeeze()
            labels = sample.gt_sem_seg.data.squeeze().to(prediction)
            areas[name].append(
                IoUMetric.intersect_and_union(prediction, labels, classes[name], head.ignore_index)
            )
    return {
        name: _score(*(torch.stack(each).sum(dim=0) for each in zip(*areas[name], strict=True)))
        for name in names
    }


def _score(intersection: Tensor, union: Tensor, predicted: Tensor, labeled: Tensor) -> Score:
    total = labeled.sum()
    seen = labeled > 0
    shares, true_shares = predicted / total, labeled / total
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
        recorded = recorded_classes(checkpoint)
        status: Status = 'ok'
        text = f'the {len(classes)} of the data, in the same order'
        if recorded is None:
            status = 'warning'
            text = (
                'its checkpoint does not record them: whether they are those of the data, in the '
                'same order, only its score tells'
            )
        elif problem := first_difference(recorded, classes, 'its checkpoint', 'the data'):
            frozen = name in model.frozen
            status = 'failed' if frozen else 'warning'
            advice = 'Take a teacher that was trained on these labels'
            text = f'{problem}. {advice if frozen else "It has to learn them anew"}'
        report.add(f'classes of {name}', status, text)


def recorded_classes(checkpoint: str) -> list[str] | None:
    """The class names that mmseg wrote into a checkpoint, of this generation or the last."""
    meta = read_checkpoint(local_path(checkpoint)).get('meta') or {}
    places = ((meta.get('dataset_meta') or {}).get('classes'), meta.get('CLASSES'))
    return next((list(names) for names in places if names), None)
