"""Types as names, classes and paths: one config, whichever way it is written."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from plain_configs import other, pair, plain

from mmseg_adm.config import read_config
from mmseg_adm.config.type_names import with_type_names

pytestmark = pytest.mark.core

PURE = """
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import CheckpointHook, IterTimerHook
from mmengine.optim import AmpOptimWrapper
from mmengine.optim.scheduler import PolyLR
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop
from torch.optim import SGD

from mmseg.datasets import CityscapesDataset
from mmseg.datasets.transforms import RandomCrop
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.models.backbones import ResNetV1c
from mmseg.models.decode_heads import PSPHead
from mmseg.models.losses import CrossEntropyLoss

default_scope = 'mmseg'
model = {model}
train_dataloader = {train_dataloader}
val_dataloader = {val_dataloader}
test_dataloader = {test_dataloader}
val_evaluator = {val_evaluator}
test_evaluator = {test_evaluator}
train_cfg = {train_cfg}
val_cfg = {val_cfg}
test_cfg = {test_cfg}
optim_wrapper = {optim_wrapper}
param_scheduler = {param_scheduler}
default_hooks = {default_hooks}
"""


class Name(str):
    """A text that is written without quotation marks."""

    __slots__ = ()
    __repr__ = str.__str__


def with_classes(node):
    if isinstance(node, dict):
        # A layer of normalization is looked up by a name that no class has.
        return {key: Name(value) if key == 'type' and value != 'BN' else with_classes(value)
                for key, value in node.items()}  # fmt: skip
    return [with_classes(child) for child in node] if isinstance(node, (list, tuple)) else node


@pytest.fixture
def written():
    amp = dict(type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01), loss_scale='dynamic')
    return plain(optim_wrapper=amp)


@pytest.fixture
def pure(written, tmp_path):
    path = tmp_path / 'pure.py'
    path.write_text(PURE.format(**with_classes(written.to_dict())))
    return path


def listed(node):
    """The same without telling tuples from lists."""
    if isinstance(node, dict):
        return {key: listed(value) for key, value in node.items()}
    return [listed(child) for child in node] if isinstance(node, (list, tuple)) else node


def test_a_pure_python_config_is_read_as_the_one_in_text(written, pure):
    config = read_config(pure)
    assert listed(config.to_dict()) == listed(written.to_dict())
    assert config.filename == str(pure)


def test_its_pair_is_that_of_the_one_in_text_and_can_be_read(written, pure, tmp_path):
    paired = pair(str(pure), other())
    assert listed(paired.to_dict()) == listed(pair(written, other()).to_dict())
    # Mixed precision and the exact stream, which were lost.
    assert paired.optim_wrapper.dtype == 'float16'
    assert paired.train_dataloader.sampler.type == 'mmseg_adm.StreamSampler'
    path = tmp_path / 'pair.py'
    paired.dump(path)
    assert listed(read_config(path).to_dict()) == listed(paired.to_dict())


@pytest.mark.parametrize(
    ('given', 'name'),
    [
        ('mmengine.dataset.InfiniteSampler', 'InfiniteSampler'),
        ('mmengine.dataset.sampler.InfiniteSampler', 'InfiniteSampler'),
        ('mmengine.InfiniteSampler', 'InfiniteSampler'),
        (InfiniteSampler, 'InfiniteSampler'),
        ('mmseg.IoUMetric', 'IoUMetric'),
        ('torch.optim.SGD', 'SGD'),
        (torch.optim.SGD, 'SGD'),
        ('mmseg_adm.models.methods.CWD', 'mmseg_adm.CWD'),
        ('mmseg_adm.CWD', 'mmseg_adm.CWD'),
        ('mmseg.datasets.CityscapesDataset', 'CityscapesDataset'),
        # Another class has that name in a config.
        ('torch.nn.ReLU6', 'ReLU6'),
        ('torch.optim.lr_scheduler.StepLR', 'torch.optim.lr_scheduler.StepLR'),
        (torch.optim.lr_scheduler.StepLR, 'torch.optim.lr_scheduler.StepLR'),
        # Whoever builds it says that it is not there.
        ('nowhere.Thing', 'nowhere.Thing'),
        ('BN', 'BN'),
    ],
)
def test_a_type_has_the_name_that_configs_give_it(given, name):
    config = Config(dict(a=[dict(type=given)], b=dict(constructor=given, path='a.b')))
    named = with_type_names(config)
    assert named.a[0].type == name
    assert named.b == dict(constructor=name, path='a.b')


def test_a_config_of_names_is_left_as_it_is():
    config = plain()
    assert with_type_names(config) is config
