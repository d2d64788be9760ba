"""Hooks, loops and optimiser wrappers."""

from .hooks import (
    ConsensusPictureHook,
    DataCheckHook,
    DataStreamHook,
    DistillScheduleHook,
    FiniteLossHook,
    ForegroundProbeHook,
    MemberPauseHook,
    PreflightHook,
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
    'ForegroundProbeHook',
    'GroupOptimWrapper',
    'GroupOptimWrapperConstructor',
    'MemberPauseHook',
    'MembersTestLoop',
    'MembersValLoop',
    'PreflightHook',
    'ResumeGuardHook',
    'StudentCheckpointHook',
]
