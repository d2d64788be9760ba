"""An export takes the place of an earlier one, and of nothing else."""

import pytest
import torch
from factory import build, demo_config
from mmengine.config import Config

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.commands.export import export_onnx, export_student
from mmseg_adm.export.replacing import HEADER, check_target, is_export

pytestmark = pytest.mark.core


@pytest.fixture(scope='module')
def trained(city, tmp_path_factory):
    """A config and a checkpoint of it."""
    folder = tmp_path_factory.mktemp('trained')
    config = demo_config(city, folder)
    torch.save({'state_dict': build(config.model).state_dict(), 'meta': {}}, folder / 'a.pth')
    return config, folder / 'a.pth'


def test_an_export_takes_the_place_of_an_earlier_one(trained, tmp_path):
    for member in ('student', 'teacher'):
        written = export_student(*trained, tmp_path / 'v1.2', member)
        assert written == tmp_path / 'v1.2.pth'
        assert {path.name for path in tmp_path.iterdir()} == {'v1.2.pth', 'v1.2.py'}
        assert all(is_export(path) for path in tmp_path.iterdir())
    # The later one.
    width = Config.fromfile(tmp_path / 'v1.2.py').model.decode_head.in_channels
    assert width == trained[0].model.members.teacher.decode_head.in_channels
    weights = read_checkpoint(tmp_path / 'v1.2.pth')['state_dict']
    assert weights['decode_head.bottleneck.conv.weight'].shape[1] > width


@pytest.mark.parametrize('ending', ['.pth', '.py'])
def test_what_a_user_put_in_its_place_stays(ending, trained, tmp_path):
    written = export_student(*trained, tmp_path / 'student.pth')
    mine = written.with_suffix(ending)
    if ending == '.py':
        mine.write_text(mine.read_text().replace(HEADER, '# Mine'))
    else:
        content = torch.load(mine)
        del content['meta']['mmseg_adm']
        torch.save(content, mine)
    before = mine.read_bytes()
    with pytest.raises(ValueError, match=rf'student\{ending} is there, and no export has'):
        export_student(*trained, tmp_path / 'student.pth')
    assert mine.read_bytes() == before


@pytest.mark.slow
def test_a_graph_is_known_again(trained, tmp_path):
    config, checkpoint = trained
    for _ in range(2):
        export_onnx(config, checkpoint, tmp_path / 'student', None, (32, 48))
        assert is_export(tmp_path / 'student.onnx')
    (tmp_path / 'mine.onnx').write_bytes(b'mine')
    with pytest.raises(ValueError, match=r'mine\.onnx is there'):
        check_target(tmp_path / 'mine.onnx', [checkpoint])
