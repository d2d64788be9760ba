"""CamVid, the SegNet version with 11 classes."""

from typing import ClassVar

from mmseg.datasets import BaseSegDataset

from mmseg_adm.registry import DATASETS


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid (Brostow, Fauqueur, Cipolla, Semantic object classes in video, 2009).

    ``ROOT/images/{train,val}/NAME.jpg`` and ``ROOT/annotations/{train,val}/NAME.png``, an
    8-bit index map with 255 for what is not labeled.

    Args:
        img_suffix: Ending of the images.
        seg_map_suffix: Ending of the index maps.
        reduce_zero_label: Always false: 0 is Sky.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=(
            'Sky', 'Building', 'Pole', 'Road', 'Pavement', 'Tree', 'SignSymbol', 'Fence', 'Car',
            'Pedestrian', 'Bicyclist',
        ),
        palette=[
            [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [0, 0, 192],
            [128, 128, 0], [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0],
            [0, 128, 192],
        ],
    )  # fmt: skip

    def __init__(
        self,
        img_suffix: str = '.jpg',
        seg_map_suffix: str = '.png',
        reduce_zero_label: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            reduce_zero_label=reduce_zero_label,
            **kwargs,
        )
