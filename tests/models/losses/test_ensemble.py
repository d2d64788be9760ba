from math import log

import pytest
import reference
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mmseg_adm.models.losses import mean_target, min_logit_target, naive_target

TARGETS = [naive_target, min_logit_target, mean_target]
IGNORED = 255


def labeled(shape, ignored=True):
    labels = torch.randint(3, shape)
    return labels.masked_fill(torch.rand(shape) > 0.6, IGNORED) if ignored else labels


@pytest.mark.parametrize('ignored', [False, True], ids=['labeled', 'ignored'])
@pytest.mark.parametrize('networks', [2, 3])
@pytest.mark.parametrize('target', TARGETS)
def test_matches_loop_reference(target, networks, ignored):
    logits, labels = list(torch.randn(networks, 4, 3, 2, 3)), labeled((4, 2, 3), ignored)
    labels[1] = IGNORED if ignored else 0
    expected = getattr(reference, target.__name__)(logits, labels)
    assert_close(target(logits, labels), expected.float())


def test_naive_target_by_hand():
    # Cross entropies of the first image: (ln 2 + ln 4) / 2 = 3/2 ln 2 and (ln 2 + ln 2) / 2, the
    # third pixel aside, at which the second network would lose. In the second image it is ln 2
    # twice: among equals the first.
    first = torch.tensor([[[0.0, 0.0, 9.0], [0.0, log(3), 0.0]], [[0.0] * 3, [0.0] * 3]])
    second = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 9.0]], [[7.0] * 3, [7.0] * 3]])
    labels = torch.tensor([[0, 0, IGNORED], [1, 0, 1]])[:, None]
    target = naive_target([first[:, :, None], second[:, :, None]], labels)
    assert_close(target, torch.stack([second[0], first[1]])[:, :, None])


def test_min_logit_target_by_hand():
    # From class 1: (2, 1, 0) gives (1, 0, -1), (5, 3, 1) gives (2, 0, -2). Zeros where ignored.
    first = torch.tensor([2.0, 1.0, 0.0]).reshape(1, 3, 1, 1).expand(-1, -1, -1, 2)
    second = torch.tensor([5.0, 3.0, 1.0]).reshape(1, 3, 1, 1).expand(-1, -1, -1, 2)
    target = min_logit_target([first, second], torch.tensor([[[1, IGNORED]]]))
    assert_close(target[..., 0], torch.tensor([1.0, 0.0, -2.0]).reshape(1, 3, 1))
    assert target[..., 1].eq(0).all()


def test_min_logit_target_is_less_mistaken_than_anyone():
    logits, labels = torch.randn(3, 2, 5, 3, 4), torch.randint(5, (2, 3, 4))
    loss = F.cross_entropy(min_logit_target(logits, labels), labels, reduction='none')
    for own in logits:
        assert (loss <= F.cross_entropy(own, labels, reduction='none')).all()


def test_mean_target_by_hand():
    # (1 + 5) / 2 and (2 - 2) / 2, labeled or not.
    first, second = (torch.tensor(row).reshape(1, 2, 1, 1) for row in ([1.0, 2.0], [5.0, -2.0]))
    expected = torch.tensor([3.0, 0.0]).reshape(1, 2, 1, 1)
    for label in (1, IGNORED):
        labels = torch.full((1, 1, 1), label)
        assert_close(mean_target([first, second], labels), expected)


@pytest.mark.parametrize('target', TARGETS)
def test_equal_networks_are_their_own_target(target):
    logits, labels = torch.randn(2, 3, 3, 4), labeled((2, 3, 4))
    own = F.softmax(target([logits, logits.clone()], labels), dim=1)
    expected = F.softmax(logits, dim=1)
    if target is min_logit_target:
        expected = torch.where((labels == IGNORED)[:, None], 1 / 3, expected)
    assert_close(own, expected)


@pytest.mark.parametrize('ignore_index', [0, -1])
@pytest.mark.parametrize('target', TARGETS)
def test_any_index_may_be_ignored(target, ignore_index):
    logits, labels = torch.randn(2, 2, 4, 3, 4), 1 + labeled((2, 3, 4), ignored=False)
    hidden = torch.rand(2, 3, 4) > 0.6
    value = target(logits, labels.masked_fill(hidden, ignore_index), ignore_index)
    assert_close(value, target(logits, labels.masked_fill(hidden, IGNORED)))


@pytest.mark.parametrize('target', TARGETS)
def test_nothing_labeled_is_finite(target):
    logits, labels = torch.randn(2, 2, 3, 3, 4), torch.full((2, 3, 4), IGNORED)
    value = target(logits, labels)
    expected = {
        naive_target: logits[0],
        min_logit_target: torch.zeros_like(logits[0]),
        mean_target: logits.mean(dim=0),
    }
    assert_close(value, expected[target])


@pytest.mark.parametrize('target', TARGETS)
def test_ignored_pixels_choose_nothing(target):
    logits, labels = torch.randn(2, 2, 3, 3, 4), labeled((2, 3, 4))
    counted = (labels != IGNORED)[:, None]
    changed = torch.where(counted, logits, 1e4 * torch.randn_like(logits))
    value, expected = target(changed, labels), target(logits, labels)
    assert_close(value * counted, expected * counted)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize('target', TARGETS)
def test_is_float32_without_gradient(target, dtype):
    logits, labels = torch.randn(2, 2, 3, 3, 4).to(dtype).requires_grad_(), labeled((2, 3, 4))
    with torch.autocast('cpu', torch.bfloat16):
        value = target(list(logits), labels)
    assert not value.requires_grad
    assert_close(value, target(list(logits.float()), labels))


@pytest.mark.parametrize('target', TARGETS)
def test_other_shapes_are_refused(target):
    own, right = (2, 3, 4, 5), (2, 4, 5)
    for second, labels, named in (
        ((2, 4, 4, 5), right, 'logits of equal shape'),
        ((2, 3, 8, 10), right, 'logits of equal shape'),
        ((1, 3, 4, 5), right, 'logits of equal shape'),
        (own, (2, 8, 10), 'maps'),
        (own, (1, 4, 5), 'maps'),
        (own, (2, 1, 4, 5), 'maps'),
    ):
        with pytest.raises(ValueError, match=f'^expected {named}') as error:
            target([torch.zeros(own), torch.zeros(second)], torch.zeros(labels).long())
        assert str(labels if second == own else second) in str(error.value)
