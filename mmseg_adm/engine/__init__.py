"""Runner, hooks, loops and optimizer wrappers."""

from .hooks import (
    AgreementProbeHook,
    ChannelsLastHook,
    CheckpointHook,
    ConsensusPictureHook,
    DataCheckHook,
    DataStreamHook,
    DistillScheduleHook,
    FiniteLossHook,
    FiniteWeightsHook,
    MemberPauseHook,
    MissedValidationHook,
    PreflightHook,
    ResumeGuardHook,
    StudentCheckpointHook,
    TerminationHook,
    TrainingTermination,
)
from .log_processor import LogProcessor
from .loops import MembersTestLoop, MembersValLoop
from .metrics import ClassIoUMetric
from .optim import CPUAmpOptimWrapper, GroupOptimWrapper, GroupOptimWrapperConstructor
from .runner import QuietRunner, UnreadableSample
from .training import LostProcess, TrainingRunner

__all__ = [
    'AgreementProbeHook',
    'CPUAmpOptimWrapper',
    'ChannelsLastHook',
    'CheckpointHook',
    'ClassIoUMetric',
    'ConsensusPictureHook',
    'DataCheckHook',
    'DataStreamHook',
    'DistillScheduleHook',
    'FiniteLossHook',
    'FiniteWeightsHook',
    'GroupOptimWrapper',
    'GroupOptimWrapperConstructor',
    'LogProcessor',
    'LostProcess',
    'MemberPauseHook',
    'MembersTestLoop',
    'MembersValLoop',
    'MissedValidationHook',
    'PreflightHook',
    'QuietRunner',
    'ResumeGuardHook',
    'StudentCheckpointHook',
    'TerminationHook',
    'TrainingRunner',
    'TrainingTermination',
    'UnreadableSample',
]
