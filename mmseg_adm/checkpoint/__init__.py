"""Checkpoints: fetched first, read without running code, recognized, compared strictly.

And written whole, so that a training goes on from the newest.
"""

from .difference import check_state_dict
from .fetching import drop_pretrained, fetch, is_remote, local_path
from .finite import check_finite, first_of, not_finite
from .loaders import install_safe_loading, safe_loading
from .matching import MemberWeights, check_plain_weights, member_weights
from .reading import read_checkpoint, trust_checkpoints, weights_of
from .record import RECORD, sha256_of, weights_record
from .resuming import Newest, checkpoints_in, damage_of, newest_whole, step_of
from .saving import install_whole_writing, save_checkpoint

__all__ = [
    'RECORD',
    'MemberWeights',
    'Newest',
    'check_finite',
    'check_plain_weights',
    'check_state_dict',
    'checkpoints_in',
    'damage_of',
    'drop_pretrained',
    'fetch',
    'first_of',
    'install_safe_loading',
    'install_whole_writing',
    'is_remote',
    'local_path',
    'member_weights',
    'newest_whole',
    'not_finite',
    'read_checkpoint',
    'safe_loading',
    'save_checkpoint',
    'sha256_of',
    'step_of',
    'trust_checkpoints',
    'weights_of',
    'weights_record',
]
