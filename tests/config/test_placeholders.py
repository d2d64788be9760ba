"""Written configs name what environment variables have named."""

import pytest
from plain_configs import other, pair, plain

from mmseg_adm.config import read_config
from mmseg_adm.config.placeholders import text_of
from mmseg_adm.export import plain_config

pytestmark = pytest.mark.core


@pytest.fixture
def written(tmp_path):
    """Writes a plain config whose data lie where a variable says."""

    def write(root):
        path = tmp_path / 'plain.py'
        path.write_text(plain(root='ROOT').pretty_text.replace("'ROOT'", repr(root)))
        return path

    return write


def test_another_machine_reads_its_own_root(written, monkeypatch, tmp_path):
    path = written('{{$OWN_ROOT:data/own}}/images')
    monkeypatch.setenv('OWN_ROOT', '/here/data')
    paired = pair(str(path), other())
    assert paired.test_dataloader.dataset.data_root == '/here/data/images'
    (tmp_path / 'pair.py').write_text(text_of(paired))
    (tmp_path / 'student.py').write_text(text_of(plain_config(paired)))
    monkeypatch.setenv('OWN_ROOT', '/there')
    again = read_config(tmp_path / 'pair.py')
    assert again.train_dataloader.dataset.dataset.data_root == '/there/images'
    monkeypatch.delenv('OWN_ROOT')
    # Without one it is where it was.
    assert read_config(tmp_path / 'pair.py').to_dict() == paired.to_dict()


@pytest.mark.parametrize('value', ['/with blanks/data', '/with+signs', ''])
def test_what_mmengine_could_not_read_again_is_written_as_it_is(value, written, monkeypatch):
    path = written('{{$OWN_ROOT:data/own}}')
    monkeypatch.setenv('OWN_ROOT', value or '/set')
    config = read_config(path)
    if not value:
        # A value that is no place of files is not taken for one.
        config.test_dataloader.dataset.data_root = '/settings'
        assert "data_root='/settings'" in text_of(config)
    else:
        assert text_of(config) == config.pretty_text
