"""PSPNet R18 of base widths 32 and 16 on CamVid at 96x128, from scratch: for two CPU cores.

Of the methods named *warm* the teacher starts from the one trained alone and goes on at a tenth of
the learning rate. Beside adm-warm stand its controls: what the teacher alone does to CWD
(cwd-warm), and DML from that teacher (dml-warm).
"""

_base_ = './_base_/camvid_800.py'
seeds = (0, 1, 2)
# Of the first trials the best: benchmarks/results/camvid_first_look.md.
weight_of_dml = {'model.methods.dml.weight': 0.1}


def warm(config, share=0.1, seeds=seeds, **options):
    """From a trained teacher, at a share of the learning rate."""
    cfg_options = {f'model.methods.{key}': value for key, value in options.items()}
    cfg_options['optim_wrapper.paramwise_cfg.custom_keys.teacher.lr_mult'] = share
    return dict(config=config, cfg_options=cfg_options, seeds=seeds, trained_teacher=True)


student = 'benchmarks/networks/pspnet_r18-w16-d8_camvid-96x128.py'
teacher = 'benchmarks/networks/pspnet_r18-w32-d8_camvid-96x128.py'
channelwise = {'dml': None, 'adm.consensus': 'channelwise'}
repulsion = channelwise | {'adm.divergence': 'repulsion'}
online_cwd = {'dml': None, 'adm': None, 'cwd.type': 'mmseg_adm.CWD', 'cwd.weight': 5.0}
pairs = dict(
    pspnet=dict(
        student=student,
        teacher=teacher,
        methods={
            'kd': 'kd',
            'cwd': 'cwd',
            'dml': dict(config='dml', cfg_options=weight_of_dml),
            'adm': dict(config='adm', cfg_options=weight_of_dml),
            'adm-warm': warm('adm', **channelwise),
            'adm-warm, repulsion': warm('adm', seeds=(0, 1), **repulsion),
            'cwd-warm': warm('adm', **online_cwd),
            'dml-warm': warm('dml', **{'dml.weight': 0.1}),
        },
    ),
    # 800 iterations are too few for the teacher: the same from one that trained for 1600.
    longer=dict(
        student=student,
        teacher=dict(
            config=teacher,
            cfg_options={'train_cfg.max_iters': 1600, 'param_scheduler.0.end': 1600},
        ),
        methods={
            'kd': 'kd',
            'cwd': 'cwd',
            'adm-warm': warm('adm', **channelwise),
            'adm-warm, repulsion': warm('adm', seeds=(0, 1), **repulsion),
            'cwd-warm': warm('adm', **online_cwd),
            'adm-warm at 0.3': warm('adm', 0.3, (0, 1), **channelwise),
            'cwd-warm at 0.3': warm('adm', 0.3, (0, 1), **online_cwd),
        },
    ),
)
