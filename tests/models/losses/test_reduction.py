import ast
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mmseg_adm.models import losses
from mmseg_adm.models.losses import weighted_mean
from mmseg_adm.models.losses.reduction import (
    check_pair,
    check_positions,
    position_weight,
    resize,
)

PAIR_LOSSES = [
    check_pair,
    losses.channel_wise_divergence,
    losses.consensus_alignment,
    losses.cosine_distance,
    losses.distribution_distance,
    losses.divergence_repulsion,
    losses.feature_error,
    losses.inter_class_correlation,
    losses.intra_class_correlation,
    losses.pixel_kl,
]
POSITION_LOSSES = [check_positions, losses.attention_transfer, losses.pairwise_affinity]


def test_every_public_name_is_called_by_the_test_of_its_file():
    for name in losses.__all__:
        module = getattr(losses, name).__module__.rpartition('.')[2]
        tree = ast.parse(Path(__file__).with_name(f'test_{module}.py').read_text('utf-8'))
        called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert name in called, f'test_{module}.py does not test {name}'


@pytest.mark.parametrize('path', sorted(Path(losses.__file__).parent.glob('*.py')), ids=str)
def test_losses_import_torch_and_nothing_else(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f'{path.name} imports from outside of its folder'
            imported |= {node.module.partition('.')[0]} if node.level == 0 else set()
    # Of the standard library: what annotations need, and a cache.
    assert imported <= {'__future__', 'collections', 'functools', 'torch', 'typing'}


@pytest.mark.parametrize('loss', PAIR_LOSSES)
def test_unequal_maps_are_refused(loss):
    for student, teacher in (
        ((2, 3, 4, 5), (2, 6, 4, 5)),
        ((2, 3, 4, 5), (2, 3, 8, 10)),
        ((2, 3, 4, 5), (1, 3, 4, 5)),
        ((2, 3, 4), (2, 3, 4)),
    ):
        with pytest.raises(ValueError, match='resize or project one of them first') as error:
            loss(torch.zeros(student), torch.zeros(teacher))
        assert f'got {student} and {teacher}' in str(error.value)


@pytest.mark.parametrize('loss', POSITION_LOSSES)
def test_other_positions_are_refused(loss):
    for student, teacher in (
        ((2, 3, 4, 5), (2, 3, 8, 10)),
        ((2, 3, 4, 5), (2, 3, 4, 6)),
        ((2, 3, 4, 5), (1, 3, 4, 5)),
        ((2, 3, 4), (2, 3, 4)),
        ((2, 3, 4, 5), (2, 4, 5)),
    ):
        with pytest.raises(ValueError, match='equal B, h and w') as error:
            loss(torch.zeros(student), torch.zeros(teacher))
        assert f'got {student} and {teacher}: resize one' in str(error.value)


def test_positions_let_the_widths_differ():
    check_positions(torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 4, 5))


def masked_weight(maps, other, valid):
    return position_weight(maps, valid)


@pytest.mark.parametrize('loss', [masked_weight, *PAIR_LOSSES[1:], *POSITION_LOSSES[1:]])
def test_other_masks_are_refused(loss):
    maps = torch.zeros(2, 3, 4, 5)
    for valid in (
        torch.ones(2, 4, 5),
        torch.ones(2, 4, 5, dtype=torch.uint8),
        torch.ones(2, 1, 4, 5, dtype=torch.bool),
        torch.ones(1, 4, 5, dtype=torch.bool),
        torch.ones(2, 8, 10, dtype=torch.bool),
    ):
        with pytest.raises(ValueError, match='valid must be a boolean mask of shape') as error:
            loss(maps, maps, valid=valid)
        expected = f'(2, 4, 5), got {valid.dtype} of shape {tuple(valid.shape)}'
        assert expected in str(error.value)


@pytest.mark.parametrize('loss', [losses.channel_wise_divergence, losses.pixel_kl])
def test_weights_of_another_shape_are_refused(loss):
    maps = torch.zeros(2, 3, 4, 5)
    with pytest.raises(ValueError, match=r'weight must be of shape \(2, 4, 5\), got \(4, 5\)'):
        loss(maps, maps, weight=torch.ones(4, 5))


def test_position_weight_by_hand():
    maps, valid = torch.zeros(1, 2, 1, 3), torch.tensor([[[True, False, True]]])
    weight = torch.tensor([[[0.5, 2.0, 0.0]]], dtype=torch.float16, requires_grad=True)
    assert_close(position_weight(maps), torch.ones(1, 1, 3))
    assert_close(position_weight(maps, valid), torch.tensor([[[1.0, 0.0, 1.0]]]))
    assert_close(position_weight(maps, None, weight), torch.tensor([[[0.5, 2.0, 0.0]]]))
    assert_close(position_weight(maps, valid, weight), torch.tensor([[[0.5, 0.0, 0.0]]]))
    assert not position_weight(maps, valid, weight).requires_grad


def test_weighted_mean_by_hand():
    # (1*2 + 3*4 + 0*nan) / (1 + 3 + 0) = 14/4, and 14/7 with a divisor of 7.
    values, weight = torch.tensor([2.0, 4.0, float('nan')]), torch.tensor([1.0, 3.0, 0.0])
    assert_close(weighted_mean(values, weight), torch.tensor(3.5))
    assert_close(weighted_mean(values, weight, 7), torch.tensor(2.0))


def test_weighted_mean_refuses_weights_that_would_be_broadcast():
    with pytest.raises(ValueError, match='values and weight must be of equal shape'):
        weighted_mean(torch.rand(2, 3, 4), torch.rand(1, 3, 4))


def test_resize_by_hand():
    # Twice as wide: the new centers lie at -1/4 (clamped to 0), 1/4, 3/4 and 5/4 (clamped).
    resized = resize(torch.tensor([[[[0.0, 8.0]]]]), (1, 4))
    assert_close(resized, torch.tensor([[[[0.0, 2.0, 6.0, 8.0]]]]))
