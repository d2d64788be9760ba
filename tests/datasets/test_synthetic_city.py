from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.datasets import CityscapesDataset

from mmseg_adm.datasets import synthetic_city
from mmseg_adm.datasets.synthetic_city import Canvas, draw_scene, main, write_synthetic_city

SIZE = (128, 256)
CLASSES = CityscapesDataset.METAINFO['classes']
IGNORE = 255


@pytest.fixture(scope='module')
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_city(tmp_path_factory.mktemp('data') / 'city', num_train=48, num_val=16)


def read_split(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) BGR images and (N, H, W) labels, by sorted path."""
    folders = root / 'leftImg8bit' / split, root / 'gtFine' / split
    images, labels = (sorted(folder.glob('*/*.png')) for folder in folders)
    return (
        np.stack([cv2.imread(str(path)) for path in images]),
        np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in labels]),
    )


def test_same_seed_same_bytes():
    first, again = draw_scene([3, 1, 4], SIZE), draw_scene([3, 1, 4], SIZE)
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    other = draw_scene([3, 1, 5], SIZE)
    assert (first[0] != other[0]).mean() > 0.5
    assert (first[1] != other[1]).mean() > 0.05


@pytest.mark.parametrize('size', [(32, 32), (200, 300), (512, 1024)])
def test_any_size(size: tuple[int, int]):
    image, labels = draw_scene([5], size)
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    assert (labels.shape, labels.dtype) == (size, np.uint8)
    assert set(np.unique(labels)) <= {*range(len(CLASSES)), IGNORE}


def test_one_seed_shows_the_same_street_at_any_size():
    for seed in range(len(synthetic_city.GUESTS)):
        small, large = draw_scene([seed], SIZE)[1], draw_scene([seed], (256, 512))[1]
        # Thin things and outlines differ; a scene that is not the same agrees on about half.
        assert (small == large[1::2, 1::2]).mean() > 0.88


def test_projection_by_hand():
    canvas = Canvas((100, 200), np.random.default_rng(0))
    canvas.focal, canvas.horizon, canvas.height, canvas.yaw = 2.0, 0.4, 1.5, 0.1
    near, far = canvas.project(np.array([3.0, 3.0]), 0.5, np.array([10.0, 20.0]))
    np.testing.assert_allclose(near, [100 + 200 * (0.3 - 0.1), 40 + 200 * 0.1])
    np.testing.assert_allclose(far, [100 + 200 * (0.15 - 0.1), 40 + 200 * 0.05])


def test_things_get_smaller_towards_the_horizon():
    def visible(depth: float) -> int:
        canvas = Canvas(SIZE, np.random.default_rng(0))
        synthetic_city._draw_thing(canvas, (synthetic_city.KINDS['car'], 0.0, depth), sun=1)
        return np.isin(canvas.strokes, np.flatnonzero(np.array(canvas.labels) == 'car')).sum()

    sizes = [visible(depth) for depth in (5.0, 10.0, 20.0, 40.0)]
    assert all(2 < near / far < 7 for near, far in pairwise(sizes))


@pytest.mark.slow
def test_all_classes_in_both_splits(data_root: Path):
    for split in ('train', 'val'):
        counts = np.bincount(read_split(data_root, split)[1].ravel(), minlength=256)
        assert counts[: len(CLASSES)].min() > 100
        assert counts[IGNORE] > 0
        assert counts.sum() == counts[: len(CLASSES)].sum() + counts[IGNORE]


def test_splits_share_neither_city_nor_scene(data_root: Path):
    cities, scenes = [], []
    for split in ('train', 'val'):
        cities.append({path.name for path in (data_root / 'gtFine' / split).iterdir()})
        scenes.append({image.tobytes() for image in read_split(data_root, split)[0]})
    assert not cities[0] & cities[1]
    assert [len(split) for split in scenes] == [48, 16]
    assert not scenes[0] & scenes[1]


@pytest.mark.parametrize(('split', 'number'), [('train', 48), ('val', 16)])
def test_cityscapes_dataset_reads_what_was_drawn(data_root: Path, split: str, number: int):
    dataset = CityscapesDataset(
        data_root=str(data_root),
        data_prefix={'img_path': f'leftImg8bit/{split}', 'seg_map_path': f'gtFine/{split}'},
        pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}],
    )
    assert len(dataset) == number
    for index in range(0, number, 7):
        sample = dataset[index]
        stem = Path(sample['img_path']).name.removesuffix('_leftImg8bit.png')
        assert Path(sample['seg_map_path']).name == f'{stem}_gtFine_labelTrainIds.png'
        image, labels = draw_scene((0, int(split == 'val'), index), SIZE)
        np.testing.assert_array_equal(sample['img'], image)
        np.testing.assert_array_equal(sample['gt_seg_map'], labels)


def test_color_alone_does_not_give_classes_away(data_root: Path):
    """The best guess from a pixel's color, learned on train, beats chance but not by much."""
    bins = []
    for split in ('train', 'val'):
        images, labels = read_split(data_root, split)
        color = (images // 16).astype(np.int64) @ np.array([256, 16, 1])
        bins.append((color[labels != IGNORE], labels[labels != IGNORE]))
    (color, label), (val_color, val_label) = bins
    histogram = np.bincount(color * len(CLASSES) + label, minlength=4096 * len(CLASSES))
    guess = histogram.reshape(4096, len(CLASSES)).argmax(1)[val_color]
    majority = np.bincount(val_label).max() / len(val_label)
    accuracy = (guess == val_label).mean()
    assert majority + 0.05 < accuracy < 0.5  # 0.40, and 0.27 for the majority's


def test_nearest_mean_color_is_a_poor_classifier(data_root: Path):
    images, labels = read_split(data_root, 'train')
    means = np.stack([images[labels == c].mean(0) for c in range(len(CLASSES))])
    images, labels = read_split(data_root, 'val')
    pixels = images[labels != IGNORE].astype(np.float32)
    distance = ((means.astype(np.float32) ** 2).sum(1)) - 2 * pixels @ means.T.astype(np.float32)
    accuracy = (distance.argmin(1) == labels[labels != IGNORE]).mean()
    assert 1 / len(CLASSES) < accuracy < 0.25  # 0.12


SETTINGS = {'num_train': 2, 'num_val': 1, 'size': (64, 128), 'seed': 5}


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def test_writing_twice_draws_once(tmp_path: Path):
    root = write_synthetic_city(tmp_path / 'city', **SETTINGS)
    before = snapshot(root)
    assert len(before) == 1 + 2 * (2 + 1)
    assert write_synthetic_city(str(root), **SETTINGS) == root
    assert snapshot(root) == before


def test_an_interrupted_call_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    complete = snapshot(write_synthetic_city(tmp_path / 'complete', **SETTINGS))
    drawn = []

    def interrupted(seed, size):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(seed)
        return draw_scene(seed, size)

    root = tmp_path / 'city'
    with monkeypatch.context() as patch:
        patch.setattr(synthetic_city, 'draw_scene', interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_synthetic_city(root, **SETTINGS)
    begun = snapshot(root)
    assert 0 < len(begun) < len(complete)
    after = snapshot(write_synthetic_city(root, **SETTINGS))
    assert {name: after[name] for name in begun} == begun
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in complete.items()
    }


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(path, content):
        with path.open('wb') as file:
            file.write(content[:5])
        raise OSError('No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full_disk)
    with pytest.raises(OSError, match='No space left'):
        write_synthetic_city(tmp_path / 'city', **SETTINGS)
    monkeypatch.undo()
    assert not [path for path in (tmp_path / 'city').iterdir() if path.name[0] != '.']
    write_synthetic_city(tmp_path / 'city', **SETTINGS)  # what was left over does not matter


@pytest.mark.parametrize('change', [{'num_train': 3}, {'size': (64, 130)}, {'seed': 1}])
def test_other_settings_are_refused(tmp_path: Path, change: dict):
    write_synthetic_city(tmp_path, **SETTINGS)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match='choose another folder') as error:
        write_synthetic_city(tmp_path, **{**SETTINGS, **change})
    assert str(tmp_path) in str(error.value)
    assert snapshot(tmp_path) == before


def test_another_data_set_is_left_alone(tmp_path: Path):
    (tmp_path / 'leftImg8bit').mkdir()
    file = tmp_path / 'leftImg8bit' / 'file'
    file.write_text('')
    for root in (tmp_path, file):
        with pytest.raises(ValueError, match='is not a folder of a synthetic city') as error:
            write_synthetic_city(root, **SETTINGS)
        assert str(root) in str(error.value)
    assert [path.name for path in tmp_path.rglob('*')] == ['leftImg8bit', 'file']


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'num_train': 0}, 'num_train must be at least 1, got 0'),
        ({'num_val': -2}, 'num_val must be at least 1, got -2'),
        ({'size': (8, 256)}, 'height must be at least 32, got 8'),
        ({'size': (128, 31)}, 'width must be at least 32, got 31'),
        ({'seed': -1}, 'seed must be at least 0, got -1'),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        write_synthetic_city(tmp_path / 'city', **wrong)
    assert not (tmp_path / 'city').exists()


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / 'city'
    options = ['--num-train', '2', '--num-val', '1', '--size', '64', '128', '--seed', '5']
    monkeypatch.setattr(sys, 'argv', ['synthetic_city', str(root), *options])
    main()
    assert capsys.readouterr().out.splitlines()[-1] == str(root)
    before = snapshot(root)
    write_synthetic_city(root, **SETTINGS)
    assert snapshot(root) == before
    monkeypatch.setattr(sys, 'argv', ['synthetic_city', str(root), '--seed', '6'])
    with pytest.raises(SystemExit) as refusal:
        main()
    assert refusal.value.code == 2
    assert 'choose another folder' in capsys.readouterr().err
