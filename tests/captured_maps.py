"""What networks compute in a step, read by hooks of the tests' own."""

from __future__ import annotations

import reference
import torch
from factory import losses_of, raw_batch

MEMBERS = ('student', 'teacher')
# Maps of 4 x 6, and of 2 x 3 with stride 2.
SMALL = (16, 24)


class Captured:
    """What networks compute, read by hooks of the test's own.

    Args:
        model: A distiller of PSPNets.
        batch: What it will be run on.
    """

    def __init__(self, model, batch):
        self.features, self.logits = {}, {}
        self.labels = torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']])
        for name in model.member_names:
            head = model.network(name).decode_head
            head.bottleneck.register_forward_hook(self._keep(self.features, name))
            head.conv_seg.register_forward_hook(self._keep(self.logits, name))

    @staticmethod
    def _keep(store, name):
        def hook(module, inputs, output):
            # The first output is the network's own: modulation runs the classifier again.
            store.setdefault(name, output.detach())

        return hook

    def labels_like(self, maps):
        """The labels that the centers of the map's cells fall on."""
        (height, width), (rows, columns) = self.labels.shape[-2:], maps.shape[-2:]
        down = [int((i + 0.5) * height / rows) for i in range(rows)]
        right = [int((j + 0.5) * width / columns) for j in range(columns)]
        return self.labels[:, down][:, :, right]

    def valid(self, maps):
        """y != 255 there."""
        return self.labels_like(maps) != 255


def capture(model, size):
    """Maps and losses of one batch."""
    batch = raw_batch(size=size)
    captured = Captured(model, batch)
    return captured, losses_of(model, batch)


def resized(maps, like):
    """Bilinear resizing by loops."""
    size = tuple(like.shape[-2:])
    planes = maps.double().flatten(0, 1)
    return torch.stack([reference.resize(plane, size) for plane in planes]).unflatten(
        0, maps.shape[:2]
    )
