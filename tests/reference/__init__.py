"""The losses once more, as loops over float64 scalars that follow the equations literally.

Nothing here imports the package. The scalars stay in torch's graph, so gradients can be
compared as well: ``sg`` is ``detach``.
"""

from .attention import attention_transfer, diversity, flattened, shifted_attention, unit_distance
from .basics import resize, value_and_gradients
from .channel import channel_wise_divergence
from .correlation import inter_class_correlation, intra_class_correlation
from .ensemble import mean_target, min_logit_target, naive_target
from .pixel import pixel_kl, weighted_cross_entropy
from .regression import feature_error
from .relation import intra_class_variation, pairwise_affinity
from .similarity import (
    consensus_alignment,
    consensus_weight,
    cosine_distance,
    divergence_repulsion,
    similarity_map,
)
from .switching import distribution_distance, label_distance, switching_threshold

__all__ = [
    'attention_transfer',
    'channel_wise_divergence',
    'consensus_alignment',
    'consensus_weight',
    'cosine_distance',
    'distribution_distance',
    'divergence_repulsion',
    'diversity',
    'feature_error',
    'flattened',
    'inter_class_correlation',
    'intra_class_correlation',
    'intra_class_variation',
    'label_distance',
    'mean_target',
    'min_logit_target',
    'naive_target',
    'pairwise_affinity',
    'pixel_kl',
    'resize',
    'shifted_attention',
    'similarity_map',
    'switching_threshold',
    'unit_distance',
    'value_and_gradients',
    'weighted_cross_entropy',
]
