import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from reference import value_and_gradients
from torch import Tensor
from torch.testing import assert_close

from mmseg_adm.models import losses
from mmseg_adm.models.losses.reduction import check_positions, resize, weighted_mean

IGNORED = 255


@dataclass(frozen=True)
class Contract:
    """A loss as ``function(student, teacher, valid, avg_factor)``.

    ``divisor`` is what its docstring says it divides by; ``learner`` is 0 where gradient may
    reach the student alone, 1 where it may reach the teacher alone.
    """

    function: Callable[..., Tensor]
    divisor: Callable[[Tensor, Tensor, Tensor], Tensor | float]
    learner: int = 0


def count(student, teacher, valid):
    return valid.sum()


def first_channel(maps, valid=None):
    weight = maps[:, 0].abs()
    return weight if valid is None else weight * valid


def labels_of(maps, valid):
    labels = maps.argmax(dim=1)
    return labels if valid is None else labels.masked_fill(~valid, IGNORED)


def weighted_cross_entropy(student, teacher, valid=None, avg_factor=None):
    return losses.weighted_cross_entropy(
        student,
        labels_of(teacher, valid),
        first_channel(teacher),
        ignore_index=IGNORED,
        avg_factor=avg_factor,
    )


def intra_class_variation(student, teacher, valid=None, avg_factor=None):
    return losses.intra_class_variation(
        student, teacher, labels_of(teacher, valid), IGNORED, avg_factor
    )


def diversity(student, teacher, valid=None, avg_factor=None):
    target, _ = losses.shifted_attention(teacher, valid)
    return losses.diversity(student, target, valid, avg_factor)


def unit_distance(student, teacher, valid=None, avg_factor=None):
    vectors = [losses.flattened(maps, valid) for maps in (student, teacher)]
    return losses.unit_distance(*vectors, avg_factor)


def weighted_pixel_kl(student, teacher, valid=None, avg_factor=None):
    weight = first_channel(teacher, valid).float()
    return losses.weighted_pixel_kl(student, teacher, weight, avg_factor=avg_factor)


def images(student, teacher, valid):
    return float(len(student))


def alignment_loss(student, teacher, valid=None, avg_factor=None):
    similarity = losses.similarity_map(student, teacher.detach())
    return losses.alignment_loss(similarity, first_channel(teacher, valid).float(), avg_factor)


def repulsion_loss(student, teacher, valid=None, avg_factor=None):
    similarity = losses.similarity_map(student.detach(), teacher)
    return losses.repulsion_loss(similarity, first_channel(student, valid).float(), avg_factor)


CONTRACTS = {
    'alignment_loss': Contract(alignment_loss, lambda s, t, v: first_channel(t, v).sum()),
    'attention_transfer': Contract(losses.attention_transfer, images),
    'channel_wise_divergence': Contract(
        lambda s, t, v, n: losses.channel_wise_divergence(s, t, valid=v, avg_factor=n),
        lambda s, t, v: float(s.shape[0] * s.shape[1]),
    ),
    'channel_wise_divergence at tau 3': Contract(
        lambda s, t, v, n: losses.channel_wise_divergence(s, t, 3.0, v, n),
        lambda s, t, v: float(s.shape[0] * s.shape[1]),
    ),
    'consensus_alignment': Contract(
        losses.consensus_alignment,
        lambda s, t, v: (losses.similarity_map(s, t).clamp(min=0) * v).sum(),
    ),
    'cosine_distance': Contract(losses.cosine_distance, count),
    'divergence_repulsion': Contract(
        losses.divergence_repulsion,
        lambda s, t, v: ((1 - losses.similarity_map(s, t).clamp(min=0)) * v).sum(),
        learner=1,
    ),
    'diversity': Contract(diversity, count),
    'feature_error': Contract(losses.feature_error, count),
    'inter_class_correlation': Contract(
        lambda s, t, v, n: losses.inter_class_correlation(s, t, valid=v, avg_factor=n), count
    ),
    'inter_class_correlation at tau 3': Contract(
        lambda s, t, v, n: losses.inter_class_correlation(s, t, 3.0, v, n), count
    ),
    'intra_class_variation': Contract(intra_class_variation, count),
    # Three rows: the cells of another grid would not be those of maps twice as large.
    'pairwise_affinity': Contract(
        lambda s, t, v, n: losses.pairwise_affinity(s, t, (3, 1), v, n),
        lambda s, t, v: losses.node_pairs(v, (3, 1)).sum(),
    ),
    'pixel_kl': Contract(
        lambda s, t, v, n: losses.pixel_kl(s, t, valid=v, avg_factor=n),
        count,
    ),
    'pixel_kl at tau 3': Contract(
        lambda s, t, v, n: losses.pixel_kl(s, t, 3.0, v, n),
        count,
    ),
    'repulsion_loss': Contract(
        repulsion_loss, lambda s, t, v: first_channel(s, v).sum(), learner=1
    ),
    'unit_distance': Contract(unit_distance, images),
    'weighted_cross_entropy': Contract(
        weighted_cross_entropy, lambda s, t, v: first_channel(t, v).sum()
    ),
    'weighted_pixel_kl': Contract(weighted_pixel_kl, lambda s, t, v: first_channel(t, v).sum()),
}
# They divide, and pass no gradient: tested in their own file.
WITHOUT_GRADIENT = {'distribution_distance', 'label_distance'}
# Its target n - a' has an a' that falls with the resolution.
DEPENDS_ON_RESOLUTION = {'diversity'}
PAIR_LOSSES = [
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
POSITION_LOSSES = [
    check_positions,
    losses.attention_transfer,
    losses.pairwise_affinity,
]
MASKED_NAN_IN_GRADIENT = [
    'channel_wise_divergence',
    'channel_wise_divergence at tau 3',
    'pairwise_affinity',
]
MASKED_NAN_IN_VALUE = [
    *MASKED_NAN_IN_GRADIENT,
    'cosine_distance',
    'feature_error',
    'inter_class_correlation',
    'inter_class_correlation at tau 3',
    'pixel_kl',
    'pixel_kl at tau 3',
]


@pytest.fixture(params=CONTRACTS)
def contract(request):
    return CONTRACTS[request.param]


@pytest.fixture
def batch():
    """Four images with 15, 9, 4 and 1 valid positions of 15."""
    student, teacher = torch.randn(2, 4, 3, 3, 5)
    valid = torch.arange(15).reshape(1, 3, 5) < torch.tensor([15, 9, 4, 1]).reshape(4, 1, 1)
    return student, teacher, valid


def masked(contract, valid, avg_factor=None):
    return lambda student, teacher: contract.function(student, teacher, valid, avg_factor)


def test_every_loss_has_a_contract():
    divides = {
        name
        for name in losses.__all__
        if 'avg_factor' in inspect.signature(getattr(losses, name)).parameters
    }
    assert divides == {name.partition(' ')[0] for name in CONTRACTS} | WITHOUT_GRADIENT


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
    # Of the standard library: what annotations need.
    assert imported <= {'__future__', 'collections', 'torch'}


def test_gradient_reaches_the_learner_alone(contract, batch):
    student, teacher, valid = batch
    _, gradients = value_and_gradients(masked(contract, valid), student, teacher)
    assert gradients[contract.learner][:2].abs().amax(dim=(1, 2, 3)).gt(0).all()
    assert gradients[1 - contract.learner].eq(0).all()


def test_ignored_positions_get_no_gradient(contract, batch):
    student, teacher, valid = batch
    _, gradients = value_and_gradients(masked(contract, valid), student, teacher)
    assert gradients[contract.learner].abs().amax(dim=1)[~valid].eq(0).all()


def test_everything_valid_is_no_mask(contract, batch):
    student, teacher, valid = batch
    assert_close(
        contract.function(student, teacher, torch.ones_like(valid), None),
        contract.function(student, teacher, None, None),
    )


@pytest.mark.parametrize('avg_factor', [None, 0.0, torch.tensor(0.0)])
def test_nothing_valid_gives_a_differentiable_zero(contract, batch, avg_factor):
    student, teacher, valid = batch
    function = masked(contract, torch.zeros_like(valid), avg_factor)
    with torch.autograd.set_detect_anomaly(True):
        value, gradients = value_and_gradients(function, student, teacher)
    assert value == 0
    assert all(gradient.eq(0).all() for gradient in gradients)


def test_an_ignored_image_leaves_its_neighbour_alone(contract, batch):
    student, teacher, valid = (x[1:3].clone() for x in batch)
    valid[1] = False
    alone = masked(contract, valid[:1], contract.divisor(student[:1], teacher[:1], valid[:1]))
    both = masked(contract, valid, contract.divisor(student[:1], teacher[:1], valid[:1]))
    expected, expected_gradients = value_and_gradients(alone, student[:1], teacher[:1])
    value, gradients = value_and_gradients(both, student, teacher)
    assert_close(value, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert_close(gradient[:1], expected_gradient)
        assert gradient[1].eq(0).all()


@pytest.mark.parametrize('autocast', [False, True], ids=['plain', 'autocast'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_half_precision_is_computed_in_float32(contract, batch, dtype, autocast):
    student, teacher, valid = batch
    student, teacher = student.to(dtype), teacher.to(dtype)
    function = masked(contract, valid)
    expected, expected_gradients = value_and_gradients(function, student.float(), teacher.float())

    def forward(*pair):
        # The forward pass alone, as in training.
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            return function(*pair)

    value, gradients = value_and_gradients(forward, student, teacher)
    assert value.dtype == torch.float32
    assert_close(value, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert_close(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_close_to_full_precision(contract, batch, dtype):
    student, teacher, valid = batch
    value = contract.function(student.to(dtype), teacher.to(dtype), valid, None)
    expected = contract.function(student, teacher, valid, None)
    assert_close(value, expected, rtol=0.02, atol=0.02)


def test_half_precision_counts_in_float32(contract):
    # 323 positions: bfloat16 has 322 and 324.
    student, teacher = torch.randn(2, 1, 3, 17, 19, dtype=torch.bfloat16)
    value = contract.function(student, teacher, None, None)
    assert_close(value, contract.function(student.float(), teacher.float(), None, None))


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32], ids=str)
def test_large_values_stay_finite(contract, batch, dtype):
    student, teacher, valid = batch
    function = masked(contract, valid)
    large = [6e4 * maps.sign().to(dtype) for maps in (student, teacher)]
    value, gradients = value_and_gradients(function, *large)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_doubling_the_batch_changes_nothing(contract, batch):
    doubled = [torch.cat([x, x]) for x in batch]
    assert_close(contract.function(*doubled, None), contract.function(*batch, None))


@pytest.mark.parametrize('name', [name for name in CONTRACTS if name not in DEPENDS_ON_RESOLUTION])
def test_doubling_the_resolution_changes_nothing(name, batch):
    """Each position becomes four.

    In the mean over positions they count four times on both sides of the fraction. In the
    softmax over positions each gets p/4 and q/4: 4 * p/4 * log((p/4) / (q/4)) = p log(p/q).
    """
    contract = CONTRACTS[name]
    doubled = [x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2) for x in batch]
    assert_close(contract.function(*doubled, None), contract.function(*batch, None))


@pytest.mark.parametrize('side', [0, 1], ids=['student', 'teacher'])
def test_ignored_positions_may_hold_anything(contract, batch, side):
    *maps, valid = batch
    expected, expected_gradients = value_and_gradients(masked(contract, valid), *maps)
    maps[side] = torch.where(valid[:, None], maps[side], 1e4 * torch.randn_like(maps[side]))
    value, gradients = value_and_gradients(masked(contract, valid), *maps)
    assert_close(value, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert_close(gradient, expected_gradient)


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
@pytest.mark.parametrize('side', [0, 1], ids=['student', 'teacher'])
@pytest.mark.parametrize('name', MASKED_NAN_IN_VALUE)
def test_ignored_positions_may_hold_nan(name, batch, side, number):
    *maps, valid = batch
    contract = CONTRACTS[name]
    expected, expected_gradients = value_and_gradients(masked(contract, valid), *maps)
    maps[side] = maps[side].masked_fill(~valid[:, None], number)
    value, gradients = value_and_gradients(masked(contract, valid), *maps)
    assert_close(value, expected)
    if name in MASKED_NAN_IN_GRADIENT:
        assert_close(gradients[contract.learner], expected_gradients[contract.learner])


@pytest.mark.parametrize('as_tensor', [False, True], ids=['number', 'tensor'])
def test_avg_factor_joins_two_ranks(contract, batch, as_tensor):
    """One rank has image 0 and the other the rest; DDP averages their gradients."""
    expected, expected_gradients = value_and_gradients(masked(contract, batch[2]), *batch[:2])
    ranks = [[x[:1] for x in batch], [x[1:] for x in batch]]
    divisors = [contract.divisor(*rank) for rank in ranks]
    assert float(divisors[0]) != float(divisors[1])
    avg_factor = sum(float(divisor) for divisor in divisors) / 2
    avg_factor = torch.tensor(avg_factor) if as_tensor else avg_factor
    results = [
        value_and_gradients(masked(contract, valid, avg_factor), student, teacher)
        for student, teacher, valid in ranks
    ]
    assert_close((results[0][0] + results[1][0]) / 2, expected)
    gradients = torch.cat([gradient[contract.learner] for _, gradient in results]) / 2
    assert_close(gradients, expected_gradients[contract.learner])


def test_avg_factor_passes_no_gradient(contract, batch):
    *maps, valid = batch
    divisor = torch.as_tensor(contract.divisor(*batch)).float()
    _, expected = value_and_gradients(masked(contract, valid), *maps)
    _, gradients = value_and_gradients(masked(contract, valid, divisor), *maps)
    assert_close(gradients[contract.learner], expected[contract.learner])


@pytest.mark.parametrize('loss', PAIR_LOSSES)
@pytest.mark.parametrize(
    ('student_shape', 'teacher_shape'),
    [
        ((2, 3, 4, 5), (2, 6, 4, 5)),
        ((2, 3, 4, 5), (2, 3, 8, 10)),
        ((2, 3, 4, 5), (1, 3, 4, 5)),
        ((2, 3, 4), (2, 3, 4)),
    ],
)
def test_unequal_maps_are_refused(loss, student_shape, teacher_shape):
    with pytest.raises(ValueError, match='resize or project one of them first') as error:
        loss(torch.zeros(student_shape), torch.zeros(teacher_shape))
    assert f'got {student_shape} and {teacher_shape}' in str(error.value)


@pytest.mark.parametrize('loss', POSITION_LOSSES)
@pytest.mark.parametrize(
    ('student_shape', 'teacher_shape'),
    [
        ((2, 3, 4, 5), (2, 3, 8, 10)),
        ((2, 3, 4, 5), (2, 3, 4, 6)),
        ((2, 3, 4, 5), (1, 3, 4, 5)),
        ((2, 3, 4), (2, 3, 4)),
        ((2, 3, 4, 5), (2, 4, 5)),
    ],
)
def test_other_positions_are_refused(loss, student_shape, teacher_shape):
    with pytest.raises(ValueError, match='equal B, h and w') as error:
        loss(torch.zeros(student_shape), torch.zeros(teacher_shape))
    assert f'got {student_shape} and {teacher_shape}: resize one' in str(error.value)


def test_positions_let_the_widths_differ():
    student, teacher = torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 4, 5)
    check_positions(student, teacher)
    check_positions(student, teacher, torch.ones(2, 4, 5, dtype=torch.bool))


@pytest.mark.parametrize('loss', [*PAIR_LOSSES, *POSITION_LOSSES])
@pytest.mark.parametrize(
    'valid',
    [
        torch.ones(2, 4, 5),
        torch.ones(2, 4, 5, dtype=torch.uint8),
        torch.ones(2, 1, 4, 5, dtype=torch.bool),
        torch.ones(1, 4, 5, dtype=torch.bool),
        torch.ones(2, 8, 10, dtype=torch.bool),
    ],
    ids=lambda valid: f'{valid.dtype}-{tuple(valid.shape)}',
)
def test_other_masks_are_refused(loss, valid):
    with pytest.raises(ValueError, match='valid must be a boolean mask of shape') as error:
        loss(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5), valid=valid)
    assert '(2, 4, 5), got' in str(error.value)
    assert f'got {valid.dtype} of shape {tuple(valid.shape)}' in str(error.value)


def test_weighted_mean_by_hand():
    # (1*2 + 3*4 + 0*nan) / (1 + 3 + 0) = 14/4, and 14/7 with a divisor of 7.
    values, weight = torch.tensor([2.0, 4.0, float('nan')]), torch.tensor([1.0, 3.0, 0.0])
    assert_close(weighted_mean(values, weight, None), torch.tensor(3.5))
    assert_close(weighted_mean(values, weight, 7), torch.tensor(2.0))


def test_resize_by_hand():
    # Twice as wide: the new centres lie at -1/4 (clamped to 0), 1/4, 3/4 and 5/4 (clamped).
    resized = resize(torch.tensor([[[[0.0, 8.0]]]]), (1, 4))
    assert_close(resized, torch.tensor([[[[0.0, 2.0, 6.0, 8.0]]]]))
