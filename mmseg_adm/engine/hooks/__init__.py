"""Hooks: one a file."""

from .agreement_probe import AgreementProbeHook
from .channels_last import ChannelsLastHook
from .checkpoint import CheckpointHook
from .consensus_picture import ConsensusPictureHook
from .data_check import DataCheckHook
from .data_stream import DataStreamHook
from .finite_loss import FiniteLossHook
from .finite_weights import FiniteWeightsHook
from .member_pause import MemberPauseHook
from .missed_validation import MissedValidationHook
from .preflight import PreflightHook
from .resume_guard import ResumeGuardHook
from .schedule import DistillScheduleHook
from .student_checkpoint import StudentCheckpointHook
from .termination import TerminationHook, TrainingTermination

__all__ = [
    'AgreementProbeHook',
    'ChannelsLastHook',
    'CheckpointHook',
    'ConsensusPictureHook',
    'DataCheckHook',
    'DataStreamHook',
    'DistillScheduleHook',
    'FiniteLossHook',
    'FiniteWeightsHook',
    'MemberPauseHook',
    'MissedValidationHook',
    'PreflightHook',
    'ResumeGuardHook',
    'StudentCheckpointHook',
    'TerminationHook',
    'TrainingTermination',
]
