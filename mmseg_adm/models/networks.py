"""All networks of a distiller from the configs of its members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from mmseg_adm.config.kinds import averaged_member, bridged_teacher, is_average, is_bridge

from .average import EMATeacher, build_average
from .bridge import build_bridge
from .members import FrozenMember, build_member


@dataclass
class Networks:
    """What :func:`build_networks` has built, by member.

    Attributes:
        trained: Those in training, bridges among them.
        frozen: Those that only teach.
        averages: Moving averages of members in training.
        checkpoints: Of members in training that start from one, backbone and all.
        preprocessors: Of members that see images in another way than the others.
    """

    trained: dict[str, nn.Module] = field(default_factory=dict)
    frozen: dict[str, FrozenMember] = field(default_factory=dict)
    averages: dict[str, EMATeacher] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    preprocessors: dict[str, nn.Module] = field(default_factory=dict)


def build_networks(members: Mapping[str, dict]) -> Networks:
    """Build every member; bridges and averages last, as they are made of others.

    Args:
        members: Their configs, in full. ``data_preprocessor`` is taken out of them.

    Raises:
        ValueError: If a member cannot be built.
        FileNotFoundError: If a checkpoint is not there.
    """
    found = Networks()
    bridges = {name: config for name, config in members.items() if is_bridge(config)}
    averages = {name: config for name, config in members.items() if is_average(config)}
    for name, config in members.items():
        if name in bridges or name in averages:
            continue
        if own := config.pop('data_preprocessor', None):
            found.preprocessors[name] = MMSEG_MODELS.build(own)
        member: Any = build_member(name, config)
        if isinstance(member, FrozenMember):
            found.frozen[name] = member
            continue
        found.trained[name] = member
        # The file may hold the backbone alone: then the rest is still to be initialized.
        if config.get('checkpoint') and member.is_init:
            found.checkpoints[name] = config['checkpoint']
    for name, config in bridges.items():
        found.trained[name] = build_bridge(name, config, members, found.frozen)
    for name, config in averages.items():
        found.averages[name] = build_average(name, config, found.trained)
    # A bridge goes on from what its teacher has seen, an average sees what its member sees.
    sources = {name: bridged_teacher(config) for name, config in bridges.items()}
    sources |= {name: averaged_member(config) for name, config in averages.items()}
    for name, source in sources.items():
        if source in found.preprocessors:
            found.preprocessors[name] = found.preprocessors[source]
    return found
