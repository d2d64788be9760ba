"""Checkpoints: fetched first, read without running code, recognized, compared strictly.

And written whole, so that a training goes on from the newest.
"""

from .difference import check_state_dict
from .fetching import drop_pretrained, fetch, is_remote, local_path
from .loaders import install_safe_loading, safe_loading
from .matching import MemberWeights, member_weights
from .reading import read_checkpoint, trust_checkpoints, weights_of
from .record import RECORD, sha256_of, weights_record
from .resuming import Newest, checkpoints_in, damage_of, newest_whole, step_of
from .saving import install_whole_writing, save_checkpoint

__all__ = [
    'RECORD',
    'MemberWeights',
    'Newest',
    'check_state_dict',
    'checkpoints_in',
    'damage_of',
    'drop_pretrained',
    'fetch',
    'install_safe_loading',
    'install_whole_writing',
    'is_remote',
    'local_path',
    'member_weights',
    'newest_whole',
    'read_checkpoint',
    'safe_loading',
    'save_checkpoint',
    'sha256_of',
    'step_of',
    'trust_checkpoints',
    'weights_of',
    'weights_record',
]
