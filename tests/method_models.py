"""Distillers of one method, and who learns what in them."""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from pathlib import Path

import torch
from factory import CLASSES, SIZE, distiller_config, losses_of, raw_batch, save_segmentor, segmentor
from method_cases import METHOD, Variant
from mmengine.registry import MODELS


def network(width=4, strides=(1, 2), dropout=0.0, **options):
    """A PSPNet on two stages of ResNet-18, its maps 1/8 as high and wide as the image."""
    config = segmentor(width, dropout=dropout, **options)
    config['backbone'].update(num_stages=2, out_indices=(0, 1), strides=strides, dilations=(1, 1))
    config['decode_head'].update(in_channels=2 * width, in_index=1)
    return config


def build(method, student=None, teacher=None, **options):
    """A distiller of one method, called ``method``, on random weights."""
    student, teacher = student or network(4), teacher or network(8)
    if isinstance(method, Variant):
        # A bridge needs a teacher that is frozen.
        checkpoint = weights_of(teacher) if method.members == 'bridge' else None
        members = method.networks(student, teacher, checkpoint)
        options.setdefault('student', method.student)
        method = method.config
    else:
        members = dict(student=student, teacher=teacher)
    torch.manual_seed(0)
    model = MODELS.build(distiller_config(dict(method=method), members=members, **options))
    # Nobody steps here but tests that pause nobody.
    model.pauses_members = True
    return model


@cache
def folder():
    """Where checkpoints of this module lie."""
    return tempfile.TemporaryDirectory()


def weights_of(config, seed=1):
    """A checkpoint of a freshly initialized network, written once."""
    name = hashlib.sha256(f'{config}{seed}'.encode()).hexdigest()
    path = Path(folder().name) / f'{name}.pth'
    return str(path) if path.is_file() else save_segmentor(path, config, seed)


def terms_of(model, data=None):
    """Losses of the method, by term."""
    losses = losses_of(model) if data is None else model(**data, mode='loss')
    prefix = 'method.'
    return {
        key[len(prefix) :]: value
        for key, value in losses.items()
        if key.startswith(prefix) and 'loss' in key
    }


def receivers(model, loss):
    """Who gets a gradient that is not zero: members by name, and the method."""
    modules = dict(model.members.items()) | {METHOD: model.methods['method']}
    reached = set()
    for name, module in modules.items():
        parameters = [value for value in module.parameters() if value.requires_grad]
        if parameters:
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            # Not `amax() > 0`: a NaN is a gradient too.
            if any(value is not None and not value.eq(0).all() for value in gradients):
                reached.add(name)
    return reached


def blocks():
    """A batch whose labels a narrow network can learn: constant over blocks of 16 x 16."""
    batch = raw_batch()
    for sample in batch['data_samples']:
        coarse = torch.randint(0, CLASSES, (1, SIZE[0] // 16, SIZE[1] // 16))
        sample.gt_sem_seg.data = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)
    return batch
