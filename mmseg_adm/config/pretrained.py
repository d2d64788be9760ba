"""A config that runs without a download."""

from __future__ import annotations

from mmengine.config import Config

from mmseg_adm.checkpoint import drop_pretrained, is_remote

from .kinds import learning_rate_factor


def drop_downloads(config: Config) -> None:
    """Drop every checkpoint that would have to be downloaded, in place.

    Raises:
        ValueError: If a member would stay untrained that goes on from one at a low learning rate.
    """
    for name, member in (config.model.get('members') or {}).items():
        if member and learning_rate_factor(config, name) < 1:
            check_not_dropped(name, member.get('checkpoint'))
    drop_pretrained(config.model, remote_only=True)
    if is_remote(config.get('load_from')):
        config.load_from = None


def check_not_dropped(member: str, checkpoint: object) -> None:
    """Refuse to drop what a member goes on from at a low learning rate.

    Raises:
        ValueError: If it would have to be downloaded.
    """
    if is_remote(checkpoint):
        raise ValueError(
            f"'{member}' goes on from {checkpoint} at a low learning rate, and would stay "
            'untrained without it: in place of --no-pretrained (pretrained=False) give it a file, '
            f'model.members.{member}.checkpoint, or train another config'
        )
