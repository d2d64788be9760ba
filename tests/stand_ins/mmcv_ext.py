"""Stands in for mmcv's compiled extension, which takes an hour to build.

`make test-openmmlab` copies it into its own environment as ``mmcv/_ext.py``, so that upstream
mmseg can be imported over mmcv-lite. No network of the suite calls a compiled operator; one
that does fails here, by name.
"""


def __getattr__(name: str):
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(f'mmcv-lite has no compiled operator {name}')

    return missing
