"""Every method on CamVid at full size, PSPNet and DeepLabV3, R101 and R50 to R18: for a GPU."""

seeds = (0, 1, 2)
cfg_options = {
    'train_dataloader.dataset.cache': True,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
}
networks = 'benchmarks/networks/{}_r{}-d8_camvid-360x480.py'
methods = ('kd', 'cwd', 'dml', 'adm', 'adm-finetune', 'adm-offline', 'consensus-cwd', 'at', 'dist',
           'fitnet', 'ifvd', 'kdcl', 'mgd', 'skd', 'sokd', 'switokd')  # fmt: skip
pairs = {
    f'{head}_r{depth}_r18': dict(
        student=dict(config=networks.format(head, 18), iterations=10000),
        teacher=dict(config=networks.format(head, depth), iterations=10000),
        methods={name: name for name in methods},
    )
    for head in ('pspnet', 'deeplabv3')
    for depth in (101, 50)
}
