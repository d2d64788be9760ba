"""Hooks, loops and optimiser wrappers."""

from .hooks import (
    ConsensusPictureHook,
    DataCheckHook,
    DataStreamHook,
    DistillScheduleHook,
    FiniteLossHook,
    ResumeGuardHook,
    StudentCheckpointHook,
)
from .loops import MembersTestLoop, MembersValLoop
from .optim import CPUAmpOptimWrapper

__all__ = [
    'CPUAmpOptimWrapper',
    'ConsensusPictureHook',
    'DataCheckHook',
    'DataStreamHook',
    'DistillScheduleHook',
    'FiniteLossHook',
    'MembersTestLoop',
    'MembersValLoop',
    'ResumeGuardHook',
    'StudentCheckpointHook',
]
