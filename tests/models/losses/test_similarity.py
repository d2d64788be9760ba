import pytest
import reference
import torch
from reference import value_and_gradients
from torch.testing import assert_close

from mmseg_adm.models.losses import (
    center_over_classes,
    consensus_alignment,
    consensus_weight,
    cosine_distance,
    divergence_repulsion,
    divergence_weight,
    shuffled,
    similarity_map,
)

CONTRASTS = ['center', 'standardize', 'rank']
LOSSES = [consensus_alignment, divergence_repulsion, cosine_distance]


def test_similarity_map_matches_loop_reference():
    student, teacher, upstream = (
        torch.randn(2, 3, 3, 4),
        torch.randn(2, 3, 3, 4),
        torch.randn(2, 3, 4),
    )
    value, gradients = value_and_gradients(
        lambda s, t: (similarity_map(s, t) * upstream).sum(), student, teacher
    )
    expected, expected_gradients = value_and_gradients(
        lambda s, t: (reference.similarity_map(s, t) * upstream).sum(), student, teacher
    )
    assert_close(
        similarity_map(student, teacher), reference.similarity_map(student, teacher).float()
    )
    assert_close(value, expected.float())
    assert_close(gradients, expected_gradients)
    assert all(gradient.abs().amax() > 0 for gradient in gradients)


def test_similarity_map_by_hand():
    # <(1, 0), (3, 4)> / (1 * 5) = 0.6 and <(0, 2), (5, -12)> / (2 * 13) = -12/13.
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])
    teacher = torch.tensor([[[[3.0, 5.0]], [[4.0, -12.0]]]])
    assert_close(similarity_map(student, teacher), torch.tensor([[[0.6, -12 / 13]]]))


def test_similarity_map_of_a_zero_vector_is_zero():
    student, teacher = torch.randn(2, 1, 3, 1, 2)
    student[..., 0] = 0
    similarity = similarity_map(student, teacher)
    assert similarity[0, 0, 0] == 0
    assert similarity[0, 0, 1] != 0


def test_similarity_map_ignores_length():
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    scaled = similarity_map(1e3 * student, 1e-3 * teacher)
    assert_close(scaled, similarity_map(student, teacher))


@pytest.mark.parametrize('teacher_shape', [(2, 6, 3, 4), (2, 3, 6, 8), (1, 3, 3, 4)])
def test_similarity_map_refuses_unequal_maps(teacher_shape):
    with pytest.raises(ValueError, match='resize or project one of them first'):
        similarity_map(torch.zeros(2, 3, 3, 4), torch.zeros(teacher_shape))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_similarity_map_of_half_precision_is_computed_in_float32(dtype):
    student, teacher = torch.randn(2, 2, 3, 3, 4).to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        similarity = similarity_map(student, teacher)
    assert_close(similarity, similarity_map(student.float(), teacher.float()))


def test_weights_by_hand():
    # c = max(S, 0) and d = 1 - c.
    similarity = torch.tensor([[[-1.0, -0.25, 0.0, 0.25, 1.0]]], requires_grad=True)
    consensus, divergence = consensus_weight(similarity), divergence_weight(similarity)
    assert_close(consensus, torch.tensor([[[0.0, 0.0, 0.0, 0.25, 1.0]]]))
    assert_close(divergence, torch.tensor([[[1.0, 1.0, 1.0, 0.75, 0.0]]]))
    assert not consensus.requires_grad
    assert not divergence.requires_grad


@pytest.mark.parametrize('masked', [False, True], ids=['all', 'masked'])
@pytest.mark.parametrize('contrast', [None, *CONTRASTS])
def test_weights_match_loop_reference(contrast, masked):
    # Rounded, so that some are equal.
    similarity = (4 * torch.rand(3, 4, 5)).round() / 8 + 0.4
    valid = torch.rand(3, 4, 5) > 0.4 if masked else None
    weight = consensus_weight(similarity, contrast, valid)
    assert_close(weight, reference.consensus_weight(similarity, contrast, valid).float())
    assert_close(divergence_weight(similarity, contrast, valid), 1 - weight)


@pytest.mark.parametrize(
    ('contrast', 'expected'),
    [
        # The mean is 0.9, the deviation 0.01 * sqrt(2).
        ('center', [0.48, 0.49, 0.5, 0.51, 0.52]),
        ('standardize', [0.5 - 2**-1.5, 0.5 - 2**-2.5, 0.5, 0.5 + 2**-2.5, 0.5 + 2**-1.5]),
        ('rank', [0.1, 0.3, 0.5, 0.7, 0.9]),
    ],
)
def test_contrasts_by_hand(contrast, expected):
    similarity = torch.tensor([0.88, 0.89, 0.9, 0.91, 0.92]).reshape(1, 1, 5)
    weight = consensus_weight(similarity.requires_grad_(), contrast)
    assert_close(weight, torch.tensor(expected).reshape(1, 1, 5))
    assert not weight.requires_grad


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_a_constant_similarity_prefers_nothing(contrast):
    weight = consensus_weight(torch.full((2, 3, 4), 0.7), contrast)
    assert_close(weight, torch.full((2, 3, 4), 0.5), rtol=0, atol=1e-3)


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_a_contrast_compares_within_an_image(contrast):
    similarity = torch.rand(2, 3, 4)
    lifted = similarity + torch.tensor([0.3, -0.2]).reshape(2, 1, 1)
    assert_close(consensus_weight(lifted, contrast), consensus_weight(similarity, contrast))


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_a_contrast_without_valid_positions_is_finite(contrast):
    nowhere = torch.zeros(2, 3, 4, dtype=torch.bool)
    weight = consensus_weight(torch.randn(2, 3, 4), contrast, nowhere)
    assert ((weight >= 0) & (weight <= 1)).all()


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_contrasts_of_half_precision_are_computed_in_float32(contrast):
    similarity = torch.rand(2, 32, 32).half()
    expected = consensus_weight(similarity.float(), contrast)
    assert_close(consensus_weight(similarity, contrast), expected)


def test_contrasts_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match=r"contrast must be one of .* got 'square'"):
        consensus_weight(torch.rand(2, 3, 4), 'square')
    with pytest.raises(ValueError, match=r'boolean mask of shape \(2, 3, 4\)'):
        consensus_weight(torch.rand(2, 3, 4), 'rank', torch.ones(2, 3, 4))


@pytest.mark.parametrize('masked', [False, True], ids=['all', 'masked'])
def test_shuffled_keeps_the_values_of_each_image_and_moves_them(masked):
    weight = torch.arange(96.0).reshape(2, 6, 8)
    valid = torch.rand(2, 6, 8) > 0.4 if masked else torch.ones(2, 6, 8, dtype=torch.bool)
    moved = shuffled(weight, valid)
    for own, other, counts in zip(weight, moved, valid, strict=True):
        assert_close(other[counts].sort().values, own[counts])
        assert_close(other[~counts].sort().values, own[~counts])
        assert (other != own)[counts].float().mean() > 0.8
    assert (moved[0] + 48 != moved[1]).any()


@pytest.mark.parametrize(
    ('loss', 'teacher', 'expected'),
    [
        # S = (0.6, 0.8), c = (0.6, 0.8): (0.6 * 0.4 + 0.8 * 0.2) / 1.4
        (consensus_alignment, [[3.0, 4.0], [4.0, 3.0]], 2 / 7),
        # d = (0.4, 0.2): (0.4 * 0.6 + 0.2 * 0.8) / 0.6
        (divergence_repulsion, [[3.0, 4.0], [4.0, 3.0]], 2 / 3),
        # (0.4 + 0.2) / 2
        (cosine_distance, [[3.0, 4.0], [4.0, 3.0]], 0.3),
        # S = (0.6, -0.8), c = (0.6, 0): 0.6 * 0.4 / 0.6
        (consensus_alignment, [[3.0, -4.0], [4.0, 3.0]], 0.4),
        # d = (0.4, 1): (0.4 * 0.6 - 1 * 0.8) / 1.4
        (divergence_repulsion, [[3.0, -4.0], [4.0, 3.0]], -0.4),
        # (0.4 + 1.8) / 2
        (cosine_distance, [[3.0, -4.0], [4.0, 3.0]], 1.1),
    ],
)
def test_losses_by_hand(loss, teacher, expected):
    # The student is (1, 0) at both positions; the columns of `teacher` have length 5.
    student = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])
    value = loss(student, torch.tensor(teacher).reshape(1, 2, 1, 2))
    assert_close(value, torch.tensor(expected))


def test_repulsion_of_equal_maps_is_zero():
    axes = torch.eye(3).reshape(1, 3, 1, 3)
    value, (_, gradient) = value_and_gradients(divergence_repulsion, axes, 5 * axes)
    assert divergence_weight(similarity_map(axes, 5 * axes)).eq(0).all()
    assert value == 0
    assert gradient.eq(0).all()


def test_repulsion_tends_to_one_with_vanishing_gradient_as_the_maps_meet():
    student = torch.randn(2, 16, 8, 8)
    noise = torch.randn(2, 16, 8, 8)
    gradients = []
    for distance in (1e-1, 1e-2):
        teacher = student + distance * noise
        value, (_, gradient) = value_and_gradients(divergence_repulsion, student, teacher)
        gradients.append(gradient.norm())
    assert_close(value, torch.tensor(1.0), rtol=0, atol=1e-3)
    assert gradients[1] < 0.2 * gradients[0]


def test_a_dead_location_does_not_outweigh_the_others():
    student = torch.randn(1, 3, 2, 2)
    student[..., 0, 0] = 0
    _, (gradient, _) = value_and_gradients(cosine_distance, student, torch.randn(1, 3, 2, 2))
    assert gradient.isfinite().all()
    assert gradient.norm() < 1e4


def test_divergence_weight_is_not_negative():
    maps = torch.randn(2, 16, 8, 8)
    assert divergence_weight(similarity_map(maps, maps)).ge(0).all()


def test_consensus_alignment_pulls_nothing_where_all_is_opposed():
    maps = torch.randn(2, 3, 3, 4)
    value, (gradient, _) = value_and_gradients(consensus_alignment, maps, -maps)
    assert value == 0
    assert gradient.eq(0).all()
    assert_close(cosine_distance(maps, -maps), torch.tensor(2.0))


def test_a_step_along_the_gradient_does_what_the_name_says():
    student, teacher = torch.randn(2, 2, 8, 3, 4)
    before = similarity_map(student, teacher)
    _, (pull, _) = value_and_gradients(consensus_alignment, student, teacher)
    _, (_, push) = value_and_gradients(divergence_repulsion, student, teacher)
    agreed = before > 0
    assert (similarity_map(student - pull, teacher) > before)[agreed].all()
    assert pull.abs().amax(dim=1)[~agreed].eq(0).all()
    assert (similarity_map(student, teacher - push) < before).all()


def test_centering_by_hand():
    # The mean of (1, 2, 6) is 3.
    logits = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    expected = torch.tensor([-2.0, -1.0, 3.0]).reshape(1, 3, 1, 1)
    assert_close(center_over_classes(logits), expected)


def test_centering_removes_the_constant_that_softmax_ignores():
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    shifted = student + torch.randn(2, 1, 3, 4)
    expected = similarity_map(center_over_classes(student), center_over_classes(teacher))
    value = similarity_map(center_over_classes(shifted), center_over_classes(teacher))
    assert_close(value, expected)
    assert not torch.allclose(similarity_map(shifted, teacher), similarity_map(student, teacher))


def test_centering_of_large_half_precision_is_finite():
    # The sum over classes, 1.8e5, is beyond float16.
    logits = torch.full((1, 3, 1, 1), 6e4, dtype=torch.float16)
    assert_close(center_over_classes(logits), torch.zeros(1, 3, 1, 1))


def test_centering_passes_the_centred_gradient():
    logits, upstream = torch.randn(2, 3, 3, 4), torch.randn(2, 3, 3, 4)
    _, (gradient,) = value_and_gradients(
        lambda z: (center_over_classes(z) * upstream).sum(), logits
    )
    assert_close(gradient, upstream - upstream.mean(dim=1, keepdim=True))
