"""Data sets, the resumable data stream and checks of both."""

from .camvid import CamVidDataset
from .stream import StreamDataset, StreamSampler

__all__ = ['CamVidDataset', 'StreamDataset', 'StreamSampler']
