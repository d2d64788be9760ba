import copy

import pytest
import torch
from onnx_networks import NETWORKS, seasoned
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.testing import assert_close

from mmseg_adm.export.stand_ins import MatrixAveragePool, ScaledUpsample, traceable

pytestmark = pytest.mark.core


@pytest.mark.parametrize('size', [(12, 18), (13, 19), (7, 6), (4, 1)])
@pytest.mark.parametrize('bins', [2, 3, 6, (2, 5), (None, 3)])
def test_the_matrices_pool_as_pytorch_does(size, bins):
    features = torch.randn(2, 3, *size, dtype=torch.float64)
    assert_close(MatrixAveragePool(bins)(features), adaptive_avg_pool2d(features, bins))


@pytest.mark.parametrize(
    ('name', 'kind', 'count'),
    [('PSPNet', MatrixAveragePool, 3), ('UPerNet-Swin', MatrixAveragePool, 3),
     ('HRNet', ScaledUpsample, 10)],
)  # fmt: skip
def test_a_traceable_network_computes_the_same(name, kind, count):
    network = seasoned(NETWORKS[name])
    before = copy.deepcopy(network.state_dict())
    images = torch.randn(2, 3, 72, 104)
    with torch.no_grad():
        expected = network(images)
        replaced = traceable(network)
        found = replaced(images)
        again = network(images)
    assert expected.std() > 0.1
    assert sum(isinstance(module, kind) for module in replaced.modules()) == count
    assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # The network itself is as it was.
    assert torch.equal(again, expected)
    assert not any(isinstance(module, kind) for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_mean_stays_a_mean():
    pools = traceable(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1))))
    assert all(isinstance(pool, nn.AdaptiveAvgPool2d) for pool in pools)
