"""The distiller: members that train together, and the methods between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from mmengine.model import BaseModel, ModuleDict
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn
from torch.nn import functional

from mmseg_adm.checkpoint import check_state_dict, safe_loading
from mmseg_adm.config.members import resolve_members
from mmseg_adm.registry import MODELS

from .members import FrozenMember
from .methods.build import EMA_TEACHER, FROZEN, build_method
from .networks import build_networks
from .preprocessor import MembersDataPreprocessor
from .shared import SharedModule
from .step import DistillationStep
from .taps import FeatureTap, Recorder, decode_head_of, find_classifier, recording

Result = TypeVar('Result')


@MODELS.register_module()
class KnowledgeDistiller(BaseModel):
    """Trains two or more segmentors together; predicts as one of them, the student.

    Args:
        members: Plain segmentor configs by name, or names of configs as
            :func:`~.members.resolve_members` takes them. Beside mmseg's keys a member may have
            ``frozen`` (bool), ``checkpoint`` (a path, an address or a model-zoo name, loaded
            strictly), ``dtype`` (of a frozen one) and its own ``data_preprocessor``; or be a
            ``mmseg_adm.TeacherBridge`` or a ``mmseg_adm.EMATeacher``.
        methods: Method configs by name. The names prefix the logged losses and are what
            ``--cfg-options`` and the schedule refer to; ``None`` drops an inherited one, here
            and in ``members``.
        student: The member that is deployed: what ``predict`` and ``tensor`` mode answer for.
        data_preprocessor: Shared by the members that have none of their own.
        init_cfg: As in MMEngine.

    Raises:
        ValueError: If names, options, class counts or checkpoints don't fit together.
    """

    data_preprocessor: nn.Module

    def __init__(
        self,
        members: Mapping[str, dict | str],
        methods: Mapping[str, dict] | None = None,
        student: str = 'student',
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        shared = data_preprocessor if isinstance(data_preprocessor, dict) else None
        members = resolve_members(dict(members=members, data_preprocessor=shared))
        if isinstance(data_preprocessor, dict):
            data_preprocessor = MMSEG_MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor, init_cfg)
        methods = {name: config for name, config in (methods or {}).items() if config is not None}
        _check_names(members, methods)
        networks = build_networks(members)
        if networks.preprocessors:
            everyone = len(networks.preprocessors) == len(members)
            self.data_preprocessor = MembersDataPreprocessor(
                None if everyone else self.data_preprocessor, networks.preprocessors
            )
        self.members = ModuleDict(networks.trained)
        self.frozen: dict[str, FrozenMember] = networks.frozen
        self.averages = ModuleDict(networks.averages)
        # Files that members in training start from.
        self.checkpoints = networks.checkpoints
        if student not in members:
            raise ValueError(f"student='{student}' is not a member: {', '.join(members)}")
        if student in self.averages:
            raise ValueError(
                f"student='{student}' is an EMA teacher: name the member that it follows, and "
                'export the average by its name'
            )
        if not self.members:
            raise ValueError('every member is frozen: there is nothing to train')
        self.student = student
        # Whether MemberPauseHook sees to it that paused members are not updated.
        self.pauses_members = False
        self._check_classes()

        self.methods = ModuleDict()
        by_name = {name: self.network(name) for name in self.member_names}
        resting = dict.fromkeys(self.frozen, FROZEN) | dict.fromkeys(self.averages, EMA_TEACHER)
        for name, config in methods.items():
            self.methods[name] = build_method(name, config, by_name, resting)
        self._shared = [each for each in self.members.modules() if isinstance(each, SharedModule)]
        self._trained_taps: dict[str, dict[str, FeatureTap]] = {}
        self._set_taps()

    @property
    def member_names(self) -> tuple[str, ...]:
        """All members, the student first."""
        everyone = (*self.members, *self.frozen, *self.averages)
        others = [name for name in everyone if name != self.student]
        return (self.student, *others)

    def network(self, name: str) -> Any:
        """The plain segmentor behind a member's name."""
        if name in self.frozen:
            return self.frozen[name].network
        return self.averages[name].module if name in self.averages else self.members[name]

    def paused_members(self) -> dict[str, Tensor]:
        """Whether the batch that ran last must not update a member; only of those that may pause.

        Scalars of booleans, on the device: who reads them on the host waits for it.
        """
        paused: dict[str, Tensor] = {}
        for method in self.methods.values():
            if method.strength > 0:
                for name, flag in method.paused.items():
                    paused[name] = paused[name] | flag if name in paused else flag
        return paused

    def __getattr__(self, name: str) -> Any:
        """Say where the student is to what reaches for a part of a plain segmentor's.

        Raises:
            AttributeError: Always, as there is no such attribute.
        """
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            student = self.__dict__.get('student')
            # Not before it is built, nor in a view of a part of it.
            members = self._modules.get('members', {})
            network = dict(members.items()).get(student)
            if network is None or not hasattr(network, name):
                raise
            raise AttributeError(
                f"{error}: it holds several networks. The student's is "
                f"runner.model.network('{student}').{name}"
            ) from None

    @property
    def out_channels(self) -> int:
        """Of the student; mmseg's test-time augmentation asks for it."""
        return self.network(self.student).out_channels

    def init_weights(self) -> None:
        """As in MMEngine; files that it starts from are read weights-only."""
        with safe_loading():
            super().init_weights()
        for average in self.averages.values():
            # It was copied from what had not been initialized.
            average.module.load_state_dict(self.members[average.followed].state_dict())

    def forward(
        self,
        inputs: Tensor | dict,
        data_samples: Any = None,
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list | Tensor:
        """As a segmentor's: ``loss`` trains all members, the other modes run the student."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.network(self.student)(_view(inputs, self.student), mode='tensor')
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got '{mode}'")

    def loss(self, inputs: Tensor | dict, data_samples: list | dict) -> dict[str, Tensor]:
        """Losses of the trained members, then those of the active methods.

        Args:
            inputs: (B, 3, H, W), or by member as :class:`MembersDataPreprocessor` gives it.
            data_samples: The labels, likewise.
        """
        active = {name: method for name, method in self.methods.items() if method.strength > 0}
        with recording(self._taps()):
            losses = {}
            # First, because a bridge goes on from what its frozen teacher has computed.
            self._follow()
            for name, member in [*self.frozen.items(), *self.averages.items()]:
                if any(name in method.reads() for method in active.values()):
                    member(_view(inputs, name))
            for name, network in self.members.items():
                member_losses = network(_view(inputs, name), _view(data_samples, name), mode='loss')
                losses.update({f'{name}.{key}': value for key, value in member_losses.items()})
            if active:
                images = _view(inputs, self.student)
                step = self._step(_view(data_samples, self.student), images.shape[-2:])
                for name, method in active.items():
                    step.check_gradient(method.reads(), method.updates())
                    losses.update(_named(name, method.strength, method(step)))
        if self.training and not self.pauses_members:
            _refuse_pauses(active)
        self._keep_idle_parameters(losses, active)
        return losses

    def _follow(self) -> None:
        """Let the averages take in what their members are now, once a batch."""
        if self.training:
            for average in self.averages.values():
                average.follow(self.members[average.followed])

    def predict(self, inputs: Tensor | dict, data_samples: list | dict | None = None) -> list:
        """Predictions of the student, as its own ``predict`` gives them."""
        return self._predict(self.student, inputs, data_samples)

    def _predict(self, name: str, inputs: Any, data_samples: Any) -> list:
        samples = _view(data_samples, name)
        return self.network(name)(_view(inputs, name), samples, mode='predict')

    @torch.no_grad()
    def predict_members(self, data: dict, members: tuple[str, ...]) -> dict[str, list]:
        """Predictions of several members on one batch, preprocessed once."""
        data = self.data_preprocessor(data, False)
        predictions = {}
        for name in members:
            # predict() writes into the samples that it is given.
            samples = [sample.clone() for sample in _view(data['data_samples'], name)]
            predictions[name] = self._predict(name, data['inputs'], samples)
        return predictions

    @torch.no_grad()
    def observe(self, data: dict, read: Callable[[DistillationStep], Result]) -> Result:
        """Run every member on ``data`` as in evaluation and return ``read(step)``.

        Args:
            data: A batch as the data loader yields it, labels included.
            read: A function of the :class:`DistillationStep`; the maps are released after it.
        """
        was_training = self.training
        self.eval()
        try:
            data = self.data_preprocessor(data, False)
            with recording(self._taps()):
                for name in self.member_names:
                    self.network(name)(_view(data['inputs'], name), mode='tensor')
                images = _view(data['inputs'], self.student)
                samples = _view(data['data_samples'], self.student)
                return read(self._step(samples, images.shape[-2:]))
        finally:
            self.train(was_training)

    def _apply(self, fn, recurse: bool = True):
        """Move the frozen members too, which are outside the module tree."""
        super()._apply(fn, recurse)
        for member in self.frozen.values():
            member.network._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        """Refuse weights that don't fit exactly: MMEngine resumes non-strictly."""
        own = {
            key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)
        }
        try:
            check_state_dict(self, own, 'the checkpoint')
        except ValueError as error:
            raise ValueError(
                f'{error}\nA run is resumed with the members and methods that it had. To start '
                'another one from a trained student, set model.members.<name>.checkpoint to its '
                'exported .pth'
            ) from None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _check_classes(self) -> None:
        counts = {name: find_classifier(self.network(name)).out_channels
                  for name in self.member_names}  # fmt: skip
        if len(set(counts.values())) > 1:
            raise ValueError(
                f'the members predict different numbers of classes ({counts}): set '
                'decode_head.num_classes alike, and train on the same labels'
            )

    def _set_taps(self) -> None:
        """Tap each member once per point, however many methods read it."""
        for name in self.member_names:
            points = {'logits'}
            for method in self.methods.values():
                points.update(method.reads().get(name, ()))
            taps = {point: FeatureTap(self.network(name), point) for point in sorted(points)}
            if name in self.frozen:
                self.frozen[name].taps = taps
            else:
                self._trained_taps[name] = taps

    def _taps_by_member(self) -> dict[str, dict[str, FeatureTap]]:
        return self._trained_taps | {name: member.taps for name, member in self.frozen.items()}

    def _taps(self) -> list[Recorder]:
        members = self._taps_by_member().values()
        return [*(tap for taps in members for tap in taps.values()), *self._shared]

    def _step(self, data_samples: list, size: Sequence[int]) -> DistillationStep:
        head: Any = decode_head_of(self.network(self.student))
        # In evaluation mmseg's preprocessor pads images at the right and the bottom, and no labels.
        labels = torch.stack([_padded(sample.gt_sem_seg.data, size, head.ignore_index)
                              for sample in data_samples]).squeeze(1).long()  # fmt: skip
        return DistillationStep(self._taps_by_member(), labels, head.ignore_index)

    def _keep_idle_parameters(self, losses: dict, active: Mapping[str, nn.Module]) -> None:
        """Keep switched-off parameters in the graph by nothing: DDP waits for every gradient."""
        idle = [parameter for name, method in self.methods.items() if name not in active
                for parameter in method.parameters()]  # fmt: skip
        if idle:
            term = next(key for key, value in losses.items()
                        if 'loss' in key and isinstance(value, Tensor))  # fmt: skip
            losses[term] = losses[term] + 0 * sum(parameter.sum() for parameter in idle)


def _view(by_member: Any, name: str) -> Any:
    """What ``name`` sees: its own entry, else the shared one."""
    if isinstance(by_member, dict):
        return by_member[name] if name in by_member else by_member[None]
    return by_member


def _padded(labels: Tensor, size: Sequence[int], value: int) -> Tensor:
    """Labels (1, h, w), at the right and the bottom filled up to a size."""
    height, width = labels.shape[-2:]
    return functional.pad(labels, (0, size[1] - width, 0, size[0] - height), value=value)


def _refuse_pauses(methods: Mapping[str, Any]) -> None:
    """Refuse methods that may pause members where no hook keeps the optimizers from them."""
    for name, method in methods.items():
        if members := method.may_pause():
            raise RuntimeError(
                f"method '{name}' may pause {', '.join(members)}, and nobody would keep the "
                'optimizer from it: add default_hooks=dict(member_pause=dict('
                "type='mmseg_adm.MemberPauseHook'))"
            )


def _named(method: str, strength: float, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        f'{method}.{term}': value * strength if 'loss' in term else value
        for term, value in terms.items()
    }


def _check_names(members: Mapping, methods: Mapping) -> None:
    if not members:
        raise ValueError('members is empty: name at least a student')
    for name in (*members, *methods):
        if 'loss' in name or '.' in name:
            raise ValueError(
                f"'{name}' cannot name a member or a method: MMEngine sums every logged value "
                'whose name contains "loss", and a dot separates names from keys'
            )
        if hasattr(nn.ModuleDict, name):
            raise ValueError(f"'{name}' cannot name a member or a method: torch uses the name")
    if both := set(members) & set(methods):
        raise ValueError(f'{", ".join(sorted(both))} name both a member and a method')
