"""Everything between a file and a config that runs: names, members, pairing, kinds."""

from .checks import check_config
from .kinds import is_average, is_bridge, is_distillation_config
from .members import resolve_config, resolve_members
from .monitored import check_monitored
from .names import install_config_names, read_config
from .pairing import pair, paired_name
from .pretrained import drop_downloads
from .recipes import listed_recipes, recipe_of, recipes, wants_trained_teacher
from .registered import check_registered
from .schedules import POINTS, iterations_of, options_for_length
from .trackers import add_tensorboard

__all__ = [
    'POINTS',
    'add_tensorboard',
    'check_config',
    'check_monitored',
    'check_registered',
    'drop_downloads',
    'install_config_names',
    'is_average',
    'is_bridge',
    'is_distillation_config',
    'iterations_of',
    'listed_recipes',
    'options_for_length',
    'pair',
    'paired_name',
    'read_config',
    'recipe_of',
    'recipes',
    'resolve_config',
    'resolve_members',
    'wants_trained_teacher',
]
