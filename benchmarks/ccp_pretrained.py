"""The rows of camvid_pretrained.py on photos of clothes (CCP): does a gain hold elsewhere?"""

_base_ = './camvid_pretrained.py'
networks = dict(
    student='networks/deeplabv3plus_efficientnet-lite0-s16_ccp-128x96.py',
    teacher='networks/deeplabv3plus_efficientnet-lite2-s16_ccp-128x96.py',
)
small = ('footwear', 'bag', 'hat', 'scarf', 'belt', 'eyewear', 'accessories')
probed = dict(cfg_options={'default_hooks.probe': dict(foreground=small)})
pairs = {
    'no-teacher-yet': dict(networks, methods=dict(adm=probed)),
    'teacher-given': dict(networks, methods={'adm-finetune': probed}),
}
