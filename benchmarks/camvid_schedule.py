"""The learning rate of the networks of camvid_small.py alone, with the class weights of then."""

seeds = (0,)
iterations = 800
cfg_options = {
    # Before camvid_recipe.py.
    'model.decode_head.loss_decode.class_weight': [
        0.59,
        0.43,
        10.12,
        0.32,
        2.11,
        0.89,
        8.13,
        4.18,
        1.67,
        13.49,
        18.63,
    ],
    'train_dataloader.dataset.cache': True,
    'train_cfg.max_iters': iterations,
    'train_cfg.val_interval': 400,
    'param_scheduler.0.end': iterations,
    'default_hooks.checkpoint.interval': 400,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
}
networks = dict(
    student='configs/pspnet/pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py',
    teacher='configs/pspnet/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128.py',
)
pairs = {
    f'lr{rate}': {
        name: dict(config=config, cfg_options={'optim_wrapper.optimizer.lr': rate})
        for name, config in networks.items()
    }
    for rate in (0.001, 0.002, 0.004, 0.008)
}
