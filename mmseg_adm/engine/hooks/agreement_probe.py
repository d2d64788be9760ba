"""Where do the networks agree, are they right there, and is it the foreground?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.models.losses import attention, center_over_classes, similarity_map
from mmseg_adm.models.methods.base import whole
from mmseg_adm.models.step import DistillationStep
from mmseg_adm.models.taps import FeatureTap, recording
from mmseg_adm.registry import HOOKS

QUARTERS = 4


@HOOKS.register_module()
class AgreementProbeHook(Hook):
    """Measures where the members agree, and what they know there, on a few validation images.

    Every ``interval`` iterations it logs, as means over images, each over its labeled positions:

    - ``probe/similarity_foreground`` and ``..._background``: the cosine of the members' logits,
      centered over classes (which exists for networks of any width);
    - ``probe/right_<member>_quarter_<1 to 4>``: the share of positions where a member predicts the
      label, in the quarter of the positions where that similarity is lowest, and so on;
    - ``probe/response_<member>``: IoU of the foreground with the positions where the member's
      features respond most, by their mean square over channels, as many as are foreground in
      that image.

    A plain segmentor has nobody to agree with: nothing is measured.

    Args:
        foreground: Names of the classes that are foreground.
        pair: The two members.
        interval: In iterations; the first measurement is before training.
        images: How many images, spread over the validation set.
    """

    def __init__(
        self,
        foreground: Sequence[str],
        pair: Sequence[str] = ('student', 'teacher'),
        interval: int = 100,
        images: int = 16,
    ) -> None:
        self.foreground = tuple(foreground)
        self.pair = tuple(pair)
        self.interval = whole('interval', interval, at_least=1)
        self.images = whole('images', images, at_least=1)
        self.measures = True

    def before_train(self, runner: Runner) -> None:
        """Measure once before the first step.

        Raises:
            ValueError: If a class or a member is not there.
        """
        names = runner.val_dataloader.dataset.metainfo['classes']
        if unknown := set(self.foreground) - set(names):
            raise ValueError(f'no class {", ".join(sorted(unknown))}: {", ".join(names)}')
        members = getattr(unwrapped(runner), 'member_names', ())
        self.measures = bool(members)
        if self.measures and (missing := set(self.pair) - set(members)):
            raise ValueError(f'no member {", ".join(sorted(missing))}: {", ".join(members)}')
        if self.measures and runner.iter == 0:
            self._log(runner, 0)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Measure after every ``interval`` iterations."""
        if self.measures and self.every_n_train_iters(runner, self.interval):
            self._log(runner, runner.iter + 1)

    @master_only
    def _log(self, runner: Runner, step: int) -> None:
        dataset = runner.val_dataloader.dataset
        model: Any = unwrapped(runner)
        names = dataset.metainfo['classes']
        classes = torch.tensor([names.index(name) for name in self.foreground])
        count = min(self.images, len(dataset))
        sums: dict[str, list[float]] = {}
        # Of its own, because not every method reads features.
        taps = {name: FeatureTap(model.network(name), 'features') for name in self.pair}
        try:
            for index in range(count):
                batch = pseudo_collate([dataset[index * len(dataset) // count]])
                with recording(list(taps.values())):
                    measured = model.observe(batch, lambda step: self._measure(step, taps, classes))
                for name, value in measured.items():
                    sums.setdefault(name, []).append(value)
        finally:
            for tap in taps.values():
                tap.remove()
        runner.visualizer.add_scalars(
            {f'probe/{name}': sum(values) / len(values) for name, values in sums.items()}, step=step
        )

    def _measure(
        self, step: DistillationStep, taps: Mapping[str, FeatureTap], classes: Tensor
    ) -> dict[str, float]:
        measured = {}
        student, teacher = (center_over_classes(step.read(name, 'logits')) for name in self.pair)
        student = step.match_size(student, like=teacher)
        similarity = similarity_map(student, teacher)
        valid, foreground = _masks(step, similarity, classes)
        for name, mask in (('foreground', foreground), ('background', valid & ~foreground)):
            if mask.any():
                measured[f'similarity_{name}'] = similarity[mask].mean().item()
        for name, logits in zip(self.pair, (student, teacher), strict=True):
            shares = _right_by_quarter(logits, step.labels_like(logits), similarity, valid)
            measured |= {f'right_{name}_quarter_{n}': share for n, share in enumerate(shares, 1)}
        for name, tap in taps.items():
            response = attention(tap.value).view(-1, *tap.value.shape[-2:])
            valid, foreground = _masks(step, tap.value, classes)
            if foreground.any():
                measured[f'response_{name}'] = _overlap(response, foreground, valid)
        return measured


def _masks(step: DistillationStep, maps: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    valid = step.valid(maps)
    foreground = torch.isin(step.labels_like(maps), classes.to(maps.device))
    return valid, foreground & valid


def _right_by_quarter(
    logits: Tensor, labels: Tensor, similarity: Tensor, valid: Tensor
) -> list[float]:
    """Share of right predictions by quarters of the similarity, from low to high."""
    order = similarity[valid].argsort()
    if len(order) < QUARTERS:
        return []
    right = (logits.argmax(1) == labels)[valid][order].float()
    return [part.mean().item() for part in right.tensor_split(QUARTERS)]


def _overlap(response: Tensor, foreground: Tensor, valid: Tensor) -> float:
    """IoU of the foreground with as many positions of the highest response."""
    count = int(foreground.sum())
    highest = response.masked_fill(~valid, -torch.inf).flatten().topk(count).indices
    hit = int(foreground.flatten()[highest].sum())
    return hit / (2 * count - hit)
