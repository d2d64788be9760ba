"""Checkpoints: fetched first, read without running code, recognized, compared strictly."""

from .difference import check_state_dict
from .fetching import drop_pretrained, fetch, is_remote, local_path
from .finite import check_finite, first_of, not_finite
from .loaders import install_safe_loading, safe_loading
from .matching import MemberWeights, check_plain_weights, member_weights
from .reading import read_checkpoint, trust_checkpoints, weights_of
from .record import RECORD, sha256_of, weights_record

__all__ = [
    'RECORD',
    'MemberWeights',
    'check_finite',
    'check_plain_weights',
    'check_state_dict',
    'drop_pretrained',
    'fetch',
    'first_of',
    'install_safe_loading',
    'is_remote',
    'local_path',
    'member_weights',
    'not_finite',
    'read_checkpoint',
    'safe_loading',
    'sha256_of',
    'trust_checkpoints',
    'weights_of',
    'weights_record',
]
