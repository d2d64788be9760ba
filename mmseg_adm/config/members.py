"""The members that a config names, in full."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from mmengine.config import Config, ConfigDict

from mmseg_adm.mistakes import words_of

from .imports import joined_imports
from .names import read_config
from .structure import check_structure
from .type_names import with_type_names

# Ours beside the keys of a plain segmentor.
MEMBER_OPTIONS = ('frozen', 'checkpoint', 'new_classifier', 'dtype')
# How a network wants its images; their size comes with the data.
NORMALIZATION = ('type', 'mean', 'std', 'bgr_to_rgb', 'rgb_to_bgr')
SIZE = ('size', 'size_divisor', 'pad_val', 'seg_pad_val', 'test_cfg')


def resolve_members(model: Mapping) -> dict[str, ConfigDict]:
    """The members of a distiller's config, those that are named by a config in full.

    A member may be a path or a name, ``'mmseg::pspnet/....py'``, or ``dict(config=..., ...)``
    with what differs from it: the network is that config's. Its own normalization of images
    stays where it is not that of ``model.data_preprocessor``.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    shared = model.get('data_preprocessor')
    return {name: _resolve(member, shared) for name, member in model['members'].items() if member}


def resolve_config(config: Config, options: Mapping | None = None) -> Config:
    """A copy of a config with its members in full, and with what the configs of those import.

    Args:
        config: Of a distiller; that of one network only takes the options.
        options: Overrides as ``--cfg-options`` gives them, also of members that are named.

    Raises:
        FileNotFoundError: As :func:`resolve_members`.
        ValueError: If an override does not fit, or as :func:`~.structure.check_structure`.
    """
    config = copy.deepcopy(with_type_names(config))
    check_structure(config)
    members = config.model.get('members') or {}
    for name, member in members.items():
        if isinstance(member, str):
            members[name] = _as_dict(member)
    try:
        config.merge_from_dict(dict(options or {}))
    except (KeyError, TypeError, AssertionError) as error:
        # An index that a list does not have, a key below what is no dict.
        raise ValueError(f'the overrides do not fit the config: {words_of(error)}') from error
    check_structure(config)
    if not members:
        return config
    named = [_as_dict(member) for member in config.model.members.values() if member]
    sources = [read_config(member['config']) for member in named if member.get('config')]
    if imports := joined_imports([config, *sources]):
        config.custom_imports = imports
    config.model.members = resolve_members(config.model)
    return config


def _as_dict(member: str | Mapping) -> dict:
    return dict(config=member) if isinstance(member, str) else dict(member)


def _resolve(member: str | Mapping, shared: Mapping | None) -> ConfigDict:
    overrides = _as_dict(member)
    source = overrides.pop('config', None)
    if source is None:
        return ConfigDict(member)
    network = read_config(source).model
    own = own_preprocessor(network.pop('data_preprocessor', None), shared)
    if own:
        network.data_preprocessor = own
    config = Config(dict(network=network))
    config.merge_from_dict(dict(network=overrides))
    return config.network


def with_size_of(own: Mapping, source: Mapping) -> dict:
    """The settings ``own`` of a preprocessor, with images of the size of another one's."""
    settings = {key: value for key, value in own.items() if key not in SIZE}
    return settings | {key: source[key] for key in SIZE if key in source}


def own_preprocessor(own: Mapping | None, shared: Mapping | None) -> dict | None:
    """What a member needs beside the preprocessor that it shares: ``None`` if that one will do.

    Args:
        own: Settings that the network was trained with.
        shared: Settings of the preprocessor of all members; labels and images are padded to
            its size.
    """
    if not own or not shared:
        return dict(own) if own else None
    if all(own.get(key) == shared.get(key) for key in NORMALIZATION):
        return None
    return with_size_of(own, shared)
