"""Shipped CamVid configs on the real images, as they are but for their length.

One of each kind: what they train is what tests/config/test_shipped.py trains on drawn images.
"""

import pytest
import torch
from factory import ROOT, build, differences
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.benchmark.profiling import use_untrained_teachers
from mmseg_adm.checkpoint import install_safe_loading

pytestmark = pytest.mark.slow

KINDS = ('adm', 'adm-finetune', 'cwd', 'ffsd', 'sokd')
CONFIGS = {name: next(ROOT.glob(f'configs/*/{name}_*_camvid-96x128.py')) for name in KINDS}
ITERS = 3


class Losses(Hook):
    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append({name: float(value) for name, value in outputs.items()})


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_on_camvid(name, camvid, tmp_path, monkeypatch):
    monkeypatch.setenv('CAMVID_ROOT', str(camvid))
    install_safe_loading()
    config = Config.fromfile(CONFIGS[name])
    use_untrained_teachers(config, tmp_path)
    config.work_dir = str(tmp_path / 'run')
    config.train_cfg.update(max_iters=ITERS, val_interval=1000, val_begin=1000)
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    config.default_hooks.preflight.enabled = False
    runner = Runner.from_cfg(config)
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    assert len(losses.seen) == ITERS
    for method in config.model.methods:
        terms = [term for term in losses.seen[0] if term.startswith(f'{method}.loss_')]
        assert terms
        # The networks move, so every term does.
        assert all(len({seen[term] for seen in losses.seen}) > 1 for term in terms)
    fresh = build(config.model).state_dict()
    moved = {
        path.split('/')[1] for path in differences(dict(fresh), dict(runner.model.state_dict()))
    }
    for member in runner.model.members:
        assert f'members.{member}.decode_head.conv_seg.weight' in moved
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())
