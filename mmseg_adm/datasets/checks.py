"""What is wrong with a data set, said before training starts."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio import list_dir_or_file
from mmengine.registry import TRANSFORMS
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_adm.config.registered import class_of

# What each data set looks like below its root; others follow BaseSegDataset.
LAYOUTS = {
    'CityscapesDataset': (
        'leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png and '
        'gtFine/{train,val}/CITY/NAME_gtFine_labelTrainIds.png'
    ),
    'ADE20KDataset': (
        'images/{training,validation}/NAME.jpg and annotations/{training,validation}/NAME.png'
    ),
    'mmseg_adm.CamVidDataset': 'images/{train,val}/NAME.jpg and annotations/{train,val}/NAME.png',
}
# Of files that look like images.
IMAGE_ENDINGS = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
# Of images whose pixels are bytes, as Pillow calls them; mmseg makes bytes of all others.
BYTE_MODES = ('1', 'L', 'P', 'LA', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV')
# The transforms that load what a prefix names, by the beginning of their names.
LOADERS = {'img_path': 'LoadImage', 'seg_map_path': 'LoadAnnotations'}
# How many files a message names.
NAMED = 3
# The variables that the shipped configs take the roots from.
ROOT_VARIABLES = {
    'CityscapesDataset': 'CITYSCAPES_ROOT (SYNTHETIC_CITY_ROOT for the drawn set)',
    'ADE20KDataset': 'ADE20K_ROOT',
    'mmseg_adm.CamVidDataset': 'CAMVID_ROOT',
}


# Pixels along a side; less is what a broken conversion leaves.
SMALLEST = 8


class LabelMaps(NamedTuple):
    """What the label maps of a data set hold.

    Attributes:
        read: How many.
        complete: Whether these are all that there are.
        absent: The classes that occur in none of them.
        only: The class that all labeled pixels are of; '' if there are several, or one in all.
        hint: What to do about it, where that can be told.
    """

    read: int
    complete: bool = True
    absent: tuple[str, ...] = ()
    only: str = ''
    hint: str = ''

    def __str__(self) -> str:
        if self.only:
            return f"every labeled pixel of {self.read} label maps is '{self.only}'{self.hint}"
        if self.absent:
            return f'{_first(self.absent)} never occur in {self.read} label maps'
        return ''


def check_data_paths(config: Config, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """Check that the data of a run are where its config says.

    Args:
        config: A full config with ``<split>_dataloader``.
        splits: Which of them are looked at.

    Raises:
        FileNotFoundError: If a root, a folder or an index file is missing, or a folder holds
            no image; the message names the path and the layout.
    """
    for split in splits:
        loader = config.get(f'{split}_dataloader')
        if loader:
            for dataset in _inner_configs(loader['dataset']):
                check_dataset_paths(dataset, split)


def _inner_configs(dataset: Mapping) -> Iterator[Mapping]:
    """The configs of the data sets inside wrappers (streams, repetitions, concatenations)."""
    inner = [dataset.get('dataset'), *(dataset.get('datasets') or [])]
    wrapped = [each for each in inner if isinstance(each, Mapping)]
    for each in wrapped:
        yield from _inner_configs(each)
    if not wrapped:
        yield dataset


def check_dataset_paths(dataset: Mapping, split: str) -> None:
    """Check the folders of one data set config of the ``BaseSegDataset`` kind.

    Nothing is looked for in another backend than the local disk, and nothing for a class that finds
    its files in a way of its own.
    """
    prefix = dataset.get('data_prefix') or {}
    root = Path(dataset.get('data_root') or '.')
    if (
        'img_path' not in prefix
        or not _on_disk(dataset, root)
        or getattr(_kind(dataset), 'load_data_list', None) is not BaseSegDataset.load_data_list
    ):
        return
    annotation_file = dataset.get('ann_file')
    if annotation_file and not (root / annotation_file).exists():
        problem = f'the list {(root / annotation_file).absolute()} does not exist'
        raise FileNotFoundError(_explain(dataset, split, problem))
    folders = {key: root / prefix[key] for key in _read_prefixes(dataset)}
    for folder in folders.values():
        if not folder.is_dir():
            missing = folder if root.is_dir() else root
            raise FileNotFoundError(
                _explain(dataset, split, f'{missing.absolute()} does not exist')
            )
    endings = _endings(dataset) if folders else {}
    for key, ending in endings.items():
        # As mmseg lists them, through links too.
        if key in folders and not any(list_dir_or_file(folders[key], False, True, ending, True)):
            problem = f'{folders[key].absolute()} holds no file that ends in {ending}'
            raise FileNotFoundError(_explain(dataset, split, problem))


def _kind(dataset: Mapping) -> Any:
    kind = class_of(dataset['type'], DATASETS)
    if kind is None:
        raise ValueError(f"the data set type '{dataset['type']}' is not registered")
    return kind


def _on_disk(settings: Any, path: Any) -> bool:
    """Whether MMEngine reads a path from the local disk, by what a data set or transform says."""
    get = settings.get if isinstance(settings, Mapping) else partial(getattr, settings)
    arguments = get('backend_args', None) or get('file_client_args', None) or {}
    return arguments.get('backend', 'local') == 'local' and ':/' not in str(path)


def _read_prefixes(dataset: Mapping) -> Iterator[str]:
    """Keys of ``data_prefix`` whose folders the pipeline reads, and reads from the local disk."""
    loaders = {}
    for step in dataset.get('pipeline') or []:
        name = getattr(class_of(step.get('type'), TRANSFORMS), '__name__', '')
        loaders.update({kind: step for kind in LOADERS.values() if name.startswith(kind)})
    for key, kind in LOADERS.items():
        folder = dataset['data_prefix'].get(key)
        # Labels that nobody loads need not be there.
        step = loaders.get(kind, {} if key == 'img_path' else None)
        if folder is not None and step is not None and _on_disk(step, folder):
            yield key


def _endings(dataset: Mapping) -> dict[str, str]:
    """Endings of images and label maps, of the built data set: its class may fix them."""
    try:
        built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=True))
    except Exception:  # whatever it is, the run says so, where it builds the data set
        return {}
    return {'img_path': built.img_suffix, 'seg_map_path': built.seg_map_suffix}


def _explain(dataset: Mapping, split: str, problem: str) -> str:
    kind = getattr(dataset['type'], '__name__', dataset['type'])
    layout = LAYOUTS.get(kind, 'the folders that data_prefix names')
    variable = ROOT_VARIABLES.get(kind)
    how = f'set the environment variable {variable}, or data_root' if variable else 'set data_root'
    return (
        f'{split} data ({kind}): {problem}. Expected below the root: {layout}. If the data lie '
        f'elsewhere, {how}'
    )


def check_classes(model: Any, dataset: BaseDataset) -> None:
    """Check that every network predicts as many classes as the data set has.

    Raises:
        ValueError: With both counts.
    """
    expected = len(dataset.metainfo['classes'])
    networks = {name: model.network(name) for name in model.member_names} if hasattr(
        model, 'member_names') else {'the model': model}  # fmt: skip
    for name, network in networks.items():
        found = getattr(network, 'num_classes', expected)
        if found != expected:
            raise ValueError(
                f"'{name}' predicts {found} classes, but {type(dataset).__name__} has {expected}: "
                'set decode_head.num_classes and auxiliary_head.num_classes'
            )


def plain_datasets(dataset: Any) -> list[BaseDataset]:
    """The data sets inside wrappers (streams, repetitions, concatenations)."""
    inner = getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    if inner is None:
        return [dataset] if hasattr(dataset, 'pipeline') else []
    return [found for each in (inner if isinstance(inner, (list, tuple)) else [inner])
            for found in plain_datasets(each)]  # fmt: skip


def check_images(dataset: BaseDataset, max_samples: int) -> None:
    """Decode images and their label maps as training would.

    Args:
        dataset: Of the ``BaseSegDataset`` kind.
        max_samples: How many, evenly spread over the set.

    Raises:
        ValueError: If a file cannot be decoded, or an image is no picture, differs in size from
            its labels, or in its number of channels from the others.
        FileNotFoundError: If a file is missing.
    """
    load_image, load_labels = _loader(dataset, 'LoadImage'), _loader(dataset, 'LoadAnnotations')
    first: dict[int, str] = {}
    for info in _spread_infos(dataset, max_samples):
        if load_image is None:
            return
        image = _loaded(load_image, info, 'img_path')['img']
        # One channel is spread over the three of a preprocessor's mean.
        if image.ndim == 3 and image.shape[2] > 1:
            first.setdefault(image.shape[2], info['img_path'])
        if len(first) > 1:
            found = ' and '.join(f'{path} has {count}' for count, path in first.items())
            raise ValueError(
                f'images differ in their number of channels: {found}. A batch takes one: convert '
                "them, or have them loaded alike (LoadImageFromFile, color_type='color')"
            )
        height, width = image.shape[:2]
        if min(height, width) < SMALLEST:
            raise ValueError(f'{info["img_path"]} is {height}x{width} pixels: no picture')
        if load_labels is None or not info.get('seg_map_path'):
            continue
        labels = _label_map(load_labels, info)
        if labels.shape[:2] != image.shape[:2]:
            sizes = [f'{height}x{width}' for height, width in (labels.shape[:2], image.shape[:2])]
            raise ValueError(
                f'{info["seg_map_path"]} is {sizes[0]}, but its image {info["img_path"]} {sizes[1]}'
            )


def check_labels(dataset: BaseDataset, max_samples: int) -> LabelMaps:
    """Read label maps as training would, and check their values.

    Args:
        dataset: Of the ``BaseSegDataset`` kind.
        max_samples: How many maps, evenly spread over the set.

    Raises:
        ValueError: If a map cannot be decoded, has several channels, or holds a value that is
            neither a class nor ignored or that is no byte; with its file. If no map holds a label
            at all.
        FileNotFoundError: If a map is missing.
    """
    load = _loader(dataset, 'LoadAnnotations')
    count = 0 if load is None else min(max_samples, len(dataset))
    seen: set[int] = set()
    for info in _spread_infos(dataset, count):
        path = info.get('seg_map_path')
        values = np.unique(_label_map(load, info))
        _check_bytes(path)
        _check_range(dataset, path, values)
        seen.update(values.tolist())
    return _summary(dataset, count, seen) if seen else LabelMaps(0)


def check_variety(found: Sequence[LabelMaps]) -> None:
    """Refuse to train on maps whose labeled pixels are all of one class.

    Args:
        found: Of each data set that is trained on.

    Raises:
        ValueError: If all maps were read, and all are so.
    """
    only = {maps.only for maps in found}
    if len(only) == 1 and all(maps.only and maps.complete for maps in found):
        raise ValueError(f'{found[0]}: there is nothing to tell apart')


def _check_range(dataset: BaseDataset, path: str | None, values: np.ndarray) -> None:
    count = len(dataset.metainfo['classes'])
    wrong = values[(values >= count) & (values != dataset.ignore_index)]
    if wrong.size:
        # As the values stand in the file, where 0 may mean "not labeled".
        first = int(bool(dataset.reduce_zero_label))
        hint = ''
        if not first and wrong.tolist() == [count]:
            hint = '. If 0 means "not labeled" in these maps, set reduce_zero_label=True'
        raise ValueError(
            f'{path} holds the label {int(wrong[0]) + first}, but {type(dataset).__name__} '
            f'has classes {first} to {count - 1 + first} and ignores {dataset.ignore_index}{hint}'
        )


def _summary(dataset: BaseDataset, count: int, seen: set[int]) -> LabelMaps:
    """What ``count`` maps hold whose values are ``seen``.

    Raises:
        ValueError: If no pixel of them is labeled.
    """
    classes, ignored = list(dataset.metainfo['classes']), dataset.ignore_index
    labels = seen - {ignored}
    if not labels:
        raise ValueError(
            f'none of the {count} label maps that were read holds a label, such as '
            f'{dataset.get_data_info(0)["seg_map_path"]}: every pixel is {ignored}, which is '
            'ignored. Nothing would be learnt'
        )
    absent = tuple(name for index, name in enumerate(classes) if index not in labels)
    only = classes[labels.pop()] if absent and len(labels) == 1 else ''
    hint = ''
    if only and ignored in seen:
        hint = f', and all others are {ignored}, which is ignored. If that stands for a class, '
        hint += "write the class's index in its place"
    return LabelMaps(count, count == len(dataset), absent, only, hint)


def _check_bytes(path: str | None) -> None:
    """Refuse values that mmseg would cut to their low byte."""
    try:
        with Image.open(path) as image:  # type: ignore[arg-type]
            if image.mode in BYTE_MODES:
                return
            values = np.asarray(image)
    except (OSError, AttributeError):  # a format that is not Pillow's, or no file: its loader's
        return
    cut = values[values != values.astype(np.uint8)]
    if cut.size:
        raise ValueError(
            f'{path} holds the value {cut.flat[0]}, which would be cut to its low byte, '
            f'{cut.astype(np.uint8).flat[0]}: label maps have 8 bits, the index of a class or '
            'what is ignored'
        )


def left_out(dataset: BaseDataset) -> str:
    """What lies among the images and looks like one, but is none to the data set; else ''.

    That are files with another ending, also another case of it, broken links, and folders that
    are named like an image. Where a list names the images, nothing is looked for.
    """
    folder, ending = dataset.data_prefix.get('img_path'), getattr(dataset, 'img_suffix', None)
    listed = dataset.ann_file and not Path(dataset.ann_file).is_dir()
    if listed or not isinstance(ending, str) or not Path(folder or '').is_dir():
        return ''
    found = defaultdict(list)
    for place, folders, files in os.walk(folder, followlinks=True):
        for path in (Path(place, name) for name in (*folders, *files)):
            reason = _reason_to_leave_out(path, ending)
            if reason and not _is_label(dataset, path):
                found[reason].append(path.name)
    reasons = [f'{_first(sorted(names))} ({reason})' for reason, names in found.items()]
    return f'left out in {folder}: {"; ".join(reasons)}' if reasons else ''


def _reason_to_leave_out(path: Path, ending: str) -> str:
    """Why what looks like an image that ends so is none; '' if it does not, or is one."""
    if path.is_dir():
        return 'a folder, named like an image' if path.name.endswith(ending) else ''
    if path.name.endswith(ending):
        return '' if path.exists() else 'a broken link'
    # The part before the extension, as in _leftImg8bit.png, must be the same.
    same = path.stem.lower().endswith(Path(f'x{ending}').stem[1:].lower())
    looks = path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith('.')
    return f'not ending in {ending}' if same and looks else ''


def _is_label(dataset: Any, path: Path) -> bool:
    labels = dataset.data_prefix.get('seg_map_path')
    ending = getattr(dataset, 'seg_map_suffix', None) or ''
    return bool(labels) and path.name.endswith(ending) and path.is_relative_to(labels)


def _first(names: Sequence[str]) -> str:
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return ', '.join(names[:NAMED]) + more


def _spread_infos(dataset: BaseDataset, max_samples: int) -> Iterator[dict]:
    count = min(max_samples, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, count).astype(int):
        yield dataset.get_data_info(int(index))


def _loader(dataset: BaseDataset, kind: str) -> Any:
    """The first transform of the pipeline whose name begins with ``kind``."""
    transforms = dataset.pipeline.transforms
    return next((step for step in transforms if type(step).__name__.startswith(kind)), None)


def _label_map(load: Any, info: dict) -> np.ndarray:
    path = info.get('seg_map_path')
    labels = _loaded(load, info, 'seg_map_path')['gt_seg_map']
    if labels.ndim != 2:
        hint = ''
        if _mode(path) == 'P':
            hint = ". It has a palette: LoadAnnotations(imdecode_backend='pillow') reads indices"
        raise ValueError(
            f'{path} has {labels.shape[-1]} channels, like a picture: a label map has one, with '
            f'the index of the class in each pixel{hint}'
        )
    return labels


def _mode(path: str | None) -> str:
    """Of a picture, as Pillow calls it; '' where it cannot tell."""
    try:
        with Image.open(path) as image:  # type: ignore[arg-type]
            return image.mode
    except (OSError, AttributeError):
        return ''


def _loaded(load: Any, info: dict, key: str) -> dict:
    path = info.get(key)
    if path and _on_disk(load, path) and not Path(path).is_file():
        kind = 'label map' if key == 'seg_map_path' else 'image'
        of = f' for the image {info["img_path"]}' if kind == 'label map' else ''
        raise FileNotFoundError(f'no {kind} {path}{of}')
    try:
        return load(info)
    except (AssertionError, ValueError) as error:
        reason = str(error)
    except (AttributeError, OSError, cv2.error):
        reason = ''
    # mmcv gets None for a file that it cannot decode: it says so, or stumbles over it.
    if not reason or reason.startswith('failed to load image'):
        raise ValueError(f'{path} cannot be decoded: copy or download it again')
    raise ValueError(f'{path}: {reason}')
