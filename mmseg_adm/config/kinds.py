"""What kind a config is, and what kind a member of it is."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.config import Config

DISTILLER = 'KnowledgeDistiller'
BRIDGE = 'mmseg_adm.TeacherBridge'
EMA_TEACHER = 'mmseg_adm.EMATeacher'


def is_distillation_config(config: Config) -> bool:
    """Whether the config's model is a distiller."""
    kind = config.model.get('type', '')
    return getattr(kind, '__name__', str(kind)).split('.')[-1] == DISTILLER


def is_bridge(member: Mapping) -> bool:
    """Whether a member's config asks for a bridge between a frozen teacher and a student."""
    return member.get('type') == BRIDGE


def bridged_teacher(bridge: Mapping) -> str:
    """The member that a bridge extends."""
    return bridge.get('teacher', 'teacher')


def is_average(member: Mapping) -> bool:
    """Whether a member's config asks for an EMA teacher, an average of another member."""
    return member.get('type') == EMA_TEACHER


def averaged_member(average: Mapping) -> str:
    """The member that an EMA teacher follows."""
    return average.get('of', 'teacher')


def learning_rate_factor(config: Config, member: str) -> float:
    """At how much of the learning rate a member trains; a small one is for what is trained."""
    paramwise = (config.get('optim_wrapper') or {}).get('paramwise_cfg') or {}
    return (paramwise.get('custom_keys') or {}).get(f'members.{member}', {}).get('lr_mult', 1)
