"""The papers' formulas as pure tensor functions.

They import torch and nothing else, detach their own targets and weights, and compute in
float32 whatever they are given. ``valid`` is a boolean (B, h, w) mask; ``avg_factor``
replaces the divisor, for callers that average over several processes; a zero divisor gives
a differentiable zero.
"""

from .attention import (
    attention,
    attention_transfer,
    diversity,
    flattened,
    shifted_attention,
    unit_distance,
)
from .channel import channel_wise_divergence
from .correlation import inter_class_correlation, intra_class_correlation
from .dense import cross_entropy_sum, labeled_weight, weighted_cross_entropy
from .ensemble import mean_target, min_logit_target, naive_target
from .pixel import pixel_kl
from .reduction import weighted_mean
from .regression import feature_error
from .relation import (
    affinity,
    class_similarity,
    intra_class_variation,
    node_pairs,
    pairwise_affinity,
)
from .similarity import (
    center_over_classes,
    consensus_alignment,
    consensus_weight,
    cosine_distance,
    divergence_repulsion,
    divergence_weight,
    shuffled,
    similarity_map,
)
from .switching import distribution_distance, label_distance, switching_threshold

__all__ = [
    'affinity',
    'attention',
    'attention_transfer',
    'center_over_classes',
    'channel_wise_divergence',
    'class_similarity',
    'consensus_alignment',
    'consensus_weight',
    'cosine_distance',
    'cross_entropy_sum',
    'distribution_distance',
    'divergence_repulsion',
    'divergence_weight',
    'diversity',
    'feature_error',
    'flattened',
    'inter_class_correlation',
    'intra_class_correlation',
    'intra_class_variation',
    'label_distance',
    'labeled_weight',
    'mean_target',
    'min_logit_target',
    'naive_target',
    'node_pairs',
    'pairwise_affinity',
    'pixel_kl',
    'shifted_attention',
    'shuffled',
    'similarity_map',
    'switching_threshold',
    'unit_distance',
    'weighted_cross_entropy',
    'weighted_mean',
]
