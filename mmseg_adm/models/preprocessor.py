"""One batch, seen by each member as it was trained to see it."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.model import BaseDataPreprocessor
from torch import nn


class MembersDataPreprocessor(BaseDataPreprocessor):
    """Runs the shared preprocessor once, and a member's own one on the same raw data.

    Normalizing an already normalized batch again would be wrong in the padding.

    Args:
        shared: For all members without one of their own; ``None`` if there are none.
        own: By member.
    """

    def __init__(self, shared: nn.Module | None, own: Mapping[str, BaseDataPreprocessor]) -> None:
        super().__init__()
        self.shared = shared
        for name, preprocessor in own.items():
            self.add_module(f'own_{name}', preprocessor)
        self._own = tuple(own)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess ``data``.

        Returns:
            ``inputs`` and ``data_samples`` as dicts by member, ``None`` standing for the
            members that share a preprocessor.

        Raises:
            ValueError: If preprocessors pad to different sizes.
        """
        results: dict[str | None, dict] = {}
        ran: dict[nn.Module, dict] = {}
        # Each one casts the data into new samples before it pads them. An average and a bridge see
        # what the member sees that they come from.
        for name in self._own:
            preprocessor = getattr(self, f'own_{name}')
            if preprocessor not in ran:
                ran[preprocessor] = preprocessor(data, training)
            results[name] = ran[preprocessor]
        if self.shared is not None:
            results[None] = self.shared(data, training)
        sizes = {name: tuple(result['inputs'].shape[-2:]) for name, result in results.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f'the preprocessors of the members pad to different sizes ({sizes}): give them '
                'the same size, size_divisor and test_cfg'
            )
        return {
            key: {name: result[key] for name, result in results.items()}
            for key in ('inputs', 'data_samples')
        }
