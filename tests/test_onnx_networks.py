import pytest
from onnx_networks import NETWORKS, saved

from mmseg_adm.export import onnx
from mmseg_adm.export.onnx import SEVERAL_SIZES, export_onnx

pytestmark = pytest.mark.slow

# Exported in tests/test_onnx.py, or made of what others here are made of.
ELSEWHERE = ('FCN', 'PSPNet, SyncBN', 'DeepLabV3')
ONE_SIZE = ('UPerNet-Swin', 'PSPNet, corners aligned')


@pytest.mark.parametrize('name', [name for name in NETWORKS if name not in ELSEWHERE])
def test_every_architecture_computes_what_pytorch_computes(name, tmp_path):
    config, checkpoint = saved(name, tmp_path)
    shape = (72, 104) if name in ONE_SIZE else None
    written = export_onnx(config, checkpoint, tmp_path / 'network.onnx', shape=shape)
    assert written.path.is_file()
    sizes = ((1, 72, 104), (3, 72, 104)) if shape else SEVERAL_SIZES
    assert written.checked == tuple((count, 3, *size) for count, *size in sizes)
    assert 0 < written.difference < 1e-4 * written.largest


def test_without_stand_ins_a_graph_for_one_size_would_pass_for_one_for_every(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, 'traceable', lambda network: network)
    config, checkpoint = saved('PSPNet', tmp_path)
    with pytest.raises(ValueError, match=r'for every image size: .*--shape HEIGHT WIDTH'):
        export_onnx(config, checkpoint, tmp_path / 'network.onnx')
    assert [path.name for path in tmp_path.iterdir()] == ['plain.pth']
