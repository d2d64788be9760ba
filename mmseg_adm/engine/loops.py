"""Evaluation of every member in one pass over the data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner import Runner, TestLoop, ValLoop
from mmengine.runner.amp import autocast
from torch import Tensor
from torch.utils.data import DataLoader

from mmseg_adm.config import check_monitored
from mmseg_adm.models.methods.base import whole
from mmseg_adm.registry import LOOPS

from .known_predictions import (
    MIB,
    KnownPrediction,
    KnownPredictions,
    fingerprint,
    small_label_map,
)
from .metrics import of_member
from .unwrap import unwrapped


class AgreementMetric(BaseMetric):
    """Percentage of labeled pixels where all members predict the same class.

    Args:
        ignore_index: Labels that do not count.
        collect_device: As in MMEngine.
    """

    default_prefix = 'members'

    def __init__(self, ignore_index: int = 255, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device)
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count one batch; each sample holds ``label`` and ``predictions``, (H, W) each."""
        for sample in data_samples:
            first, *others = sample['predictions']
            labeled = sample['label'].to(first.device) != self.ignore_index
            same = labeled
            for other in others:
                same = same & (first == other.to(first.device))
            self.results.append((int(same.sum()), int(labeled.sum())))

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        """The percentage over all images; nothing where there are no labels."""
        if not results:
            return {}
        same, labeled = (sum(counts) for counts in zip(*results, strict=True))
        return {'agreement': round(100 * same / max(labeled, 1), 2)}


class _MembersLoop:
    """What validation and test share; a mixin before MMEngine's loop of either kind.

    Metrics are those of the evaluator, once per member and prefixed by its name
    (``student/mIoU``, or ``student/<prefix>/mIoU``), then ``gap/mIoU`` = teacher - student
    (``gap/<name>/mIoU`` with more than two members) and ``agreement``.
    """

    stage: str
    # MMEngine's loop sets these.
    runner: Runner
    dataloader: Any
    evaluator: Evaluator
    fp16: bool

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: dict | list | Evaluator,
        fp16: bool = False,
        agreement: bool = True,
    ) -> None:
        model = unwrapped(runner)
        if not hasattr(model, 'predict_members'):
            raise TypeError(
                f'{type(self).__name__} evaluates the members of a KnowledgeDistiller; for a '
                f"{type(model).__name__} use mmseg's own: {self.stage}_cfg=dict(type="
                f"'{self.stage.capitalize()}Loop')"
            )
        if self.stage == 'val' and runner.cfg.get('model'):
            # Also where no command has done so: the first validation comes after hours.
            check_monitored(runner.cfg)
        given = copy.deepcopy(evaluator)
        super().__init__(runner, dataloader, evaluator, fp16)  # type: ignore[call-arg]
        self.model = model
        self.members = model.member_names
        self.evaluators = {model.student: of_member(self.evaluator, model.student)}
        for name in self.members[1:]:
            built = runner.build_evaluator(copy.deepcopy(given))
            built.dataset_meta = self.evaluator.dataset_meta
            self.evaluators[name] = of_member(built, name)
        # An average repeats its member: with it there would be less to agree on.
        self.compared = tuple(name for name in self.members if name not in model.averages)
        self.with_agreement = agreement and len(self.compared) > 1
        # Members whose predictions are kept, and these.
        self.lasting: tuple[str, ...] = ()
        self.known = KnownPredictions(limit=0)
        ignored = [metric.ignore_index for metric in self.evaluator.metrics
                   if hasattr(metric, 'ignore_index')]  # fmt: skip
        self.agreement = Evaluator(AgreementMetric(*ignored[:1]))

    def run(self) -> dict:
        """Evaluate; returns all metrics of all members."""
        runner = self.runner
        runner.call_hook(f'before_{self.stage}')
        runner.call_hook(f'before_{self.stage}_epoch')
        runner.model.eval()
        for buffer in self.model.buffers():
            # Plain BN has other statistics on each rank; those of rank 0 are saved.
            broadcast(buffer)
        self.known.begin({name: self.model.network(name) for name in self.lasting})
        for index, data_batch in enumerate(self.dataloader):
            self.run_iter(index, data_batch)
        metrics = self._metrics(len(self.dataloader.dataset))
        runner.call_hook(f'after_{self.stage}_epoch', metrics=metrics)
        runner.call_hook(f'after_{self.stage}')
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Predict one batch with every member; hooks see the student's predictions."""
        runner = self.runner
        runner.call_hook(f'before_{self.stage}_iter', batch_idx=idx, data_batch=data_batch)
        key = fingerprint(data_batch) if self.lasting else b''
        known = self.known.find(key)
        missing = tuple(name for name in self.members if name not in known)
        with autocast(enabled=self.fp16):
            predictions = self.model.predict_members(data_batch, missing)
        for name, outputs in predictions.items():
            noted = [len(metric.results) for metric in self._metrics_of(name)]
            self.evaluators[name].process(data_samples=outputs, data_batch=data_batch)
            if name in self.lasting:
                self.known.keep(name, key, self._known(name, outputs, noted))
        for name, prediction in known.items():
            for metric, results in zip(self._metrics_of(name), prediction.results, strict=True):
                metric.results.extend(results)
        self._compare(data_batch, predictions, known)
        runner.call_hook(
            f'after_{self.stage}_iter',
            batch_idx=idx,
            data_batch=data_batch,
            outputs=predictions[self.model.student],
        )

    def _metrics_of(self, name: str) -> list[BaseMetric]:
        return self.evaluators[name].metrics if name in self.lasting else []

    def _known(self, name: str, outputs: list, noted: list[int]) -> KnownPrediction:
        """What is kept of a prediction, by how much each metric had noted before it."""
        metrics = zip(self._metrics_of(name), noted, strict=True)
        results = [metric.results[before:] for metric, before in metrics]
        compared = self.with_agreement and name in self.compared
        label_maps = _label_maps(outputs) if compared else []
        classes = self.model.out_channels
        return KnownPrediction(results, [small_label_map(each, classes) for each in label_maps])

    def _compare(self, data_batch: dict, predictions: dict, known: dict) -> None:
        """Count where all members agree, in images that have labels."""
        if not self.with_agreement:
            return
        samples = predictions[self.model.student]
        maps = [known[name].label_maps if name in known else _label_maps(predictions[name])
                for name in self.compared]  # fmt: skip
        side_by_side = [
            {'label': sample.gt_sem_seg.data.squeeze(0), 'predictions': each}
            for sample, *each in zip(samples, *maps, strict=True)
            if 'gt_sem_seg' in sample
        ]
        self.agreement.process(side_by_side, data_batch)

    def _metrics(self, size: int) -> dict:
        metrics: dict = {}
        for name in self.members:
            # IoUMetric prints a table that doesn't say whose it is.
            self.runner.logger.info(f'Evaluating member: {name}')
            metrics.update(self.evaluators[name].evaluate(size))
        metrics.update(self._gaps(metrics))
        if self.with_agreement:
            agreement = self.agreement.evaluate(size)
            metrics.update({key.split('/')[-1]: value for key, value in agreement.items()})
        return metrics

    def _gaps(self, metrics: dict) -> dict[str, float]:
        """How far the student is behind each other member, by each mIoU that both have."""
        student, *others = self.compared
        gaps = {}
        for key, score in metrics.items():
            owner, _, own = key.partition('/')
            if owner != student or own.rpartition('/')[2] != 'mIoU':
                continue
            for name in others:
                if f'{name}/{own}' in metrics:
                    gap = f'gap/{own}' if len(others) == 1 else f'gap/{name}/{own}'
                    gaps[gap] = round(float(metrics[f'{name}/{own}'] - score), 2)
        return gaps


@LOOPS.register_module()
class MembersValLoop(_MembersLoop, ValLoop):
    """Validation of every member in one pass: ``val_cfg=dict(type='mmseg_adm.MembersValLoop')``.

    A frozen member predicts an image once; what its metrics noted of it, and the label map that the
    others are compared with, are kept on the host. A label map takes a byte a pixel: CamVid's 101
    images of 360x480 17 MiB, Cityscapes' 500 of 1024x2048 1000 MiB, over all processes. To know an
    image again its bytes are hashed, about 1 GB a second. A resumed run predicts it once more.

    Args:
        runner: The runner.
        dataloader: Loader or config.
        evaluator: An evaluator, or its config: a metric, or a list of them.
        fp16: Predict under autocast.
        agreement: Compare the members' predictions.
        cache_mib: How much of frozen members' predictions each process keeps, in MiB, also of what
            metrics note, which may be whole predictions (``DumpResults``). What goes beyond is
            predicted at every validation; with 0 all is.

    Raises:
        ValueError: If ``cache_mib`` is no integer >= 0.
    """

    stage = 'val'

    def __init__(self, *args, cache_mib: int = 1024, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.known = KnownPredictions(whole('val_cfg.cache_mib', cache_mib) * MIB)
        metrics = self.evaluator.metrics
        if cache_mib and all(isinstance(metric, BaseMetric) for metric in metrics):
            # Not the student, whose predictions hooks ask for.
            frozen = self.model.frozen
            self.lasting = tuple(name for name in self.members[1:] if name in frozen)


@LOOPS.register_module()
class MembersTestLoop(_MembersLoop, TestLoop):
    """The same for testing, which is done once: arguments as of :class:`MembersValLoop`, but for
    ``cache_mib``.
    """

    stage = 'test'


def _label_maps(samples: list) -> list[Tensor]:
    return [sample.pred_sem_seg.data.squeeze(0) for sample in samples]
