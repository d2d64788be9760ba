"""From a distiller's checkpoint to a plain MMSegmentation checkpoint and config."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from mmseg_adm.checkpoint import (
    RECORD,
    check_finite,
    drop_pretrained,
    local_path,
    member_weights,
    read_checkpoint,
    save_checkpoint,
    sha256_of,
    weights_of,
    weights_record,
)
from mmseg_adm.config.imports import joined_imports
from mmseg_adm.config.kinds import (
    DISTILLER,
    averaged_member,
    bridged_teacher,
    is_average,
    is_bridge,
    is_distillation_config,
)
from mmseg_adm.config.members import MEMBER_OPTIONS, resolve_config
from mmseg_adm.config.placeholders import text_of
from mmseg_adm.models.bridge import plain_bridge
from mmseg_adm.writing import remove_leftovers, write_text

from .replacing import EXPORTED, HEADER


def plain_config(config: Config, member: str | None = None) -> Config:
    """The config with which mmseg alone builds one member, prepares its images, and tests it.

    It imports what the distillation config does, but for this package: a test set of ours, or a
    metric, is left out. Where there is neither a test nor a validation set, nothing is known of
    how images are prepared: without ``test_pipeline`` it is a network alone.

    Args:
        config: The distillation config.
        member: Its name; by default the one that is deployed.

    Raises:
        ValueError: If there is no such member.
    """
    config = resolve_config(config)
    model = config.model
    member = member or model.get('student', 'student')
    if member not in model.members:
        raise ValueError(f"'{member}' is not a member: {', '.join(model.members)}")
    plain = ConfigDict(copy.deepcopy(model.members[member]))
    if is_bridge(plain):
        plain = plain_bridge(plain, model.members)
    elif is_average(plain):
        plain = ConfigDict(copy.deepcopy(model.members[averaged_member(plain)]))
    for option in MEMBER_OPTIONS:
        plain.pop(option, None)
    plain.setdefault('data_preprocessor', copy.deepcopy(model.get('data_preprocessor')))
    drop_pretrained(plain)
    return Config(
        dict(
            default_scope='mmseg',
            model=plain,
            **_tests(config),
            visualizer=dict(type='SegLocalVisualizer', name='visualizer'),
            **_imports(config),
        ),
        env_variables=config.env_variables,
    )


def _imports(config: Config) -> dict:
    names = [name for name in joined_imports([config]).get('imports', [])
             if name.split('.')[0] != 'mmseg_adm']  # fmt: skip
    # The module of a method of one's own cannot be imported without this package.
    return dict(custom_imports=dict(imports=names, allow_failed_imports=True)) if names else {}


def _tests(config: Config) -> dict:
    """How images are prepared, and, where mmseg alone can, the test set and its metrics."""
    split = 'test' if config.get('test_dataloader') else 'val'
    loader, evaluator = config.get(f'{split}_dataloader') or {}, config.get(f'{split}_evaluator')
    dataset = loader.get('dataset')
    while dataset and 'pipeline' not in dataset:
        dataset = dataset.get('dataset') or next(iter(dataset.get('datasets', [])), None)
    if not dataset:
        return {}
    pipeline = dataset['pipeline']
    if evaluator and not _names_this_package([loader, evaluator]):
        whole = dict(test_evaluator=evaluator, test_cfg=dict(type='TestLoop'))
        return dict(test_pipeline=pipeline, test_dataloader=loader, **copy.deepcopy(whole))
    # What MMSegInferencer looks for.
    return dict(test_pipeline=pipeline, test_dataloader=dict(dataset=dict(pipeline=pipeline)))


def _names_this_package(node: object) -> bool:
    if isinstance(node, dict):
        kind = str(node.get('type', ''))
        return kind.startswith('mmseg_adm.') or any(map(_names_this_package, node.values()))
    return isinstance(node, (list, tuple)) and any(map(_names_this_package, node))


def build_plain(plain: Config) -> nn.Module:
    """The network of a plain config, its weights still those that it starts with."""
    # A training that exports keeps its scope, and its random numbers.
    scope = DefaultScope.overwrite_default_scope(plain.get('default_scope', 'mmseg'))
    with scope, torch.random.fork_rng(devices=[]):
        return MMSEG_MODELS.build(copy.deepcopy(plain.model))


def plain_checkpoint(checkpoint: dict, member: str, source: str = 'the checkpoint') -> dict:
    """One member's weights under mmseg's own names, with the classes that it predicts.

    Args:
        checkpoint: As the distiller's run saved it.
        member: Its name.
        source: What messages call the file.

    Raises:
        ValueError: If the checkpoint does not hold the member.
    """
    weights = {
        key.removeprefix(prefix): value
        for prefix in (f'members.{member}.', f'averages.{member}.module.')
        for key, value in weights_of(checkpoint).items()
        if key.startswith(prefix)
    }
    if not weights:
        held = sorted({key.split('.')[1] for key in weights_of(checkpoint)
                       if key.startswith(('members.', 'averages.'))})  # fmt: skip
        raise ValueError(
            f"{source} holds no member '{member}' (it holds: {', '.join(held) or 'none'}): "
            'is it one of this config?'
        )
    return {'state_dict': weights, 'meta': plain_meta(checkpoint)}


def plain_meta(checkpoint: dict) -> dict:
    """The classes and colors of a checkpoint, its own or a plain one, in plain Python types."""
    meta = checkpoint.get('meta', {}).get('dataset_meta') or {}
    dataset_meta = {
        'classes': [str(name) for name in meta.get('classes', [])],
        'palette': [[int(value) for value in color] for color in meta.get('palette', [])],
    }
    # Without the classes mmseg guesses those of Cityscapes.
    return {'dataset_meta': dataset_meta} if meta else {}


def cut_out(
    config: Config, checkpoint: str | Path, member: str | None = None
) -> tuple[Config, dict]:
    """One member by itself: its plain config, and its plain checkpoint.

    Where ``EMAHook`` was on, the weights are the averaged ones: MMEngine saves those as the
    state dict. Those of a frozen member, which no run saves, come from its own checkpoint; it
    never runs its auxiliary head, and goes without.

    Args:
        config: The distillation config.
        checkpoint: Of the distiller.
        member: By default the one that is deployed.

    Raises:
        ValueError: If the config is no distillation config or has no such member, a frozen
            member has other weights than in the run, or weights are not finite.
        FileNotFoundError: If a checkpoint is not there.
    """
    if not is_distillation_config(config):
        raise ValueError(
            f'the model of this config is a {config.model.type}, not a {DISTILLER}: its '
            'checkpoints are plain ones already'
        )
    config = resolve_config(config)
    member = member or config.model.get('student', 'student')
    plain = plain_config(config, member)
    source = read_checkpoint(checkpoint)
    options = config.model.members[member]
    if options.get('frozen'):
        plain.model.pop('auxiliary_head', None)
        weights = _frozen_weights(config, member, source)
        return plain, {'state_dict': weights, 'meta': plain_meta(source)}
    content = plain_checkpoint(source, member, str(checkpoint))
    check_finite(content['state_dict'], f"member '{member}' in {checkpoint}")
    if is_bridge(options):
        shared = _frozen_weights(config, bridged_teacher(options), source)
        content['state_dict'] = shared | content['state_dict']
    return plain, content


def export_member(
    config: Config, checkpoint: str | Path, target: str | Path, member: str | None = None
) -> Path:
    """Write ``target`` (.pth) and, beside it, the config of the same name (.py).

    Args:
        config: The distillation config.
        checkpoint: Of the distiller.
        target: Where the weights go; what is there is replaced.
        member: By default the one that is deployed.

    Returns:
        The path of the weights.

    Raises:
        ValueError: As :func:`cut_out`.
        FileNotFoundError: If a checkpoint is not there.
    """
    plain, content = cut_out(config, checkpoint, member)
    content['meta'] |= EXPORTED
    target = with_ending(target, '.pth')
    remove_leftovers(target.parent)
    write_text(target.with_suffix('.py'), f'{HEADER}\n{text_of(plain)}')
    save_checkpoint(target, content)
    return target


def with_ending(path: str | Path, ending: str) -> Path:
    """A path whose name ends so, otherwise as it is: ``student_v1.0`` holds a dot."""
    return Path(path if str(path).endswith(ending) else f'{path}{ending}')


def _frozen_weights(config: Config, member: str, checkpoint: dict) -> dict[str, Tensor]:
    """The weights of a frozen member, without its auxiliary head, from its own checkpoint.

    Raises:
        ValueError: If it has none, or others than in the run.
        FileNotFoundError: If its checkpoint is not there.
    """
    setting = f'model.members.{member}.checkpoint'
    source = config.model.members[member].get('checkpoint')
    if not source:
        raise ValueError(
            f"'{member}' is frozen, so that no checkpoint of a run holds it: set {setting} to the "
            'file of the run'
        )
    path = local_path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"the weights of the frozen '{member}' are not at {path}: set {setting} to the file of "
            'the run'
        )
    expected = checkpoint.get('meta', {}).get(RECORD, {}).get(weights_record(member))
    if expected is not None and expected != sha256_of(path):
        raise ValueError(
            f"the run had other weights of '{member}' than those in {path}: set {setting} to the "
            'file of the run'
        )
    plain = plain_config(config, member)
    plain.model.pop('auxiliary_head', None)
    name = f"the checkpoint of member '{member}', {path},"
    found = member_weights(read_checkpoint(path), build_plain(plain), member, name, frozen=True)
    return dict(found.state_dict)
