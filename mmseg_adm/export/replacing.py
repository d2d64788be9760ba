"""What an export may take the place of: an earlier one, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmseg_adm.checkpoint import RECORD, read_checkpoint

# The first line of an exported config.
HEADER = '# Exported by mmseg-adm: the plain config of one network.'
# In the meta of exported weights, beside what a run's checkpoint records.
EXPORTED = {RECORD: {'exported': True}}
# In the metadata of an exported graph; in JSON, as all that a graph tells.
EXPORTED_BY = ('exported_by', '"mmseg_adm"')


def check_target(target: Path, sources: Iterable[Path]) -> None:
    """Refuse to replace what an export did not write.

    Args:
        target: Where it goes: weights (.pth), beside which a config (.py) goes, or a graph.
        sources: What is exported from.

    Raises:
        ValueError: If one of the files is a source, a training's, or anything else that no export
            wrote.
    """
    resolved = [source.resolve() for source in sources]
    for path in (target, target.with_suffix('.py')) if target.suffix == '.pth' else (target,):
        if path.resolve() in resolved:
            raise ValueError(f'{path} is what is exported from: choose another --out')
        if not path.exists():
            continue
        if (path.parent / 'last_checkpoint').exists():
            raise ValueError(
                f'{path} is there, among the files of a training, which exports leave as they '
                'are: choose another --out'
            )
        if not is_export(path):
            raise ValueError(
                f'{path} is there, and no export has written it: choose another --out, or move it'
            )


def is_export(path: Path) -> bool:
    """Whether a file was written by an export of this package."""
    if not path.is_file():
        return False
    if path.suffix == '.py':
        return path.read_text('utf-8', 'replace').startswith(HEADER)
    if path.suffix == '.onnx':
        return _is_exported_graph(path)
    try:
        meta = read_checkpoint(path).get('meta')
    except ValueError:
        return False
    return isinstance(meta, dict) and meta.get(RECORD) == EXPORTED[RECORD]


def _is_exported_graph(path: Path) -> bool:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, too
    try:
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    except Exception:  # a file of that name may hold anything
        return False
    key, value = EXPORTED_BY
    return session.get_modelmeta().custom_metadata_map.get(key) == value
