"""Everything between a file and a config that runs: names, members, pairing, kinds."""

from .kinds import is_distillation_config
from .members import resolve_config, resolve_members
from .names import configs_of, find_config, install_config_names, read_config
from .pairing import pair, paired_name

__all__ = [
    'configs_of',
    'find_config',
    'install_config_names',
    'is_distillation_config',
    'pair',
    'paired_name',
    'read_config',
    'resolve_config',
    'resolve_members',
]
