"""A student beside a frozen teacher that teaches with weight 0: as in plain mmseg, to the bit."""

import copy
from itertools import count

import cv2
import numpy as np
import pytest
from command_line import forget_managers
from factory import differences, save_segmentor, segmentor
from mmengine import registry as registries
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from plain_configs import plain
from test_pair_matrix import NETWORKS, SIZE, name_of

from mmseg_adm.checkpoint import drop_pretrained, read_checkpoint
from mmseg_adm.commands.launch import replace_sync_bn
from mmseg_adm.config import pair, read_config

pytestmark = [pytest.mark.core, pytest.mark.slow]

ITERS = 2
# Of as many families, by what is particular about their training; the last ones in pure Python.
FAMILIES = (
    'psp-r18',
    'fcn-hr18s',
    'ocr-hr18s',  # a cascade of heads
    'deeplabv3plus-mnv2',
    'unet',
    'bisenetv2',  # several auxiliary heads
    'stdc1',  # OHEM
    'segformer-b0',  # rates of parts
    'swin',
    'segnext',
    'beit',  # rates of layers
    'fast-scnn',
)
PURE = ('psp-r18', 'segformer-b0', 'swin', 'stdc1')


def as_classes(node):
    """The config with classes for their names, as a pure-Python one has them."""
    if isinstance(node, dict):
        return {key: class_named(value) if key == 'type' else as_classes(value)
                for key, value in node.items()}  # fmt: skip
    return [as_classes(child) for child in node] if isinstance(node, (list, tuple)) else node


def class_named(name):
    for registry in ('MODELS', 'DATASETS', 'TRANSFORMS', 'METRICS', 'OPTIMIZERS', 'LOOPS',
                     'OPTIM_WRAPPERS', 'PARAM_SCHEDULERS', 'HOOKS'):  # fmt: skip
        found = getattr(registries, registry)
        with found.switch_scope_and_registry('mmseg') as inner:
            kind = inner.get(name)
        # Layers are looked up by names such as BN, which no class has.
        if kind is not None and kind.__name__ == name:
            return kind
    return name


class Losses(Hook):
    """Notes what is logged of each iteration, and the rate and decay of each parameter."""

    priority = 'LOWEST'

    def __init__(self, prefix):
        self.prefix, self.losses, self.rates = prefix, [], {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        of = f'{self.prefix.split(".")[1]}.' if self.prefix else ''
        self.losses.append(
            {key.removeprefix(of): float(value) for key, value in outputs.items()
             if key.startswith(of) and key != 'loss'}
        )  # fmt: skip
        names = {id(value): name for name, value in runner.model.named_parameters()}
        wrapper = runner.optim_wrapper
        optimizers = [wrapper] if hasattr(wrapper, 'optimizer') else wrapper.values()
        for each in optimizers:
            for group in each.optimizer.param_groups:
                for parameter in group['params']:
                    name = names[id(parameter)]
                    if name.startswith(self.prefix):
                        options = (group['lr'], group['weight_decay'])
                        self.rates[name.removeprefix(self.prefix)] = options


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Writes images and labels of so many classes, and returns where they lie."""

    def write(classes):
        root = tmp_path_factory.mktemp('images')
        draw = np.random.default_rng(0)
        for index in range(4):
            for kind, shape, largest in (('img', (*SIZE, 3), 256), ('ann', SIZE, classes)):
                (root / kind).mkdir(exist_ok=True)
                content = draw.integers(largest, size=shape, dtype=np.uint8)
                cv2.imwrite(str(root / kind / f'{index}.png'), content)
        return root

    return write


def config_of(network, root, checkpoint):
    """A config of mmseg, its network small, on these images."""
    config = read_config(name_of(network))
    config.merge_from_dict({f'model.{key}': value for key, value in NETWORKS[network][1].items()})
    drop_pretrained(config.model)
    replace_sync_bn(config)
    config.model.data_preprocessor.size = SIZE
    kind = config.train_dataloader.dataset.type
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    pipeline = [*load, dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
    tested = [*load, dict(type='PackSegInputs')]
    data = dict(type=kind, data_root=str(root), img_suffix='.png', seg_map_suffix='.png',
                reduce_zero_label=False,
                data_prefix=dict(img_path='img', seg_map_path='ann'))  # fmt: skip
    if kind not in ('CityscapesDataset', 'ADE20KDataset'):
        raise AssertionError(f'{kind} is not among those whose classes are known here')
    loader = plain().train_dataloader
    config.train_dataloader = dict(loader, dataset=dict(data, pipeline=pipeline))
    for split in ('val', 'test'):
        config[f'{split}_dataloader'] = dict(
            batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(data, pipeline=tested),
        )  # fmt: skip
        config[f'{split}_evaluator'] = dict(type='IoUMetric', iou_metrics=['mIoU'])
    config.model.test_cfg = dict(mode='whole')
    config.train_cfg.update(max_iters=ITERS, val_interval=ITERS)
    config.default_hooks.checkpoint.update(interval=ITERS, by_epoch=False, max_keep_ckpts=-1)
    config.default_hooks.logger.interval = 1
    config.load_from = checkpoint
    config.randomness = dict(seed=0)
    # Half precision in both would be slow on a CPU.
    if config.optim_wrapper.get('type') == 'AmpOptimWrapper':
        config.optim_wrapper.pop('loss_scale', None)
        config.optim_wrapper.type = 'OptimWrapper'
    return config


def trained(config, folder, prefix):
    forget_managers()
    config.work_dir = str(folder)
    config.experiment_name = f'{folder.name}_{next(trained.numbers)}'
    runner, losses = Runner.from_cfg(config), Losses(prefix)
    runner.register_hook(losses)
    runner.train()
    return runner, losses


trained.numbers = count()


@pytest.mark.parametrize(
    ('network', 'pure'),
    [*((network, False) for network in FAMILIES), *((network, True) for network in PURE)],
)
def test_it_trains_as_in_plain_mmseg(network, pure, images, tmp_path):
    classes = 19 if 'cityscapes' in NETWORKS[network][0] else 150
    root = images(classes)
    start = read_config(name_of(network))
    start.merge_from_dict({f'model.{key}': value for key, value in NETWORKS[network][1].items()})
    drop_pretrained(start.model)
    replace_sync_bn(start)
    start.model.pop('data_preprocessor')
    checkpoint = save_segmentor(tmp_path / 'start.pth', start.model.to_dict())
    tutor = save_segmentor(tmp_path / 'tutor.pth', segmentor(4, classes))
    alone = config_of(network, root, checkpoint)
    if pure:
        alone = Config(as_classes(alone.to_dict()))

    teacher = plain(iters=ITERS, val_evaluator=dict(type='IoUMetric'))
    teacher.model.decode_head.num_classes = classes
    kd = dict(kd=dict(type='mmseg_adm.KD', weight=0.0))
    paired = pair(copy.deepcopy(alone), teacher, kd)
    paired.model.members.teacher.update(frozen=True, checkpoint=tutor)
    if paired.optim_wrapper.get('constructor', '').startswith('mmseg_adm.'):
        paired.optim_wrapper.pop('teacher', None)
    if isinstance(paired.param_scheduler, dict):
        paired.param_scheduler.pop('teacher', None)
    paired.default_hooks.preflight.enabled = False
    paired.default_hooks.pop('pictures', None)

    # What sets the order of images and random numbers is the package's in both.
    alone.train_dataloader = copy.deepcopy(paired.train_dataloader)
    alone.custom_hooks = [*alone.get('custom_hooks', []), dict(type='mmseg_adm.DataStreamHook')]
    plain_run, expected = trained(alone, tmp_path / 'alone', '')
    paired_run, found = trained(paired, tmp_path / 'paired', 'members.student.')

    assert found.losses == expected.losses
    assert len(expected.rates) > 20
    assert found.rates == expected.rates
    own = plain_run.message_hub.log_scalars['val/mIoU'].data[0]
    assert list(paired_run.message_hub.log_scalars['val/student/mIoU'].data[0]) == list(own)
    weights = [dict(read_checkpoint(tmp_path / name)['state_dict'])
               for name in ('alone/iter_2.pth', 'paired/student_iter_2.pth')]  # fmt: skip
    assert differences(*weights) == []
