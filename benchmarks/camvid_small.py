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
setting = 'pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py'
pairs = dict(
    pspnet=dict(
        student='configs/pspnet/pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py',
        teacher='configs/pspnet/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128.py',
        methods=dict(
            kd=f'configs/kd/kd_{setting}',
            cwd=f'configs/cwd/cwd_{setting}',
            dml=f'configs/dml/dml_{setting}',
            # Of camvid_ablation.py the best weight; probed for where the networks agree.
            dml_tuned=dict(
                config='benchmarks/probed/dml.py', cfg_options={'model.methods.dml.weight': 0.1}
            ),
            adm='benchmarks/probed/adm.py',
        ),
    )
)
