"""Print versions and devices, for a bug report."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

# Beside the OpenMMLab stack.
PACKAGES = ('numpy', 'opencv-python', 'opencv-python-headless', 'onnxscript', 'onnxruntime')


def add_flags(parser: argparse.ArgumentParser) -> None:
    """None."""


def check(args: argparse.Namespace) -> None:
    """Nothing."""


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    for name, value in facts().items():
        print(f'{name}: {value}')


def facts() -> dict[str, str]:
    """What is installed, and on what it runs, by name."""
    import torch

    from mmseg_adm import __version__
    from mmseg_adm.stack import installed_versions

    found = {
        'mmseg_adm': f'{__version__}, in {Path(__file__).parents[1]}',
        'Python': f'{platform.python_version()}, {sys.executable}',
        'PyTorch': torch.__version__,
        'OpenMMLab stack': _stack(),
        **dict(sorted(installed_versions().items())),
        **{name: version for name in PACKAGES if (version := _version(name))},
        'OS': platform.platform(),
        'CPU': f'{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of '
        f'PyTorch (OMP_NUM_THREADS {os.environ.get("OMP_NUM_THREADS", "not set")})',
        'CUDA': 'not available',
    }
    if torch.cuda.is_available():
        found['CUDA'] = str(torch.version.cuda)
        found['cuDNN'] = str(torch.backends.cudnn.version())
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            memory = device.total_memory / 2**30
            found[f'GPU {index}'] = f'{device.name}, {memory:.1f} GiB'
    return found


def _stack() -> str:
    from mmseg_adm.stack import check_stack

    try:
        return check_stack()
    except RuntimeError as error:
        return f'does not fit. {error}'


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The model, where the system tells it; else the architecture."""
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
