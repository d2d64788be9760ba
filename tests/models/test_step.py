import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mmseg_adm.models.step import DistillationStep

pytestmark = pytest.mark.core

CLASSES = 3


@pytest.fixture
def labels():
    labels = torch.randint(0, CLASSES, (2, 6, 8))
    labels[torch.rand(labels.shape) < 0.3] = 255
    return labels


def step_of(labels, ignore_index=255):
    return DistillationStep({}, labels, ignore_index)


@pytest.mark.parametrize('size', [(3, 4), (6, 8), (12, 16), (4, 5), (1, 1)], ids=str)
def test_labels_are_those_at_the_centers_of_the_cells(size, labels):
    step = step_of(labels)
    maps = torch.zeros(2, 7, *size)
    found = step.labels_like(maps)
    rows, columns = ([int((i + 0.5) * whole / part) for i in range(part)]
                     for whole, part in zip((6, 8), size, strict=True))  # fmt: skip
    assert found.dtype == torch.int64
    assert torch.equal(found, labels[:, rows][:, :, columns])
    assert step.labels_like(maps + 1) is found
    assert torch.equal(step.valid(maps), found != 255)


def test_most_cells_get_the_label_of_most_of_their_pixels():
    # Diagonal stripes as wide as a cell and a half: their corners mostly belong to a neighbor.
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(128), indexing='ij')
    labels = ((rows + 2 * columns) // 24 % 5)[None]
    cells = labels.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3)
    majority = cells.mode(dim=3).values
    found = step_of(labels).labels_like(torch.zeros(1, 1, 12, 16))
    corners = labels[:, ::8, ::8]
    assert (found == majority).float().mean() > 0.95
    assert (corners == majority).float().mean() < 0.7


def test_where_nothing_is_ignored_all_counts(labels):
    labels = labels.where(labels != 255, 0)
    step = step_of(labels, ignore_index=None)
    maps = torch.zeros(2, 1, 3, 4)
    assert step.valid(maps).all()
    assert step.valid_count(maps) == 24
    logits = torch.randn(2, CLASSES, 6, 8)
    assert_close(step.cross_entropy(logits), F.cross_entropy(logits, labels))


def test_large_labels_stay_what_they_are():
    # float16 could not hold them, float32 can.
    labels = torch.tensor([[[65535, 2049], [4097, 255]]])
    assert torch.equal(step_of(labels).labels_like(torch.zeros(1, 1, 2, 2)), labels)


def test_in_one_process_sums_are_what_they_are():
    step = step_of(torch.zeros(1, 2, 2, dtype=torch.int64))
    values = torch.randn(3, requires_grad=True)
    assert not step.distributed
    assert step.all_reduce(values) is values
    assert_close(step.reduce_mean(values), values.detach())
    assert not step.reduce_mean(values).requires_grad


@pytest.mark.parametrize('ignore_index', [255, 1])
def test_cross_entropy_is_the_mean_over_labeled_pixels(ignore_index, labels):
    labels[labels == 255] = ignore_index
    logits = torch.randn(2, CLASSES, 3, 4, requires_grad=True)
    resized = F.interpolate(logits, labels.shape[-2:], mode='bilinear', align_corners=False)
    expected = F.cross_entropy(resized, labels, ignore_index=ignore_index)
    found = step_of(labels, ignore_index).cross_entropy(logits)
    assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    assert_close(*gradients)


def test_cross_entropy_without_labels_is_zero(labels):
    logits = torch.randn(2, CLASSES, 3, 4, requires_grad=True)
    loss = step_of(torch.full_like(labels, 255)).cross_entropy(logits)
    loss.backward()
    assert loss == 0
    assert logits.grad.eq(0).all()
