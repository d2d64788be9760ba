"""Optimizer wrappers: mixed precision on a CPU, and one optimizer per member or group."""

from .amp import CPUAmpOptimWrapper
from .constructor import GroupOptimWrapperConstructor
from .groups import GroupOptimWrapper

__all__ = ['CPUAmpOptimWrapper', 'GroupOptimWrapper', 'GroupOptimWrapperConstructor']
