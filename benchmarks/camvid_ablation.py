"""Which reading of ADM, and which weight of every method: CamVid, a clip held out of training."""

_base_ = './_base_/camvid_screening.py'
seeds = (0,)


def weighted(method, weights):
    """Trials of a method's weight."""
    return {
        f'{method} x{weight}': dict(
            config=method, cfg_options={f'model.methods.{method}.weight': weight}
        )
        for weight in weights
    }


# What ADM's terms stand beside: DML, or CWD from the teacher in training.
beside_dml = {'model.methods.dml.weight': 0.1}
beside_cwd = {
    'model.methods.dml': None,
    'model.methods.cwd.type': 'mmseg_adm.CWD',
    'model.methods.cwd.weight': 5.0,
}


def adm(base=beside_dml, **options):
    """A trial of ADM."""
    settings = {f'model.methods.adm.{key}': value for key, value in options.items()}
    return dict(config='adm', cfg_options=base | settings)


rank = dict(contrast='rank', divergence='reweighting')
pairs = dict(
    screening=dict(
        student='benchmarks/networks/pspnet_r18-w16-d8_camvid-96x128.py',
        teacher='benchmarks/networks/pspnet_r18-w32-d8_camvid-96x128.py',
        methods={
            **weighted('dml', (0.1, 0.3, 1.0)),
            **weighted('cwd', (5.0, 20.0, 2.0)),
            **weighted('kd', (1.0, 3.0, 0.3)),
            'alignment, weighting': adm(),
            'alignment, weighting, all weights one': adm(control='ones'),
            'alignment, weighting, shuffled': adm(control='shuffled'),
            'alignment, reweighting, rank': adm(**rank),
            'alignment x3, weighting': adm(consensus_weight=3.0),
            'alignment x0.3, weighting': adm(consensus_weight=0.3),
            'online cwd + alignment, weighting': adm(beside_cwd),
            'online cwd': adm(beside_cwd | {'model.methods.adm': None}),
            'imitation, weighting': adm(consensus='imitation'),
            'alignment at logits, weighting': adm(at='logits'),
            'alignment, weighting, rank': adm(contrast='rank'),
            'imitation, reweighting, rank': adm(**rank, consensus='imitation'),
            'reweighting, reweighting, rank': adm(**rank, consensus='reweighting'),
            'modulation, modulation': adm(consensus='modulation', divergence='modulation'),
            'alignment, repulsion': adm(divergence='repulsion'),
        },
    )
)
