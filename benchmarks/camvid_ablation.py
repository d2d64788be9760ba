"""Which reading of ADM, and which weight of every method: CamVid, a clip held out of training."""

_base_ = './_base_/camvid_screening.py'
# A trial runs with the first seed alone.
seeds = (0, 1, 2)
screening = (0,)


def trial(config, seeds=screening, **options):
    """A method with other settings."""
    return dict(
        config=config,
        cfg_options={f'model.methods.{key}': value for key, value in options.items()},
        seeds=seeds,
    )


def weighted(method, weights):
    """Trials of a method's weight."""
    return {
        f'{method} x{weight}': trial(method, **{f'{method}.weight': weight}) for weight in weights
    }


def adm(dml=0.1, seeds=screening, **options):
    """A trial of ADM beside DML of some weight."""
    settings = {f'adm.{key}': value for key, value in options.items()}
    base = {'dml.weight': dml} if dml else {'dml': None}
    return trial('adm', seeds, **base, **settings)


# CWD from a teacher in training, which is what channelwise is without weights.
online_cwd = {'cwd.type': 'mmseg_adm.CWD', 'cwd.weight': 5.0}
rank = dict(contrast='rank')
channelwise = dict(consensus='channelwise', consensus_weight=5.0)
reweighting = dict(divergence='reweighting')
pairs = dict(
    screening=dict(
        student='benchmarks/networks/pspnet_r18-w16-d8_camvid-96x128.py',
        teacher='benchmarks/networks/pspnet_r18-w32-d8_camvid-96x128.py',
        methods={
            'dml x0.1 + online cwd x5': trial('dml', **{'dml.weight': 0.1}, **online_cwd),
            'online cwd x5': trial('adm', dml=None, adm=None, **online_cwd),
            **weighted('cwd', (5.0,)),
            **weighted('dml', (0.1,)),
            'channelwise x5, none, rank': adm(**channelwise, divergence=None, **rank),
            'none, weighting': adm(consensus=None),
            'none, reweighting, rank': adm(consensus=None, **reweighting, **rank),
            'channelwise x5, none, rank, shuffled': adm(
                **channelwise, divergence=None, **rank, control='shuffled'
            ),
            'alignment, weighting': adm(),
            'alignment, none': adm(divergence=None),
            'none, repulsion': adm(consensus=None, divergence='repulsion'),
            'imitation, none': adm(consensus='imitation', divergence=None),
            'reweighting, none, rank': adm(consensus='reweighting', divergence=None, **rank),
            'modulation, none': adm(consensus='modulation', divergence=None),
            'none, modulation': adm(consensus=None, divergence='modulation'),
        },
    )
)
