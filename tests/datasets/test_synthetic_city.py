from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.datasets import CityscapesDataset

from mmseg_adm.datasets.synthetic_city import draw_scene, write_synthetic_city
from mmseg_adm.datasets.synthetic_city.__main__ import main
from mmseg_adm.datasets.synthetic_city.canvas import Camera, Canvas
from mmseg_adm.datasets.synthetic_city.labels import Label
from mmseg_adm.datasets.synthetic_city.light import sample_light
from mmseg_adm.datasets.synthetic_city.scene import GUESTS

PACKAGE = Path(__file__).parents[2] / 'mmseg_adm' / 'datasets'
SIZE = (128, 256)
CLASSES = 19


@pytest.fixture(scope='module')
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_city(tmp_path_factory.mktemp('data') / 'city', num_train=64, num_val=16)


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


def test_a_number_is_a_seed_too():
    assert np.array_equal(draw_scene(7, SIZE)[0], draw_scene([7], SIZE)[0])


@pytest.mark.parametrize('size', [(32, 32), (64, 128), (200, 300), (1024, 2048)])
def test_any_size(size: tuple[int, int]):
    image, labels = draw_scene(5, size)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {*range(CLASSES), 255}


@pytest.mark.parametrize('seed', range(len(GUESTS)))
def test_one_seed_shows_the_same_street_at_any_size(seed: int):
    small, large = draw_scene(seed, SIZE)[1], draw_scene(seed, (256, 512))[1]
    # Thin things and outlines differ; a scene that is not the same agrees on about half.
    assert (small == large[1::2, 1::2]).mean() > 0.88


@pytest.mark.parametrize(
    ('seed', 'size', 'message'),
    [
        (0, (16, 256), r'size H must lie between 32 and 1024, got 16'),
        (0, (128, 4096), r'size W must lie between 32 and 2048, got 4096'),
        (0, (128, 31), r'size W must lie between 32 and 2048, got 31'),
        (-1, SIZE, r'not negative, got -1'),
        ([], SIZE, r'got \[\]'),
    ],
)
def test_draw_scene_refuses(seed: int | list[int], size: tuple[int, int], message: str):
    with pytest.raises(ValueError, match=message):
        draw_scene(seed, size)


def test_importing_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import synthetic_city.__main__"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=PACKAGE)


def test_projection_by_hand():
    camera = Camera((100, 200), focal=2.0, horizon=0.4, height=1.5, yaw=0.1, roll=0.2, bend=1e-3)
    point = np.array([3.0, 0.5, 10.0])
    right = 3.0 / 10.0 - 0.1 + 1e-3 * 10.0
    down = (1.5 - 0.5) / 10.0
    column = 200 * (np.cos(0.2) * right - np.sin(0.2) * down) + 100 - 0.5
    row = 200 * (np.sin(0.2) * right + np.cos(0.2) * down) + 40 - 0.5
    np.testing.assert_allclose(camera.project(point), [column, row])
    np.testing.assert_allclose(camera.project(np.stack([point, point]))[1], [column, row])


def test_ground_depth_undoes_the_projection():
    camera = Camera((128, 256), focal=2.0, horizon=0.4, height=1.5, yaw=0.1, roll=0.1, bend=0.0)
    column, row = camera.project(np.array([1.0, 0.0, 8.0]))
    depth = camera.ground_depth()
    assert depth[round(row), round(column)] == pytest.approx(8.0, rel=0.05)
    assert np.isinf(depth[0]).all()


def test_strokes_land_on_image_and_labels():
    rng = np.random.default_rng(0)
    canvas = Canvas(Camera.sample(rng, SIZE), sample_light(rng))
    square = np.array([(20.0, 20), (60, 20), (60, 60), (20, 60)])
    canvas.polygon(square, (200, 10, 10), None)
    assert tuple(canvas.image[40, 40]) == (200, 10, 10)
    assert (canvas.labels == Label.IGNORE).all()
    canvas.polygon(square, None, Label.FENCE)
    assert tuple(canvas.image[40, 40]) == (200, 10, 10)
    assert canvas.labels[40, 40] == Label.FENCE
    canvas.polygon(square, (200, 10, 10), Label.WALL, depth=1e9)
    np.testing.assert_allclose(canvas.image[40, 40], canvas.light.haze, atol=1)


def test_all_classes_in_both_splits(data_root: Path):
    for split in ('train', 'val'):
        counts = np.bincount(read_split(data_root, split)[1].ravel(), minlength=256)
        assert counts[:CLASSES].min() > 100
        assert counts[Label.IGNORE] > 0
        assert counts.sum() == counts[:CLASSES].sum() + counts[Label.IGNORE]


def test_splits_share_neither_city_nor_scene(data_root: Path):
    names = [
        {path.name for path in (data_root / 'gtFine' / split).iterdir()}
        for split in ('train', 'val')
    ]
    assert not names[0] & names[1]
    train, val = (
        {image.tobytes() for image in read_split(data_root, split)[0]} for split in ('train', 'val')
    )
    assert len(train) == 64
    assert len(val) == 16
    assert not train & val


@pytest.mark.parametrize(('split', 'number'), [('train', 64), ('val', 16)])
def test_cityscapes_dataset_reads_it(data_root: Path, split: str, number: int):
    dataset = CityscapesDataset(
        data_root=str(data_root),
        data_prefix={'img_path': f'leftImg8bit/{split}', 'seg_map_path': f'gtFine/{split}'},
        pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}],
    )
    assert len(dataset) == number
    images, labels = read_split(data_root, split)
    for index in range(0, number, 7):
        sample = dataset[index]
        stem = Path(sample['img_path']).name.removesuffix('_leftImg8bit.png')
        assert Path(sample['seg_map_path']).name == f'{stem}_gtFine_labelTrainIds.png'
        np.testing.assert_array_equal(sample['img'], images[index])
        np.testing.assert_array_equal(sample['gt_seg_map'], labels[index])


def test_files_hold_the_scenes(data_root: Path):
    stem = 'train/arvenholm/arvenholm_000000_000019'
    image, labels = draw_scene([0, 0, 0], SIZE)
    written = cv2.imread(str(data_root / 'leftImg8bit' / f'{stem}_leftImg8bit.png'))
    np.testing.assert_array_equal(written, image)
    path = data_root / 'gtFine' / f'{stem}_gtFine_labelTrainIds.png'
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), labels)


def test_colour_alone_does_not_give_classes_away(data_root: Path):
    """The best guess from a pixel's colour, learnt on train, beats chance but not by much."""
    bins = []
    for split in ('train', 'val'):
        images, labels = read_split(data_root, split)
        colour = (images // 16).astype(np.int64) @ np.array([256, 16, 1])
        bins.append((colour[labels != 255], labels[labels != 255]))
    (colour, label), (val_colour, val_label) = bins
    histogram = np.bincount(colour * CLASSES + label, minlength=4096 * CLASSES)
    guess = histogram.reshape(4096, CLASSES).argmax(1)[val_colour]
    majority = np.bincount(val_label).max() / len(val_label)
    accuracy = (guess == val_label).mean()
    assert majority + 0.05 < accuracy < 0.6


def test_nearest_mean_colour_is_a_poor_classifier(data_root: Path):
    images, labels = read_split(data_root, 'train')
    means = np.stack([images[labels == c].mean(0) for c in range(CLASSES)])
    images, labels = read_split(data_root, 'val')
    pixels = images[labels != 255].astype(np.float32)
    distance = ((means.astype(np.float32) ** 2).sum(1)) - 2 * pixels @ means.T.astype(np.float32)
    accuracy = (distance.argmin(1) == labels[labels != 255]).mean()
    assert 1 / CLASSES < accuracy < 0.5


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def test_writing_twice_draws_once(tmp_path: Path):
    arguments = {'num_train': 3, 'num_val': 2, 'size': (64, 128), 'seed': 5}
    root = write_synthetic_city(tmp_path / 'city', **arguments)
    before = snapshot(root)
    assert len(before) == 1 + 2 * (3 + 2)
    assert write_synthetic_city(str(root), **arguments) == root
    assert snapshot(root) == before


def test_an_interrupted_call_is_taken_up(tmp_path: Path):
    arguments = {'num_train': 2, 'num_val': 1, 'size': (64, 128)}
    root = write_synthetic_city(tmp_path, **arguments)
    before = snapshot(root)
    for path in (root / 'gtFine').glob('train/*/*.png'):
        path.unlink()
    write_synthetic_city(root, **arguments)
    after = snapshot(root)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }


@pytest.mark.parametrize('change', [{'num_train': 2}, {'size': (64, 130)}, {'seed': 1}])
def test_other_parameters_are_refused(tmp_path: Path, change: dict):
    arguments = {'num_train': 1, 'num_val': 1, 'size': (64, 128), 'seed': 0}
    write_synthetic_city(tmp_path, **arguments)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match='delete the folder or choose another') as error:
        write_synthetic_city(tmp_path, **{**arguments, **change})
    assert str(tmp_path) in str(error.value)
    assert snapshot(tmp_path) == before


def test_another_data_set_is_left_alone(tmp_path: Path):
    (tmp_path / 'leftImg8bit').mkdir()
    with pytest.raises(ValueError, match='holds something else') as error:
        write_synthetic_city(tmp_path, 1, 1)
    assert str(tmp_path) in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ['leftImg8bit']
    file = tmp_path / 'file'
    file.write_text('')
    with pytest.raises(ValueError, match='is a file'):
        write_synthetic_city(file, 1, 1)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'num_train': 0}, 'num_train must be at least 1, got 0'),
        ({'num_val': -2}, 'num_val must be at least 1, got -2'),
        ({'size': (8, 256)}, 'size H must lie between 32 and 1024, got 8'),
        ({'seed': -1}, 'seed must not be negative, got -1'),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        write_synthetic_city(tmp_path / 'city', **wrong)
    assert not (tmp_path / 'city').exists()


OPTIONS = ['--num-train', '2', '--num-val', '1', '--size', '64', '128', '--seed', '3']


def test_command_line(tmp_path: Path):
    root = tmp_path / 'city'
    command = [sys.executable, '-m', 'mmseg_adm.datasets.synthetic_city', str(root), *OPTIONS]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=PACKAGE.parents[1], check=False
    )
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[-1]  # mmseg may announce what it could not import
    assert line == f'2 training and 1 validation images of 64x128 in {root}'
    assert len(list(root.rglob('*.png'))) == 6


def test_command_line_explains_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / 'notes.txt').write_text('mine')
    monkeypatch.setattr(sys, 'argv', ['synthetic_city', str(tmp_path), *OPTIONS])
    with pytest.raises(SystemExit) as refusal:
        main()
    assert refusal.value.code == 2
    assert 'holds something else than a synthetic city' in capsys.readouterr().err
