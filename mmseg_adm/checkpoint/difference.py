"""Where weights don't fit a network, told shortly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

SHOWN_KEYS = 5
CLASSIFIER = re.compile(r'decode_head\.(\d+\.)?conv_seg\.weight$')


@dataclass(frozen=True)
class Difference:
    """What keeps weights from fitting; falsy if nothing does.

    Args:
        missing: Names that the network has and the weights lack.
        unexpected: Names that the weights have and the network lacks.
        shapes: Both shapes of what has another one, by name.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def problems(self, shown: int = SHOWN_KEYS) -> list[str]:
        """A few short texts, each with up to ``shown`` names."""
        # Other classes explain the shapes.
        classes = {
            f'{found[0]} classes in the file, {expected[0]} in the config': None
            for key, (expected, found) in self.shapes.items()
            if CLASSIFIER.search(key) and expected[0] != found[0]
        }
        shapes = [
            f'{key}: expected {expected}, found {found}'
            for key, (expected, found) in self.shapes.items()
        ]
        titled: dict[str, Sequence[str]] = {
            'missing': self.missing,
            'unexpected': self.unexpected,
            'of another shape': shapes,
        }
        return [
            *classes,
            *(
                f'{len(keys)} {title}: {_some(keys, shown)}'
                for title, keys in titled.items()
                if keys
            ),
        ]


def difference(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Difference:
    """Compare ``weights`` with the state dict of a network."""
    return Difference(
        # Checkpoints older than PyTorch 0.4.1 lack this counter; PyTorch fills it in.
        tuple(key for key in expected if key not in weights and 'num_batches_tracked' not in key),
        tuple(key for key in weights if key not in expected),
        {
            key: (tuple(expected[key].shape), tuple(weights[key].shape))
            for key in expected
            if key in weights and expected[key].shape != weights[key].shape
        },
    )


def check_state_dict(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Raise ``ValueError`` with a short difference unless ``weights`` fit ``module`` exactly."""
    refuse(difference(module.state_dict(), weights), module, source)


def refuse(found: Difference, module: nn.Module, source: str, advice: str = '') -> None:
    """Raise ``ValueError`` if there is a difference, with ``advice`` on a line of its own."""
    if found:
        lines = [f'{source} does not fit {type(module).__name__}:', *indented(found.problems())]
        raise ValueError('\n'.join([*lines, advice] if advice else lines))


def indented(lines: list[str]) -> list[str]:
    """For a list below a sentence."""
    return [f'  {line}' for line in lines]


def _some(keys: Sequence[str], shown: int) -> str:
    more = f', and {len(keys) - shown} more' if len(keys) > shown else ''
    return ', '.join(keys[:shown]) + more
