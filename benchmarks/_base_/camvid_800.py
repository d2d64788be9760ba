# 800 iterations on CamVid at 96x128, with the best learning rate of camvid_schedule.py.
cfg_options = {
    'train_dataloader.dataset.cache': True,
    'train_dataloader.worker_init_fn.type': 'mmseg_adm.share_by_file_name',
    'train_cfg.max_iters': 800,
    'train_cfg.val_interval': 400,
    'param_scheduler.0.end': 800,
    'optim_wrapper.optimizer.lr': 0.004,
    'default_hooks.checkpoint.interval': 400,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
}
