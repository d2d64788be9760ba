"""How long networks with ImageNet weights must train until doubling gains less than one mIoU.

Each network alone, on the training split: a clip of it is held out. One seed.
"""

splits = '{{ fileDirname }}/splits'
seeds = (0,)
cfg_options = {
    'train_dataloader.dataset.cache': True,
    'train_dataloader.worker_init_fn.type': 'mmseg_adm.share_by_file_name',
    'train_dataloader.dataset.dataset.ann_file': f'{splits}/camvid_screening_train.txt',
    'val_dataloader.dataset.ann_file': f'{splits}/camvid_screening_val.txt',
    'val_dataloader.dataset.data_prefix.img_path': 'images/train',
    'val_dataloader.dataset.data_prefix.seg_map_path': 'annotations/train',
    'default_hooks.logger.interval': 20,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
}
network = 'networks/deeplabv3plus_efficientnet-{}_camvid-96x128.py'
# Beside 5000 iterations, the networks' own.
lengths = {'student': (1250, 2500, 10000), 'teacher': (2500, 10000)}
faster = {'optim_wrapper.optimizer.lr': 3e-3}
methods = {f'{name}-{count}': dict(config=name, iterations=count)
           for name, counts in lengths.items() for count in counts}  # fmt: skip
methods |= {f'{name}-2500-lr-3e-3': dict(config=name, iterations=2500, cfg_options=faster)
            for name in lengths}  # fmt: skip
pairs = {
    'lite2-s16_lite0-s16': dict(
        student=network.format('lite0-s16'), teacher=network.format('lite2-s16'), methods=methods
    )
}
