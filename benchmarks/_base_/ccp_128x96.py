# Clothing Co-Parsing (CCP_ROOT), 16 classes: a plain data set of MMSegmentation's. Portrait photos
# of about 320x213, at half size.
_base_ = '../../configs/_base_/datasets/cityscapes_512x1024.py'
dataset_type = 'BaseSegDataset'
data_root = '{{$CCP_ROOT:data/ccp}}'
crop_size = (128, 96)
metainfo = dict(
    classes=(
        'background', 'skin', 'hair', 'top', 'outerwear', 'dress_skirt', 'trousers', 'shorts',
        'legwear', 'footwear', 'bag', 'hat', 'scarf', 'belt', 'eyewear', 'accessories',
    ),
    palette=[
        [0, 0, 0], [224, 172, 140], [96, 64, 32], [220, 60, 60], [60, 90, 200], [200, 80, 180],
        [70, 150, 90], [150, 200, 80], [130, 130, 170], [240, 160, 40], [140, 90, 50],
        [250, 230, 90], [90, 200, 210], [120, 40, 80], [40, 40, 40], [240, 240, 240],
    ],
)  # fmt: skip
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(160, 107), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 107), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
common = dict(
    type=dataset_type,
    data_root=data_root,
    metainfo=metainfo,
    img_suffix='.jpg',
    seg_map_suffix='.png',
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        dataset=dict(
            **common,
            data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **common,
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
