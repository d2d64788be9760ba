"""The rows of camvid_pretrained.py on photos of clothes (CCP): does a gain hold elsewhere?"""

_base_ = './camvid_pretrained.py'
networks = dict(
    student='networks/deeplabv3plus_efficientnet-lite0-s16_ccp-128x96.py',
    teacher='networks/deeplabv3plus_efficientnet-lite2-s16_ccp-128x96.py',
)
pairs = {'no-teacher-yet': networks, 'teacher-given': networks}
