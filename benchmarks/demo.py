"""The trainings of `mmseg-adm demo` with five seeds: does the student gain at equal time?

The data are drawn: python -m mmseg_adm.datasets.synthetic_city as the demo does.
"""

seeds = (0, 1, 2, 3, 4)
cfg_options = {'default_hooks.logger.interval': 20, 'train_dataloader.dataset.cache': True}
network = 'mmseg_adm::fpn/fpn_r18-{}_1xb4-demo_synthetic-city-96x128.py'
pairs = dict(
    demo=dict(
        student=dict(config=network.format('w16'), iterations=480),
        teacher=dict(config=network.format('w32'), iterations=1200),
        methods=dict(distilled=dict(config='cwd', iterations=300)),
    )
)
