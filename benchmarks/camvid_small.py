"""PSPNet R18 of base widths 32 and 16 on CamVid at 96x128, from scratch: for two CPU cores."""

_base_ = './_base_/camvid_800.py'
seeds = (0, 1, 2)
# Of camvid_first_look.py the best.
weight_of_dml = {'model.methods.dml.weight': 0.1}
pairs = dict(
    pspnet=dict(
        student='benchmarks/networks/pspnet_r18-w16-d8_camvid-96x128.py',
        teacher='benchmarks/networks/pspnet_r18-w32-d8_camvid-96x128.py',
        methods=dict(
            kd='kd',
            cwd='cwd',
            dml=dict(config='dml', cfg_options=weight_of_dml),
            adm=dict(config='adm', cfg_options=weight_of_dml),
        ),
    )
)
