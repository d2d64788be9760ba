"""Does ADM help? EfficientNet-Lite networks with ImageNet weights, CamVid, rows of equal cost.

Two questions. Without a teacher: one stage of ADM, or as much spent otherwise. With a trained
teacher: ADM goes on with it, or as much is spent without. Eight seeds where something is claimed,
three elsewhere.
"""

seeds = tuple(range(8))
# The last ones: trainings go seed by seed, and what is claimed comes first.
few = (5, 6, 7)
cfg_options = {
    'train_dataloader.dataset.cache': True,
    'default_hooks.logger.interval': 20,
    'default_hooks.checkpoint.interval': 625,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
}
# What could explain a gain without any decision of where: the terms everywhere alike, or elsewhere.
ones = {'model.methods.adm.control': 'ones'}
shuffled = {'model.methods.adm.control': 'shuffled'}
# Where the networks agree, and what they know there, while they train.
probe = {
    'default_hooks.probe': dict(
        type='mmseg_adm.AgreementProbeHook',
        foreground=('Pole', 'SignSymbol', 'Car', 'Pedestrian', 'Bicyclist'),
        interval=625,
        images=24,
    )
}
last_stage = {'model.members.bridge.split': 'stages.4'}
rows = {name: dict(config=name, fills_budget=True) for name in ('cwd', 'kd', 'dml')}
longer = {'student-longer': dict(config='student', fills_budget=True)}
networks = dict(
    student='networks/deeplabv3plus_efficientnet-lite0-s16_camvid-96x128.py',
    teacher='networks/deeplabv3plus_efficientnet-lite2-s16_camvid-96x128.py',
)
pairs = {
    'no-teacher-yet': dict(
        networks,
        budget='adm',
        methods={
            'adm': dict(config='adm', cfg_options=probe),
            'adm-ones': dict(config='adm', cfg_options=ones),
            'adm-shuffled': dict(config='adm', cfg_options=shuffled, seeds=few),
            'dml': rows['dml'],
            'cwd': rows['cwd'],
            'kd': dict(rows['kd'], seeds=few),
            'sokd': dict(config='sokd', fills_budget=True, seeds=few, cfg_options=last_stage),
            **longer,
        },
    ),
    'teacher-given': dict(
        networks,
        budget='adm-finetune',
        teacher_is_given=True,
        methods={
            'adm-finetune': dict(config='adm-finetune', cfg_options=probe),
            'adm-finetune-ones': dict(config='adm-finetune', cfg_options=ones),
            'adm-finetune-shuffled': dict(config='adm-finetune', cfg_options=shuffled, seeds=few),
            'cwd': rows['cwd'],
            'kd': rows['kd'],
            'consensus-cwd': dict(config='consensus-cwd', fills_budget=True, seeds=few),
            **longer,
        },
    ),
}
