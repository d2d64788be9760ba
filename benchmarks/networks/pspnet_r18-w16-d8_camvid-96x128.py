_base_ = '../../configs/pspnet/pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py'
custom_hooks = [
    dict(
        type='mmseg_adm.ForegroundProbeHook',
        foreground=('Pole', 'SignSymbol', 'Car', 'Pedestrian', 'Bicyclist'),
        interval=50,
        images=24,
    )
]
