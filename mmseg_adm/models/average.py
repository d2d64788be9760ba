"""An EMA teacher: the moving average of a member in training, for others to learn from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mmseg_adm.config.kinds import averaged_member

OPTIONS = ('type', 'of', 'momentum')


class EMATeacher(ExponentialMovingAverage):
    """A member whose weights follow those of another: ``a <- (1 - momentum) a + momentum w``.

    While the learning rate is high a network in training is far worse than the mean of its last
    steps (Tarvainen and Valpola, arXiv 1703.01780), and what it teaches changes with every
    step. Statistics of normalization layers are averaged likewise. It predicts as in evaluation,
    without gradient; its weights are saved, so that a run is resumed with them.

    Args:
        followed: The name of the member that it follows.
        network: That member.
        momentum: The share of the present weights in each batch, in (0, 1); with
            ``accumulative_counts`` so many batches make a step, as with MMEngine's ``EMAHook``.
    """

    def __init__(self, followed: str, network: nn.Module, momentum: float) -> None:
        super().__init__(network, momentum, update_buffers=True)
        self.followed = followed
        self.module.eval()
        # Of the base class, for its own way to follow: copied, it would hold all weights twice.
        self.avg_parameters: dict[str, Tensor] = {}
        self._began = False

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Take in the member's present weights, at first as they are.

        All at once, and without a wait for the device but in the first two batches of a process:
        the base class asks its counter twice, and launches a kernel a tensor.
        """
        own, present = (
            [each for each in (*module.parameters(), *module.buffers()) if each.is_floating_point()]
            for module in (self.module, network)
        )
        # A run that is resumed has begun already; where the first batch is undone, none has.
        self._began = self._began or bool(self.steps > 0)
        if self._began:
            get_ema_multi_avg_fn(1 - self.momentum)(own, present, None)
        else:
            self.module.load_state_dict(network.state_dict())
        self.steps += 1

    def train(self, mode: bool = True) -> EMATeacher:
        """Stay as in evaluation."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> None:
        """Run backbone and decode head, for the taps: no auxiliary head, no upsampling."""
        self.module(inputs, mode='tensor')


def build_average(name: str, config: Mapping, trained: Mapping[str, nn.Module]) -> EMATeacher:
    """Build the average of a trained member.

    Args:
        name: The average's name, for messages.
        config: ``of``, the member that it follows, by default ``'teacher'``; ``momentum``,
            by default 0.02.
        trained: The members in training.

    Raises:
        ValueError: If an option is wrong or the member is not one in training.
    """
    for option in config:
        if option not in OPTIONS:
            raise ValueError(
                f"member '{name}' (EMATeacher): no option '{option}'. Its options: "
                f'{", ".join(OPTIONS[1:])}'
            )
    followed, momentum = averaged_member(config), config.get('momentum', 0.02)
    if followed not in trained:
        raise ValueError(
            f"member '{name}' (EMATeacher) follows '{followed}', which is not a member in "
            f'training: {", ".join(trained)}'
        )
    if not isinstance(momentum, float) or not 0 < momentum < 1:
        raise ValueError(
            f"member '{name}' (EMATeacher): momentum must be in (0, 1), got {momentum!r}"
        )
    if hasattr(trained[followed], 'bridge_of'):
        raise ValueError(
            f"member '{name}' (EMATeacher): '{followed}' is a bridge, which is not averaged"
        )
    return EMATeacher(followed, trained[followed], momentum)
