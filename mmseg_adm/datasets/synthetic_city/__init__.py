"""Procedurally drawn street scenes in the layout and with the train ids of Cityscapes.

The data set that the package brings along: drawn in seconds, with all 19 classes, and hard
enough that colour alone does not give a class away. ``scene`` composes a picture from a plan
(``street``), flat things (``ground``), what stands on it (``lots``, ``plants``, ``furniture``,
``vehicles``, ``heavy``, ``people``) and a photo of it all (``light``, ``photo``); ``canvas``
draws on image and labels at once; ``writer`` makes a data set of it.
"""

from .scene import draw_scene
from .writer import write_synthetic_city

__all__ = ['draw_scene', 'write_synthetic_city']
