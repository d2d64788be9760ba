"""Cityscapes on MMSegmentation's 80k schedule, R101 to R18: for four GPUs (--gpus 4)."""

seeds = (0,)
cfg_options = {
    'default_hooks.checkpoint.interval': 8000,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
}
setting = '4xb2-80k_cityscapes-512x1024.py'


def configs(head, methods):
    """The shipped configs of these networks."""
    pair = f'{head}_r101-d8_{head}_r18-d8_{setting}'
    return dict(
        student=f'configs/{head}/{head}_r18-d8_{setting}',
        teacher=f'configs/{head}/{head}_r101-d8_{setting}',
        methods={
            'adm-warm': dict(config=f'configs/adm/adm-warm_{pair}', trained_teacher=True),
            **{name: f'configs/{name.split("-")[0]}/{name}_{pair}' for name in methods},
        },
    )


pairs = dict(
    pspnet=configs(
        'pspnet',
        ('kd', 'cwd', 'dml', 'adm', 'adm-offline', 'at', 'dist', 'fitnet', 'ifvd', 'kdcl', 'mgd',
         'skd', 'sokd', 'switokd'),
    ),
    deeplabv3=configs('deeplabv3', ('kd', 'cwd', 'dml', 'adm', 'adm-offline')),
)  # fmt: skip
