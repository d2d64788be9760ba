"""Optimiser wrappers: mixed precision on a CPU, and one optimiser per member or group."""

from .amp import CPUAmpOptimWrapper
from .constructor import GroupOptimWrapperConstructor
from .groups import GroupOptimWrapper

__all__ = ['CPUAmpOptimWrapper', 'GroupOptimWrapper', 'GroupOptimWrapperConstructor']
