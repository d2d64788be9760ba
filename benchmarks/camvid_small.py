"""PSPNet R18 of base widths 32 and 16 on CamVid at 96x128, from scratch: for two CPU cores."""

seeds = (0, 1, 2)
iterations = 800
cfg_options = {
    'train_dataloader.dataset.cache': True,
    'train_cfg.max_iters': iterations,
    'train_cfg.val_interval': 400,
    'param_scheduler.0.end': iterations,
    # Of camvid_schedule.py the best for both networks together.
    'optim_wrapper.optimizer.lr': 0.004,
    'default_hooks.checkpoint.interval': 400,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
}
# Of camvid_first_look.py the best.
weight_of_dml = {'model.methods.dml.weight': 0.1}
pairs = dict(
    pspnet=dict(
        student='benchmarks/networks/pspnet_r18-w16-d8_camvid-96x128.py',
        teacher='benchmarks/networks/pspnet_r18-w32-d8_camvid-96x128.py',
        methods=dict(
            kd='kd',
            cwd='cwd',
            dml=dict(config='dml', cfg_options=weight_of_dml),
            adm=dict(config='adm', cfg_options=weight_of_dml),
        ),
    )
)
