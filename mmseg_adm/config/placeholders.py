"""Configs as text that another machine can read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

# What lies elsewhere on another machine.
PLACES = ('data_root', 'checkpoint')
# MMEngine takes a default for a regular expression, which ends at a blank.
PLAIN = re.compile(r'[\w/.~-]+')


def text_of(config: Config) -> str:
    """A config as Python text, its places named by the environment variables they came from.

    MMEngine writes what a variable held, and the variable of another machine, or of another user,
    would have no effect. As a default it stays: ``'{{$CAMVID_ROOT:/data/camvid}}'``.
    """
    variables = {value: f'{{{{${name}:{value}}}}}' for name, value in config.env_variables.items()
                 if PLAIN.fullmatch(value)}  # fmt: skip
    if not variables:
        return config.pretty_text
    return Config(_with_placeholders(config.to_dict(), variables)).pretty_text


def _with_placeholders(node: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {
            key: _placeholder(child, variables)
            if key in PLACES and isinstance(child, str)
            else _with_placeholders(child, variables)
            for key, child in node.items()
        }
    if isinstance(node, (list, tuple)):
        return type(node)(_with_placeholders(child, variables) for child in node)
    return node


def _placeholder(path: str, variables: Mapping[str, str]) -> str:
    for value, placeholder in variables.items():
        if path == value or path.startswith(f'{value}/'):
            return placeholder + path.removeprefix(value)
    return path
