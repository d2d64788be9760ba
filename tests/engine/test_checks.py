import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from factory import ROOT, build, demo_config, segmentor
from mmengine.config import Config
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmseg_adm.datasets.checks import (
    check_classes,
    check_data_paths,
    check_images,
    check_labels,
    check_variety,
    left_out,
)

CONFIGS = ROOT / 'configs/_base_/datasets'
SUFFIXES = {'ade': ('training', 'validation'), 'camvid': ('train', 'val')}


def draw(folder, kind, values=(0, 1, 2)):
    """A tiny data set in the layout of ADE20K or CamVid."""
    for split in SUFFIXES[kind]:
        for index, value in enumerate(values):
            label = np.full((8, 12), value, dtype=np.uint8)
            for part, content, suffix in (
                ('images', np.zeros((8, 12, 3), np.uint8), 'jpg'),
                ('annotations', label, 'png'),
            ):
                path = folder / part / split / f'{index}.{suffix}'
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), content)
    return folder


def data_config(name, root):
    config = Config.fromfile(CONFIGS / name)
    config.train_dataloader.dataset.dataset.data_root = str(root)
    config.val_dataloader.dataset.data_root = str(root)
    return config


@pytest.fixture
def copied(city, tmp_path):
    return Path(shutil.copytree(city, tmp_path / 'city'))


def labels_of(root, split):
    return sorted((root / 'gtFine' / split).rglob('*_gtFine_labelTrainIds.png'))


# --------------------------------------------------------------------------- the folders


def test_data_that_are_there(city, tmp_path):
    check_data_paths(data_config('cityscapes_512x1024.py', city))
    check_data_paths(data_config('ade20k_512x512.py', draw(tmp_path / 'ade', 'ade')))
    check_data_paths(data_config('camvid_96x128.py', draw(tmp_path / 'camvid', 'camvid')))


@pytest.mark.parametrize(
    ('name', 'kind', 'layout', 'variable'),
    [
        ('cityscapes_512x1024.py', 'CityscapesDataset', 'gtFine/{train,val}/CITY', 'CITYSCAPES'),
        ('ade20k_512x512.py', 'ADE20KDataset', 'images/{training,validation}/NAME.jpg', 'ADE20K'),
        ('camvid_360x480.py', 'mmseg_adm.CamVidDataset', 'images/{train,val}/NAME.jpg', 'CAMVID'),
    ],
)
def test_a_missing_root(name, kind, layout, variable, tmp_path):
    root = tmp_path / 'nowhere'
    with pytest.raises(FileNotFoundError) as caught:
        check_data_paths(data_config(name, root))
    text = str(caught.value)
    assert text.startswith(f'train data ({kind}): {root} does not exist. Expected below the root:')
    assert layout in text
    assert f'set the environment variable {variable}_ROOT' in text
    assert text.endswith(', or data_root')


def test_a_relative_root_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/data/nowhere does not exist'):
        check_data_paths(data_config('camvid_96x128.py', 'data/nowhere'))


def test_a_missing_synthetic_city(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        check_data_paths(data_config('synthetic_city_96x128.py', tmp_path / 'nowhere'))
    assert 'SYNTHETIC_CITY_ROOT' in str(caught.value)


def test_an_unknown_kind_of_data_set(tmp_path):
    prefix = dict(img_path='images', seg_map_path='labels')
    dataset = dict(type='BaseSegDataset', data_root=str(tmp_path / 'mine'), data_prefix=prefix)
    with pytest.raises(FileNotFoundError, match=r'folders that data_prefix names.*set data_root$'):
        check_data_paths(Config(dict(train_dataloader=dict(dataset=dataset))))


@pytest.mark.parametrize('part', ['images', 'annotations'])
def test_a_missing_folder(part, tmp_path):
    root = draw(tmp_path, 'camvid')
    shutil.rmtree(root / part / 'val')
    text = rf'val data \(mmseg_adm.CamVidDataset\): {root}/{part}/val does not exist.*CAMVID_ROOT'
    with pytest.raises(FileNotFoundError, match=text):
        check_data_paths(data_config('camvid_96x128.py', root))
    check_data_paths(data_config('camvid_96x128.py', root), splits=('train',))


@pytest.mark.parametrize(('part', 'ending'), [('images', '.jpg'), ('annotations', '.png')])
def test_an_empty_split(part, ending, tmp_path):
    root = draw(tmp_path, 'camvid')
    for path in (root / part / 'train').iterdir():
        path.unlink()
    text = rf'train data .*: {root}/{part}/train holds no file that ends in \{ending}\. Expected'
    with pytest.raises(FileNotFoundError, match=text):
        check_data_paths(data_config('camvid_96x128.py', root))


def test_another_ending(copied):
    for path in labels_of(copied, 'train'):
        path.rename(path.with_name(path.name.replace('labelTrainIds', 'labelIds')))
    with pytest.raises(FileNotFoundError, match=r'ends in _gtFine_labelTrainIds\.png'):
        check_data_paths(data_config('cityscapes_512x1024.py', copied))
    config = data_config('cityscapes_512x1024.py', copied)
    config.train_dataloader.dataset.dataset.seg_map_suffix = '_gtFine_labelIds.png'
    check_data_paths(config)


def test_a_missing_list(tmp_path):
    root = draw(tmp_path, 'camvid')
    config = data_config('camvid_96x128.py', root)
    config.train_dataloader.dataset.dataset.ann_file = 'lists/train.txt'
    text = rf'train data .*: the list {root}/lists/train\.txt does not exist'
    with pytest.raises(FileNotFoundError, match=text):
        check_data_paths(config)
    (root / 'lists').mkdir()
    (root / 'lists/train.txt').write_text('0\n')
    check_data_paths(config)


def test_a_missing_folder_inside_wrappers(tmp_path):
    root = draw(tmp_path, 'camvid')
    config = data_config('camvid_96x128.py', root)
    inner = config.train_dataloader.dataset.dataset
    lost = dict(inner, data_prefix=dict(img_path='images/lost'))
    for wrapped in (dict(type='RepeatDataset', times=2, dataset=lost),
                    dict(type='ConcatDataset', datasets=[inner, lost])):  # fmt: skip
        config.train_dataloader.dataset.dataset = wrapped
        with pytest.raises(FileNotFoundError, match=rf'{root}/images/lost does not exist'):
            check_data_paths(config)


@DATASETS.register_module(force=True)
class TutorialDataset(BaseSegDataset):
    """As mmseg's manual writes one: the class knows how its files end."""

    METAINFO = dict(classes=('a', 'b', 'c'), palette=[[0, 0, 0], [1, 1, 1], [2, 2, 2]])  # noqa: RUF012

    def __init__(self, **options):
        super().__init__(img_suffix='.png', seg_map_suffix='.png', **options)


@DATASETS.register_module(force=True)
class IndexDataset(TutorialDataset):
    """Finds its files in a way of its own."""

    def load_data_list(self):
        common = dict(label_map=None, reduce_zero_label=False, seg_fields=[])
        folder = Path(self.data_root) / 'annotations' / 'train'
        return [dict(common, img_path=str(path), seg_map_path=str(path))
                for path in sorted(folder.iterdir())]  # fmt: skip


LOADS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]


def loader_of(root, kind, split='train', labels='annotations/train', pipeline=LOADS, **options):
    prefix = dict(img_path='annotations/train', seg_map_path=labels)
    dataset = dict(type=kind, data_root=str(root), data_prefix=prefix, pipeline=pipeline)
    return Config({f'{split}_dataloader': dict(dataset=dataset | options)})


@pytest.mark.core
@pytest.mark.parametrize('kind', ['TutorialDataset', TutorialDataset, 'REFUGEDataset'])
def test_a_class_that_knows_how_its_files_end_is_asked(kind, tmp_path):
    root = draw(tmp_path, 'camvid')
    check_data_paths(loader_of(root, kind))
    (root / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=rf'{root}/empty holds no file that ends in \.png'):
        check_data_paths(loader_of(root, kind, labels='empty'))


@pytest.mark.core
def test_a_class_that_finds_its_files_itself_is_let(tmp_path):
    root = draw(tmp_path, 'camvid')
    config = loader_of(root, 'IndexDataset', labels='no such folder', ann_file='a table')
    check_data_paths(config)
    assert len(DATASETS.build(config.train_dataloader.dataset)) == 3


def test_linked_folders_are_followed(tmp_path):
    root = draw(tmp_path / 'elsewhere', 'camvid')
    (tmp_path / 'data/annotations/train').mkdir(parents=True)
    (tmp_path / 'data/annotations/train/city').symlink_to(root / 'annotations/train')
    config = loader_of(tmp_path / 'data', 'TutorialDataset')
    check_data_paths(config)
    assert len(DATASETS.build(config.train_dataloader.dataset)) == 3


def test_labels_that_nobody_loads_need_not_be_there(tmp_path):
    root = draw(tmp_path, 'camvid')
    options = dict(split='test', labels='nowhere')
    check_data_paths(loader_of(root, 'TutorialDataset', pipeline=LOADS[:1], **options), ('test',))
    with pytest.raises(FileNotFoundError, match=f'{root}/nowhere does not exist'):
        check_data_paths(loader_of(root, 'TutorialDataset', **options), ('test',))


def test_a_root_that_no_path_needs_need_not_be_there(tmp_path):
    root = draw(tmp_path, 'camvid')
    config = loader_of('/nowhere', 'TutorialDataset')
    folder = str(root / 'annotations/train')
    config.train_dataloader.dataset.data_prefix = dict(img_path=folder, seg_map_path=folder)
    config.train_dataloader.dataset.ann_file = str(root / 'annotations')
    check_data_paths(config)


@register_backend('bytes_of_tests', force=True)
class BytesBackend(BaseStorageBackend):
    """Images and labels by key, as LMDB holds them."""

    def get(self, filepath):
        size = (8, 12) if '/label/' in str(filepath) else (8, 12, 3)
        value = np.full(size, 2, np.uint8)
        return cv2.imencode('.png', value)[1].tobytes()

    def get_text(self, filepath):
        raise NotImplementedError


@pytest.mark.core
def test_data_in_another_backend_are_read_from_there(tmp_path):
    (tmp_path / 'list.txt').write_text('one\nother\n')
    pipeline = [dict(step, backend_args=dict(backend='bytes_of_tests')) for step in LOADS]
    config = loader_of(
        tmp_path, 'TutorialDataset', ann_file='list.txt', pipeline=pipeline,
        data_prefix=dict(img_path='image', seg_map_path='label'),
    )  # fmt: skip
    check_data_paths(config)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    check_images(dataset, 2)
    check_labels(dataset, 2)
    config.train_dataloader.dataset.ann_file = 'lost.txt'
    with pytest.raises(FileNotFoundError, match=f'the list {tmp_path}/lost.txt does not exist'):
        check_data_paths(config)


@pytest.mark.parametrize(
    'options',
    [
        dict(data_root='s3://bucket/data'),
        dict(data_prefix=dict(img_path='s3://bucket/images', seg_map_path='s3://bucket/labels')),
        dict(backend_args=dict(backend='petrel')),
        dict(pipeline=[dict(step, file_client_args=dict(backend='memcached')) for step in LOADS]),
    ],
)
def test_nothing_is_looked_for_on_the_disk_that_lies_elsewhere(options):
    check_data_paths(loader_of('/nowhere', 'TutorialDataset', **options))


# ------------------------------------------------------------------- labels and classes


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_label_outside_the_classes_stops_the_run(split, copied, tmp_path):
    path = labels_of(copied, split)[1]
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    label[3, 5] = 40
    cv2.imwrite(str(path), label)
    # Nothing says that 0 stands for "not labeled".
    text = f'{path} holds the label 40, but CityscapesDataset has classes 0 to 18 and ignores 255$'
    with pytest.raises(ValueError, match=text):
        Runner.from_cfg(demo_config(copied, tmp_path / 'run')).train()


def test_a_missing_label_map_stops_the_run(copied, tmp_path):
    path = labels_of(copied, 'train')[0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f'no label map {path} for the image .*_leftImg8b'):
        Runner.from_cfg(demo_config(copied, tmp_path / 'run')).train()


@pytest.mark.parametrize('member', ['student', 'teacher'])
def test_other_classes_than_the_data_set_stop_the_run(member, city, tmp_path):
    config = demo_config(city, tmp_path)
    config.model.student = member
    for network in config.model.members.values():
        network.decode_head.num_classes = 7
    text = f"'{member}' predicts 7 classes, but CityscapesDataset has 19: set decode_head.num_cl"
    with pytest.raises(ValueError, match=text):
        Runner.from_cfg(config).train()


def test_a_plain_segmentor_is_checked_too(city):
    dataset = DATASETS.build(demo_config(city, '').val_dataloader.dataset)
    with pytest.raises(ValueError, match="'the model' predicts 5 classes, but Cityscapes"):
        check_classes(build(segmentor()), dataset)
    check_classes(build(segmentor(classes=19)), dataset)


def test_a_run_without_validation(city, tmp_path):
    config = demo_config(
        city, tmp_path, iters=1, val_cfg=None, val_dataloader=None, val_evaluator=None,
        default_hooks__checkpoint__save_best=None,
    )  # fmt: skip
    Runner.from_cfg(config).train()
    assert (tmp_path / 'student_iter_1.pth').is_file()


@pytest.mark.parametrize('kind', ['RepeatDataset', 'ConcatDataset'])
def test_a_run_on_wrapped_data_sets(kind, city, tmp_path):
    config = demo_config(city, tmp_path, iters=1, train_cfg__val_begin=1000)
    stream = config.train_dataloader.dataset
    if kind == 'RepeatDataset':
        stream.dataset = dict(type=kind, times=2, dataset=stream.dataset)
    else:
        stream.dataset = dict(type=kind, datasets=[stream.dataset] * 2)
    Runner.from_cfg(config).train()


def small_dataset(root, kind, classes, reduce_zero_label=False):
    load = dict(type='LoadAnnotations', reduce_zero_label=reduce_zero_label)
    return BaseSegDataset(
        data_root=str(root),
        data_prefix=dict(
            img_path=f'images/{SUFFIXES[kind][0]}', seg_map_path=f'annotations/{SUFFIXES[kind][0]}'
        ),
        metainfo=dict(classes=[str(index) for index in range(classes)]),
        reduce_zero_label=reduce_zero_label,
        pipeline=[dict(type='LoadImageFromFile'), load],
    )


def test_zero_that_means_not_labeled(tmp_path):
    root = draw(tmp_path, 'ade', values=(0, 1, 3))
    check_labels(small_dataset(root, 'ade', classes=3, reduce_zero_label=True), 10)
    text = r'2\.png holds the label 3, .* set reduce_zero_label=True'
    with pytest.raises(ValueError, match=text):
        check_labels(small_dataset(root, 'ade', classes=3), 10)


def test_a_label_outside_the_reduced_classes(tmp_path):
    root = draw(tmp_path, 'ade', values=(0, 5, 3))
    with pytest.raises(ValueError, match=r'1\.png holds') as caught:
        check_labels(small_dataset(root, 'ade', classes=3, reduce_zero_label=True), 10)
    assert 'reduce_zero_label' not in str(caught.value)


def test_the_label_is_named_as_it_stands_in_the_file(tmp_path):
    root = draw(tmp_path, 'ade', values=(0, 5, 3))
    with pytest.raises(ValueError) as caught:
        check_labels(small_dataset(root, 'ade', classes=3, reduce_zero_label=True), 10)
    assert 'holds the label 5' in str(caught.value)


@pytest.mark.parametrize('channels', [3, 4])
@pytest.mark.parametrize('classes', [2, 200])
def test_labels_that_are_colors_stop_the_run(channels, classes, tmp_path):
    """Grey ones as well, whose values would be classes; never is there advice on values."""
    root = draw(tmp_path, 'camvid')
    path = root / 'annotations/train/1.png'
    cv2.imwrite(str(path), np.full((8, 12, channels), 128, np.uint8))
    text = rf'{path} has {channels} channels, like a picture: a label map has one, with the index '
    for check in (check_labels, check_images):
        with pytest.raises(ValueError, match=text) as caught:
            check(small_dataset(root, 'camvid', classes=max(classes, 3)), 10)
        assert 'reduce_zero_label' not in str(caught.value)


def test_a_palette_that_is_read_as_colors(tmp_path):
    root = draw(tmp_path, 'camvid')
    for path in (root / 'annotations/train').iterdir():
        image = Image.fromarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)).convert('P')
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        image.save(path)
    dataset = small_dataset(root, 'camvid', classes=3)
    assert check_labels(dataset, 10).absent == ()
    dataset.pipeline.transforms[1].imdecode_backend = 'cv2'
    text = r"3 channels, .* It has a palette: LoadAnnotations\(imdecode_backend='pillow'\) reads"
    with pytest.raises(ValueError, match=text):
        check_labels(dataset, 10)


# ----------------------------------------------------------------- classes that never occur


def test_classes_that_never_occur_are_named(tmp_path):
    dataset = small_dataset(draw(tmp_path, 'camvid', values=(0, 2, 2)), 'camvid', classes=6)
    found = check_labels(dataset, 10)
    assert (found.read, found.complete, found.only) == (3, True, '')
    assert found.absent == ('1', '3', '4', '5')
    assert str(found) == '1, 3, 4 and 1 more never occur in 3 label maps'
    check_variety([found])
    assert str(check_labels(small_dataset(tmp_path, 'camvid', classes=3), 0)) == ''


def write_masks(root, split, foreground):
    """Masks of a defect on nothing, in the values that image editors write."""
    mask = np.zeros((8, 12), np.uint8)
    mask[2:5, 3:9] = foreground
    for path in (root / 'annotations' / split).iterdir():
        cv2.imwrite(str(path), mask)


def test_masks_whose_foreground_is_what_is_ignored(tmp_path):
    root = draw(tmp_path, 'camvid')
    write_masks(root, 'train', 255)
    found = check_labels(small_dataset(root, 'camvid', classes=2), 10)
    text = (
        "every labeled pixel of 3 label maps is '0', and all others are 255, which is ignored. If "
        "that stands for a class, write the class's index in its place"
    )
    assert str(found) == text
    with pytest.raises(ValueError, match=re.escape(f'{text}: there is nothing to tell apart')):
        check_variety([found])
    write_masks(root, 'train', 1)
    assert str(check_labels(small_dataset(root, 'camvid', classes=2), 10)) == ''


def test_one_class_alone_is_refused_where_it_is_certain(tmp_path):
    one, other = (draw(tmp_path / name, 'camvid', values=[value] * 3)
                  for name, value in (('one', 0), ('other', 1)))  # fmt: skip
    some = check_labels(small_dataset(one, 'camvid', classes=2), 2)
    assert (some.only, some.complete) == ('0', False)
    check_variety([some])
    everything = [
        check_labels(small_dataset(root, 'camvid', classes=2), 9) for root in (one, other)
    ]
    check_variety(everything)
    with pytest.raises(ValueError, match="every labeled pixel of 3 label maps is '1': there is"):
        check_variety(everything[1:])
    # There is nothing to tell apart either where there is but one class.
    check_variety([check_labels(small_dataset(one, 'camvid', classes=1), 9)])


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_training_says_which_classes_never_occur(split, copied, tmp_path):
    paths = labels_of(copied, split)
    write_labels(copied, split, [4] * len(paths))
    runner = Runner.from_cfg(demo_config(copied, tmp_path, iters=1, train_cfg__val_begin=1000))
    text = f"every labeled pixel of {len(paths)} label maps is 'fence'"
    if split == 'train':
        with pytest.raises(ValueError, match=text):
            runner.train()
    else:
        runner.train()
        (log,) = tmp_path.glob('*/*.log')
        assert f'WARNING - Labels of the validation set: {text}' in log.read_text()


def test_ignored_labels_pass(tmp_path):
    root = draw(tmp_path, 'camvid', values=(0, 1, 255))
    check_labels(small_dataset(root, 'camvid', classes=2), 10)


@pytest.mark.parametrize(('max_samples', 'found'), [(0, False), (1, False), (2, True), (9, True)])
def test_maps_are_read_evenly_spread(max_samples, found, tmp_path):
    # Ten maps, only the last of them wrong.
    root = draw(tmp_path, 'camvid', values=(0,) * 9 + (7,))
    dataset = small_dataset(root, 'camvid', classes=2)
    if found:
        with pytest.raises(ValueError, match=r'9\.png holds the label 7'):
            check_labels(dataset, max_samples)
    else:
        check_labels(dataset, max_samples)


def write_labels(root, split, values, dtype=np.uint8):
    """Replace every label map of a split by one value."""
    for path, value in zip(labels_of(root, split), values, strict=False):
        shape = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape
        cv2.imwrite(str(path), np.full(shape, value, dtype))


def test_labels_that_are_no_bytes_stop_the_run(copied, tmp_path):
    write_labels(copied, 'train', [258], np.uint16)
    text = (
        rf'{labels_of(copied, "train")[0]} holds the value 258, which would be cut to its low '
        'byte, 2: label maps have 8 bits'
    )
    with pytest.raises(ValueError, match=text):
        Runner.from_cfg(demo_config(copied, tmp_path / 'run')).train()


def test_bytes_in_sixteen_bits_are_bytes(copied, tmp_path):
    write_labels(copied, 'train', [2], np.uint16)
    dataset = DATASETS.build(demo_config(copied, '').train_dataloader.dataset.dataset)
    check_labels(dataset, 100)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_labels_that_are_all_ignored_stop_the_run(split, copied, tmp_path):
    paths = labels_of(copied, split)
    write_labels(copied, split, [255] * len(paths))
    text = rf'none of the {len(paths)} label maps that were read holds a label, such as {paths[0]}'
    with pytest.raises(ValueError, match=text):
        Runner.from_cfg(demo_config(copied, tmp_path / 'run')).train()


def test_one_labeled_map_is_enough(copied):
    write_labels(copied, 'train', [255] * (len(labels_of(copied, 'train')) - 1))
    check_labels(DATASETS.build(demo_config(copied, '').train_dataloader.dataset.dataset), 100)


def test_images_that_are_left_out_are_said(tmp_path):
    root = draw(tmp_path, 'ade')
    folder = root / 'images' / 'training'
    dataset = small_dataset(root, 'ade', classes=3)
    assert left_out(dataset) == ''
    for name in ('a.JPG', 'b.jpeg', 'notes.txt', '.hidden.png'):
        (folder / name).write_bytes(b'')
    (folder / 'link.jpg').symlink_to(folder / 'nowhere.jpg')
    (folder / 'named.jpg').mkdir()
    assert len(small_dataset(root, 'ade', classes=3)) == 3, 'mmseg takes none of them'
    text = left_out(dataset)
    assert text.startswith(f'left out in {folder}: ')
    assert set(text.partition(f'{folder}: ')[2].split('; ')) == {
        'a.JPG, b.jpeg (not ending in .jpg)',
        'link.jpg (a broken link)',
        'named.jpg (a folder, named like an image)',
    }


def test_labels_beside_their_images_are_not_left_out(tmp_path):
    root = draw(tmp_path, 'ade')
    dataset = small_dataset(root, 'ade', classes=3)
    for label in (root / 'annotations' / 'training').iterdir():
        shutil.copy(label, root / 'images' / 'training')
    dataset.data_prefix['seg_map_path'] = dataset.data_prefix['img_path']
    assert left_out(dataset) == ''


def test_a_training_says_which_images_are_left_out(copied, tmp_path):
    image = next((copied / 'leftImg8bit' / 'train').rglob('*_leftImg8bit.png'))
    image.with_suffix('.PNG').write_bytes(image.read_bytes())
    Runner.from_cfg(demo_config(copied, tmp_path, iters=1, train_cfg__val_begin=1000)).train()
    (log,) = tmp_path.glob('*/*.log')
    assert f'WARNING - Images left out in {image.parents[1]}: {image.stem}.PNG (not' in (
        log.read_text()
    )
