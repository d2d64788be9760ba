_base_ = './camvid_800.py'
# Trained and evaluated on the training split alone: a clip of it is held out.
splits = '{{ fileDirname }}/../splits'
cfg_options = {
    'train_dataloader.dataset.dataset.ann_file': f'{splits}/camvid_screening_train.txt',
    'val_dataloader.dataset.ann_file': f'{splits}/camvid_screening_val.txt',
    'val_dataloader.dataset.data_prefix.img_path': 'images/train',
    'val_dataloader.dataset.data_prefix.seg_map_path': 'annotations/train',
}
