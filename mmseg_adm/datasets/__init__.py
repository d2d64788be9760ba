"""Data sets, the resumable data stream and checks of both."""

from .camvid import CamVidDataset
from .stream import StreamDataset, StreamSampler
from .workers import share_by_file_name

__all__ = ['CamVidDataset', 'StreamDataset', 'StreamSampler', 'share_by_file_name']
