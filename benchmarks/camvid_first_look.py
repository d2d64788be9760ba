"""A first look at readings of ADM, on class weights that camvid_recipe.py then found untuned.

CamVid, a clip held out of training. camvid_ablation.py goes on from here with tuned ones.
"""

_base_ = './_base_/camvid_screening.py'
seeds = (0,)
# Before camvid_recipe.py.
class_weight = [0.59, 0.43, 10.12, 0.32, 2.11, 0.89, 8.13, 4.18, 1.67, 13.49, 18.63]
alone = {'model.decode_head.loss_decode.class_weight': class_weight}
together = {
    f'model.members.{member}.decode_head.loss_decode.class_weight': class_weight
    for member in ('student', 'teacher')
}
setting = 'pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py'


def weighted(method, weights):
    """Trials of a method's weight."""
    config = f'configs/{method}/{method}_{setting}'
    return {
        f'{method} x{weight}': dict(
            config=config, cfg_options=together | {f'model.methods.{method}.weight': weight}
        )
        for weight in weights
    }


def adm(**options):
    """A trial of ADM beside DML of weight 0.1."""
    settings = {f'model.methods.adm.{key}': value for key, value in options.items()}
    beside = {'model.methods.dml.weight': 0.1}
    return dict(config=f'configs/adm/adm_{setting}', cfg_options=together | beside | settings)


rank = dict(contrast='rank', divergence='reweighting')
methods = {
    **weighted('dml', (0.3, 0.1)),
    'alignment, weighting': adm(class_weight=True),
    'alignment, reweighting, rank': adm(**rank),
    'alignment x5, weighting': adm(consensus_weight=5.0),
    **weighted('cwd', (5.0, 20.0)),
    'alignment, weighting, all classes alike': adm(class_weight=False),
}
pairs = dict(
    screening=dict(
        student=dict(
            config='configs/pspnet/pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py', cfg_options=alone
        ),
        teacher=dict(
            config='configs/pspnet/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128.py', cfg_options=alone
        ),
        methods=methods,
    )
)
