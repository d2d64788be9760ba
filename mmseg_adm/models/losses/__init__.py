"""The papers' formulas as pure tensor functions.

They import torch and nothing else, detach their own targets and weights, and compute in
float32 whatever they are given. ``valid`` is a boolean (B, h, w) mask; ``normalizer``
replaces the divisor, for callers that average over several processes; a zero divisor gives
a differentiable zero.
"""

from .channel import channel_wise_divergence
from .pixel import labelled_weight, pixel_kl, weighted_cross_entropy
from .similarity import (
    alignment_loss,
    centre_over_classes,
    consensus_alignment,
    consensus_weight,
    cosine_distance,
    divergence_repulsion,
    divergence_weight,
    repulsion_loss,
    similarity_map,
)

__all__ = [
    'alignment_loss',
    'centre_over_classes',
    'channel_wise_divergence',
    'consensus_alignment',
    'consensus_weight',
    'cosine_distance',
    'divergence_repulsion',
    'divergence_weight',
    'labelled_weight',
    'pixel_kl',
    'repulsion_loss',
    'similarity_map',
    'weighted_cross_entropy',
]
