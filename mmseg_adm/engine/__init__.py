"""Runner, hooks, loops and optimizer wrappers."""

from .hooks import (
    ConsensusPictureHook,
    DataCheckHook,
    DataStreamHook,
    DistillScheduleHook,
    FiniteLossHook,
    FiniteWeightsHook,
    ForegroundProbeHook,
    MemberPauseHook,
    PreflightHook,
    ResumeGuardHook,
    StudentCheckpointHook,
)
from .log_processor import LogProcessor
from .loops import MembersTestLoop, MembersValLoop
from .metrics import ClassIoUMetric
from .optim import CPUAmpOptimWrapper, GroupOptimWrapper, GroupOptimWrapperConstructor
from .runner import QuietRunner

__all__ = [
    'CPUAmpOptimWrapper',
    'ClassIoUMetric',
    'ConsensusPictureHook',
    'DataCheckHook',
    'DataStreamHook',
    'DistillScheduleHook',
    'FiniteLossHook',
    'FiniteWeightsHook',
    'ForegroundProbeHook',
    'GroupOptimWrapper',
    'GroupOptimWrapperConstructor',
    'LogProcessor',
    'MemberPauseHook',
    'MembersTestLoop',
    'MembersValLoop',
    'PreflightHook',
    'QuietRunner',
    'ResumeGuardHook',
    'StudentCheckpointHook',
]
