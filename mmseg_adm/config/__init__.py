"""Everything between a file and a config that runs: names, members, pairing, kinds."""

from .kinds import is_average, is_bridge, is_distillation_config
from .members import resolve_config, resolve_members
from .names import configs_of, find_config, install_config_names, read_config
from .pairing import pair, paired_name
from .pretrained import drop_downloads
from .recipes import listed_recipes, recipe_of, recipes, wants_trained_teacher

__all__ = [
    'configs_of',
    'drop_downloads',
    'find_config',
    'install_config_names',
    'is_average',
    'is_bridge',
    'is_distillation_config',
    'listed_recipes',
    'pair',
    'paired_name',
    'read_config',
    'recipe_of',
    'recipes',
    'resolve_config',
    'resolve_members',
    'wants_trained_teacher',
]
