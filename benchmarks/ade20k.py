"""ADE20K on MMSegmentation's 80k schedule, R101 to R18: for four GPUs (--gpus 4)."""

seeds = (0,)
cfg_options = {
    'default_hooks.checkpoint.interval': 8000,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
}
setting = '4xb4-80k_ade20k-512x512.py'
# Whose configs lie with another method's, or under a name for Python.
folders = {
    'adm-finetune': 'adm',
    'adm-offline': 'adm',
    'consensus-cwd': 'consensus_cwd',
}


def configs(head, methods):
    """The shipped configs of these networks."""
    pair = f'{head}_r101-d8_{head}_r18-d8_{setting}'
    return dict(
        student=f'configs/{head}/{head}_r18-d8_{setting}',
        teacher=f'configs/{head}/{head}_r101-d8_{setting}',
        methods={name: f'configs/{folders.get(name, name)}/{name}_{pair}' for name in methods},
    )


compared = ('kd', 'cwd', 'dml', 'adm', 'adm-finetune', 'adm-offline', 'consensus-cwd')
others = ('at', 'dist', 'fitnet', 'ifvd', 'kdcl', 'mgd', 'skd', 'sokd', 'switokd')
pairs = dict(
    pspnet=configs('pspnet', (*compared, *others)), deeplabv3=configs('deeplabv3', compared)
)
