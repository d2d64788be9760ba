"""Hooks: one a file."""

from .consensus_picture import ConsensusPictureHook
from .data_check import DataCheckHook
from .data_stream import DataStreamHook
from .finite_loss import FiniteLossHook
from .member_pause import MemberPauseHook
from .resume_guard import ResumeGuardHook
from .schedule import DistillScheduleHook
from .student_checkpoint import StudentCheckpointHook

__all__ = [
    'ConsensusPictureHook',
    'DataCheckHook',
    'DataStreamHook',
    'DistillScheduleHook',
    'FiniteLossHook',
    'MemberPauseHook',
    'ResumeGuardHook',
    'StudentCheckpointHook',
]
