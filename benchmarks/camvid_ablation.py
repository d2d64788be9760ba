"""Which reading of ADM, and which weight of every method: CamVid, a clip held out of training."""

seeds = (0,)
iterations = 400
splits = '{{ fileDirname }}/splits'
cfg_options = {
    'train_cfg.max_iters': iterations,
    'train_cfg.val_interval': iterations,
    'param_scheduler.0.end': iterations,
    # Of camvid_schedule.py the best for both networks together.
    'optim_wrapper.optimizer.lr': 0.004,
    'default_hooks.checkpoint.interval': iterations,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
    'train_dataloader.dataset.dataset.ann_file': f'{splits}/camvid_screening_train.txt',
    'val_dataloader.dataset.ann_file': f'{splits}/camvid_screening_val.txt',
    'val_dataloader.dataset.data_prefix.img_path': 'images/train',
    'val_dataloader.dataset.data_prefix.seg_map_path': 'annotations/train',
}
setting = 'pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py'


def weighted(method, weights):
    """Trials of a method's weight."""
    config = f'configs/{method}/{method}_{setting}'
    return {
        f'{method} x{weight}': dict(
            config=config, cfg_options={f'model.methods.{method}.weight': weight}
        )
        for weight in weights
    }


methods = {
    **weighted('dml', (0.1, 0.3, 1.0, 3.0)),
    **weighted('cwd', (1.0, 5.0, 20.0, 80.0)),
    **weighted('kd', (0.3, 1.0, 3.0, 10.0)),
}
pairs = dict(
    screening=dict(
        student='configs/pspnet/pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py',
        teacher='configs/pspnet/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128.py',
        methods=methods,
    )
)
