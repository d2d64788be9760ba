"""From a distiller's checkpoint to a plain MMSegmentation checkpoint and config."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from .checkpoint import (
    RECORD,
    drop_pretrained,
    local_path,
    read_checkpoint,
    sha256_of,
    weights_of,
    weights_record,
)
from .models.bridge import bridged_teacher, is_bridge, plain_bridge
from .models.members import MEMBER_OPTIONS

DISTILLER = 'KnowledgeDistiller'


def is_distillation_config(config: Config) -> bool:
    """Whether the config's model is a distiller."""
    kind = config.model.get('type', '')
    return getattr(kind, '__name__', str(kind)).split('.')[-1] == DISTILLER


def plain_config(config: Config, member: str | None = None) -> Config:
    """The config with which mmseg alone builds one member and prepares its images.

    Args:
        config: The distillation config.
        member: Its name; by default the one that is deployed.

    Raises:
        ValueError: If there is no such member.
    """
    model = config.model
    member = member or model.get('student', 'student')
    if member not in model.members:
        raise ValueError(f"'{member}' is not a member: {', '.join(model.members)}")
    plain = ConfigDict(copy.deepcopy(model.members[member]))
    if is_bridge(plain):
        plain = plain_bridge(plain, model.members)
    for option in MEMBER_OPTIONS:
        plain.pop(option, None)
    plain.setdefault('data_preprocessor', copy.deepcopy(model.get('data_preprocessor')))
    drop_pretrained(plain)
    pipeline = _test_pipeline(config)
    return Config(
        dict(
            default_scope='mmseg',
            model=plain,
            test_pipeline=pipeline,
            # What MMSegInferencer looks for.
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
            visualizer=dict(type='SegLocalVisualizer', name='visualizer'),
        )
    )


def _test_pipeline(config: Config) -> list:
    loader = config.get('test_dataloader') or config.get('val_dataloader')
    dataset = loader['dataset'] if loader else {}
    while 'pipeline' not in dataset:
        dataset = dataset.get('dataset') or next(iter(dataset.get('datasets', [])), None)
        if dataset is None:
            raise ValueError(
                'the config has neither a test_dataloader nor a val_dataloader with a pipeline: '
                'the exported student could not prepare its images'
            )
    return dataset['pipeline']


def plain_checkpoint(checkpoint: dict, member: str) -> dict:
    """One member's weights under mmseg's own names, with the classes that it predicts.

    Args:
        checkpoint: As the distiller's run saved it.
        member: Its name.

    Raises:
        ValueError: If the checkpoint does not hold the member.
    """
    prefix = f'members.{member}.'
    weights = {
        key[len(prefix) :]: value
        for key, value in weights_of(checkpoint).items()
        if key.startswith(prefix)
    }
    if not weights:
        held = sorted({key.split('.')[1] for key in weights_of(checkpoint)
                       if key.startswith('members.')})  # fmt: skip
        raise ValueError(
            f"the checkpoint holds no member '{member}' (it holds: {', '.join(held) or 'none'}); "
            'a frozen member is never saved: use the checkpoint that it was loaded from'
        )
    meta = checkpoint.get('meta', {}).get('dataset_meta') or {}
    dataset_meta = {
        'classes': [str(name) for name in meta.get('classes', [])],
        'palette': [[int(value) for value in colour] for colour in meta.get('palette', [])],
    }
    # Without the classes mmseg guesses those of Cityscapes.
    return {'state_dict': weights, 'meta': {'dataset_meta': dataset_meta} if meta else {}}


def export_member(
    config: Config, checkpoint: str | Path, target: str | Path, member: str | None = None
) -> Path:
    """Write ``target`` (.pth) and, beside it, the config of the same name (.py).

    Args:
        config: The distillation config.
        checkpoint: Of the distiller.
        target: Where the weights go.
        member: By default the one that is deployed.

    Returns:
        The path of the weights.

    Raises:
        ValueError: If the config is no distillation config or has no such member.
        FileNotFoundError: If the checkpoint is not there.
    """
    if not is_distillation_config(config):
        raise ValueError(
            f'the model of this config is a {config.model.type}, not a {DISTILLER}: its '
            'checkpoints are plain ones already'
        )
    member = member or config.model.get('student', 'student')
    plain = plain_config(config, member)
    source = read_checkpoint(checkpoint)
    weights = plain_checkpoint(source, member)
    if is_bridge(config.model.members[member]):
        weights['state_dict'] = _shared_weights(config, member, source) | weights['state_dict']
    target = Path(target).with_suffix('.pth')
    target.parent.mkdir(parents=True, exist_ok=True)
    plain.dump(target.with_suffix('.py'))
    # A run that is killed here must not leave half a file.
    partial = target.with_suffix('.partial')
    torch.save(weights, partial)
    partial.replace(target)
    return target


def _shared_weights(config: Config, bridge: str, checkpoint: dict) -> dict:
    """What a bridge shares with its frozen teacher, which no checkpoint of the run holds.

    Raises:
        ValueError: If the teacher's weights are not named, or others than those of the run.
    """
    teacher = bridged_teacher(config.model.members[bridge])
    source = config.model.members[teacher].get('checkpoint')
    if not source:
        raise ValueError(
            f"'{bridge}' goes on from '{teacher}', which has no checkpoint: set model.members."
            f'{teacher}.checkpoint to the file of the run'
        )
    path = local_path(source)
    record = checkpoint.get('meta', {}).get(RECORD, {})
    expected = record.get(weights_record(teacher))
    if expected is not None and expected != sha256_of(path):
        raise ValueError(
            f"'{bridge}' was trained on other weights of '{teacher}' than those in {path}: set "
            f'model.members.{teacher}.checkpoint to the file of the run'
        )
    weights = weights_of(read_checkpoint(path))
    return {key: value for key, value in weights.items() if not key.startswith('auxiliary_head.')}
