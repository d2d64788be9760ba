"""SKD: Structured Knowledge Distillation for Dense Prediction (arXiv 1903.04197), pair-wise."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..losses import node_pairs, pairwise_affinity
from ..step import DistillationStep
from .teacher_student import TeacherStudentMethod

MOST_NODES = 1024


@MODELS.register_module()
class SKD(TeacherStudentMethod):
    """Regions of the student's map are as similar to each other as the teacher's.

    ``weight * mean (a^s_ij - sg a^t_ij)^2`` over pairs of nodes, the maps max-pooled to
    ``grid`` nodes. The paper's pixel-wise term is :class:`KD`, listed beside; its holistic
    (adversarial) term is left out.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        at: ``'features'``, ``'logits'`` or a module path; the widths may differ.
        grid: Rows and columns of nodes.
        weight: Factor of the loss.
    """

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        at: str = 'features',
        grid: Sequence[int] = (2, 2),
        weight: float = 10.0,
    ) -> None:
        super().__init__(student, teacher, at, weight)
        self.grid = _checked(grid)

    def losses(self, step: DistillationStep, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        valid = step.valid(student)
        pairs = step.reduce_mean(node_pairs(valid, self.grid).sum())
        loss = pairwise_affinity(student, teacher, self.grid, valid, pairs)
        return {'loss_pairwise': self.weight * loss}


def _checked(grid: Sequence[int]) -> tuple[int, int]:
    sizes = tuple(grid) if isinstance(grid, (list, tuple)) else ()
    if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f'grid must be two whole numbers > 0, rows and columns, got {grid!r}')
    rows, columns = sizes
    if rows * columns > MOST_NODES:
        raise ValueError(
            f'grid={sizes} has {rows * columns} nodes, whose affinities would fill a matrix '
            f'of {rows * columns}^2 an image: take at most {MOST_NODES}'
        )
    return rows, columns
