"""Which reading of ADM, and which weight of every method: CamVid, a clip held out of training.

*Warm* is a teacher that starts from the one trained alone and goes on at a tenth of the learning
rate, or at the share named; the others start with the student, or are frozen (CWD, KD).
"""

_base_ = './_base_/camvid_screening.py'
seeds = (0, 1, 2)
# The others run with the first seed alone.
finalists = {
    'cwd x5.0': seeds,
    'warm: channelwise x5, weighting': seeds,
    'warm: channelwise x5, weighting, all weights one': seeds,
    'warm: channelwise x5, repulsion': seeds,
    'warm at 0.3: channelwise x5, weighting': (0, 1),
}


def trial(config, warm=None, **options):
    """A method with other settings; ``warm`` is the share of the learning rate."""
    cfg_options = {f'model.{key}': value for key, value in options.items()}
    if warm:
        cfg_options['optim_wrapper.paramwise_cfg.custom_keys.teacher.lr_mult'] = warm
    return dict(config=config, cfg_options=cfg_options, trained_teacher=bool(warm))


def weighted(method, *weights):
    """Trials of a method's weight."""
    return {
        f'{method} x{weight}': trial(method, **{f'methods.{method}.weight': weight})
        for weight in weights
    }


# CWD from a teacher in training: channelwise with all weights one.
online_cwd = {'methods.cwd.type': 'mmseg_adm.CWD', 'methods.cwd.weight': 5.0}
average = {
    'members.mean_teacher.type': 'mmseg_adm.EMATeacher',
    'members.mean_teacher.momentum': 0.02,
}
from_average = average | {'methods.cwd.teacher': 'mean_teacher'}
dml = {'methods.dml.weight': 0.1}
no_dml = {'methods.dml': None}
no_adm = {'methods.adm': None}


def adm(base=no_dml, warm=0.1, start=None, **options):
    """A trial of ADM, by itself or beside DML, from an iteration on."""
    settings = {f'methods.adm.{key}': value for key, value in options.items()}
    found = trial('adm', warm, **base, **settings)
    if start:
        found['cfg_options']['default_hooks.schedule.schedules.adm.start'] = start
    return found


channelwise = dict(consensus='channelwise', consensus_weight=5.0)
no_divergence = dict(divergence=None)
rank = dict(contrast='rank')
trials = {
    **weighted('cwd', 5.0),
    **weighted('dml', 0.1),
    # Both networks from scratch.
    'online cwd x5': trial('adm', **no_dml, **no_adm, **online_cwd),
    'dml x0.1 + online cwd x5': trial('dml', **dml, **online_cwd),
    'cwd x5 from average': trial('adm', **no_dml, **no_adm, **online_cwd, **from_average),
    'dml x0.1 + cwd x5 from average': trial('adm', **dml, **no_adm, **online_cwd, **from_average),
    'channelwise x5, none, rank': adm(dml, warm=None, **channelwise, **no_divergence, **rank),
    # The second half, in which the teacher is better.
    'channelwise x5, weighting, from half way': adm(
        warm=None, start=400, **channelwise, divergence='weighting'
    ),
    'channelwise x5 from average, weighting, from half way': adm(
        no_dml | average,
        warm=None,
        start=400,
        target='mean_teacher',
        **channelwise,
        divergence='weighting',
    ),
    # From a trained teacher.
    'warm: online cwd x5': trial('adm', 0.1, **no_dml, **no_adm, **online_cwd),
    'warm: channelwise x5, weighting': adm(**channelwise, divergence='weighting'),
    'warm: alignment, weighting': adm(consensus='alignment', divergence='weighting'),
    'warm: dml x0.1': trial('dml', 0.1, **dml),
    'warm: dml x0.1 + channelwise x5, weighting': adm(dml, **channelwise, divergence='weighting'),
    'warm: channelwise x5, weighting, rank': adm(**channelwise, divergence='weighting', **rank),
    'warm: channelwise x5, weighting, rank, shuffled': adm(
        **channelwise, divergence='weighting', **rank, control='shuffled'
    ),
    'warm: channelwise x5, weighting, all weights one': adm(
        **channelwise, divergence='weighting', control='ones'
    ),
    'warm: channelwise x5, repulsion': adm(**channelwise, divergence='repulsion'),
    'warm: imitation, weighting': adm(consensus='imitation', divergence='weighting'),
    'warm: channelwise x20, weighting': adm(
        consensus='channelwise', consensus_weight=20.0, divergence='weighting'
    ),
    'warm: channelwise x5, repulsion, all weights one': adm(
        **channelwise, divergence='repulsion', control='ones'
    ),
    'warm: channelwise x5, repulsion x4': adm(
        **channelwise, divergence='repulsion', divergence_weight=4.0
    ),
    'warm at 0.3: channelwise x5, weighting': adm(warm=0.3, **channelwise, divergence='weighting'),
    # The baselines' weights, as many trials as ADM's.
    **weighted('cwd', 2.0, 20.0),
    **weighted('kd', 0.3, 1.0, 3.0),
    **weighted('dml', 0.3, 1.0),
}


def with_seeds(trials):
    """More than one for the finalists."""
    return {
        name: dict(settings, seeds=finalists.get(name, seeds[:1]))
        for name, settings in trials.items()
    }


pairs = dict(
    screening=dict(
        student='benchmarks/networks/pspnet_r18-w16-d8_camvid-96x128.py',
        teacher='benchmarks/networks/pspnet_r18-w32-d8_camvid-96x128.py',
        methods=with_seeds(trials),
    ),
)
