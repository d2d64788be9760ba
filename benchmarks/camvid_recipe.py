"""How the cross entropy of the networks of camvid_small.py weighs classes, each network alone.

On the clip that camvid_ablation.py holds out of training.
"""

seeds = (0,)
iterations = 800
splits = '{{ fileDirname }}/splits'
cfg_options = {
    'train_dataloader.dataset.cache': True,
    'train_cfg.max_iters': iterations,
    'train_cfg.val_interval': 400,
    'param_scheduler.0.end': iterations,
    'optim_wrapper.optimizer.lr': 0.004,
    'default_hooks.checkpoint.interval': 400,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
    'train_dataloader.dataset.dataset.ann_file': f'{splits}/camvid_screening_train.txt',
    'val_dataloader.dataset.ann_file': f'{splits}/camvid_screening_val.txt',
    'val_dataloader.dataset.data_prefix.img_path': 'images/train',
    'val_dataloader.dataset.data_prefix.seg_map_path': 'annotations/train',
}
weight = 'model.decode_head.loss_decode.class_weight'
# All alike, median frequency over frequency, and the square root of that; mean one over pixels.
recipes = dict(
    root=[0.87, 0.74, 3.6, 0.64, 1.64, 1.07, 3.23, 2.31, 1.46, 4.16, 4.88],
    alike=[1.0] * 11,
    median_frequency=[0.59, 0.43, 10.12, 0.32, 2.11, 0.89, 8.13, 4.18, 1.67, 13.49, 18.63],
)
networks = dict(
    student='configs/pspnet/pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py',
    teacher='configs/pspnet/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128.py',
)
pairs = {
    recipe: {
        name: dict(config=config, cfg_options={weight: weights})
        for name, config in networks.items()
    }
    for recipe, weights in recipes.items()
}
