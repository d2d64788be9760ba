from .scene import draw_scene
