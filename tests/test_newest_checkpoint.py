import pytest
import torch

from mmseg_adm.checkpoint import damage_of, newest_whole, save_checkpoint, step_of

pytestmark = pytest.mark.core

TEMPLATE = 'iter_{}.pth'


def content(seed: int) -> dict:
    weights = {f'layer{index}.weight': torch.full((50,), seed + index) for index in range(4)}
    return {'state_dict': weights, 'meta': {'iter': seed}}


@pytest.fixture
def folder(tmp_path):
    for step in (9, 10, 100):
        save_checkpoint(tmp_path / f'iter_{step}.pth', content(step))
    for name in ('iter_.pth', 'iter_1000.pth.partial', 'best_mIoU_iter_2000.pth', 'iter_x.pth'):
        (tmp_path / name).write_bytes(b'')
    return tmp_path


DAMAGES = {
    'it is empty': lambda data: b'',
    'it is cut short': lambda data: data[: len(data) // 2],
    'it is cut': lambda data: data[:-1],
    'the checksum of archive/data/2 is wrong': lambda data: flipped(
        data, data.find(b'data/2') + 90
    ),
    'it is damaged': lambda data: data[: len(data) // 2] + data[len(data) // 2 + 8 :],
}


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def test_the_newest_is_the_one_of_the_highest_number(folder):
    assert newest_whole(folder, TEMPLATE) == (folder / 'iter_100.pth', {})


@pytest.mark.parametrize('damage', DAMAGES)
def test_what_is_damaged_is_skipped_and_told(damage, folder):
    newest = folder / 'iter_100.pth'
    newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
    found = newest_whole(folder, TEMPLATE)
    assert found.path == folder / 'iter_10.pth'
    assert list(found.skipped) == [newest]
    assert damage in found.skipped[newest]


def test_without_a_whole_one_all_are_told(folder):
    for path in folder.glob('iter_1*.pth'):
        path.write_bytes(b'')
    (folder / 'iter_9.pth').unlink()
    (folder / 'iter_9.pth').mkdir()
    found = newest_whole(folder, TEMPLATE)
    assert found.path is None
    assert [path.name for path in found.skipped] == ['iter_100.pth', 'iter_10.pth', 'iter_9.pth']


def test_no_checkpoint_at_all(tmp_path):
    assert newest_whole(tmp_path, TEMPLATE) == (None, {})
    assert newest_whole(tmp_path / 'nowhere', TEMPLATE) == (None, {})


def test_no_flipped_bit_changes_what_is_read(tmp_path):
    """Those that are not told are in what nobody reads: dates, or room between the tensors."""
    path = tmp_path / 'iter_1.pth'
    save_checkpoint(path, content(1))
    whole = path.read_bytes()
    told = 0
    for position in range(0, len(whole), 17):
        path.write_bytes(flipped(whole, position))
        if damage_of(path):
            told += 1
            continue
        read = torch.load(path, weights_only=True)
        assert str(read) == str(content(1)), position
    assert told > 50


@pytest.mark.parametrize(
    ('name', 'template', 'step'),
    [('iter_7.pth', TEMPLATE, 7), ('epoch_12.pth', 'epoch_{}.pth', 12), ('iter_7', 'it.{}', None),
     ('run(1)-3', 'run(1)-{}', 3), ('iter_7.pth.partial', TEMPLATE, None)],
)  # fmt: skip
def test_the_step_is_in_the_name(name, template, step):
    assert step_of(name, template) == step
