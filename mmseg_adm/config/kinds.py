"""What kind of config this is."""

from __future__ import annotations

from mmengine.config import Config

DISTILLER = 'KnowledgeDistiller'


def is_distillation_config(config: Config) -> bool:
    """Whether the config's model is a distiller."""
    kind = config.model.get('type', '')
    return getattr(kind, '__name__', str(kind)).split('.')[-1] == DISTILLER
