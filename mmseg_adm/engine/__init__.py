"""Hooks, loops and optimiser wrappers."""

from .hooks import (
    ConsensusPictureHook,
    DataCheckHook,
    DataStreamHook,
    DistillScheduleHook,
    FiniteLossHook,
    MemberPauseHook,
    ResumeGuardHook,
    StudentCheckpointHook,
)
from .loops import MembersTestLoop, MembersValLoop
from .metrics import ClassIoUMetric
from .optim import CPUAmpOptimWrapper, GroupOptimWrapper, GroupOptimWrapperConstructor

__all__ = [
    'CPUAmpOptimWrapper',
    'ClassIoUMetric',
    'ConsensusPictureHook',
    'DataCheckHook',
    'DataStreamHook',
    'DistillScheduleHook',
    'FiniteLossHook',
    'GroupOptimWrapper',
    'GroupOptimWrapperConstructor',
    'MemberPauseHook',
    'MembersTestLoop',
    'MembersValLoop',
    'ResumeGuardHook',
    'StudentCheckpointHook',
]
