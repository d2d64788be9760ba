"""How the cross entropy of the networks of camvid_small.py weighs classes, each network alone.

On the clip that camvid_ablation.py holds out of training.
"""

_base_ = './_base_/camvid_screening.py'
seeds = (0,)
weight = 'model.decode_head.loss_decode.class_weight'
# All alike, median frequency over frequency, and the square root of that; mean one over pixels.
recipes = dict(
    root=[0.87, 0.74, 3.6, 0.64, 1.64, 1.07, 3.23, 2.31, 1.46, 4.16, 4.88],
    alike=[1.0] * 11,
    median_frequency=[0.59, 0.43, 10.12, 0.32, 2.11, 0.89, 8.13, 4.18, 1.67, 13.49, 18.63],
)
networks = dict(
    student='configs/pspnet/pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py',
    teacher='configs/pspnet/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128.py',
)
pairs = {
    recipe: {
        name: dict(config=config, cfg_options={weight: weights})
        for name, config in networks.items()
    }
    for recipe, weights in recipes.items()
}
