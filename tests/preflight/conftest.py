import copy

import pytest
import torch
from factory import SIZE, build, demo_config
from method_models import network
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope

from mmseg_adm.datasets.stream import StreamPosition
from mmseg_adm.preflight import Report, inspect_run, inspection

CITY_CLASSES = 19
STEPS = 90


@pytest.fixture
def measured():
    """For tests in which the memory of a step is measured: that takes a good part of the time."""


@pytest.fixture(autouse=True)
def unmeasured(request, monkeypatch):
    """For all others."""
    if 'measured' not in request.fixturenames:
        monkeypatch.setattr(inspection, 'measure_memory', lambda *_: None)


@pytest.fixture
def preflight_config(city, tmp_path):
    """The demo on drawn data: small networks, small crops, preflight on."""
    config = demo_config(city, tmp_path / 'run', model__data_preprocessor__size=SIZE)
    config.train_dataloader.dataset.dataset.pipeline[3].crop_size = SIZE
    config.default_hooks.preflight.enabled = True
    # What draws has tests of its own, and takes most of the time.
    config.default_hooks.pop('pictures')
    config.param_scheduler[0].end = config.train_cfg.max_iters
    config.model.members.student = network(4, classes=CITY_CLASSES)
    config.model.members.teacher = network(8, classes=CITY_CLASSES)
    return config


@pytest.fixture
def inspect(preflight_config):
    """Inspect a model, or the one of the config, on drawn data."""

    def inspected(model: torch.nn.Module | None = None, **settings) -> Report:
        config: Config = copy.deepcopy(preflight_config)
        config.merge_from_dict(settings)
        init_default_scope('mmseg')
        model = build(config.model) if model is None else model
        datasets = {
            split: DATASETS.build(config[f'{split}_dataloader'].dataset)
            for split in ('train', 'val')
        }
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
        return inspect_run(config, model, wrapper, datasets)

    return inspected


@pytest.fixture(scope='session')
def trained_teacher(city, tmp_path_factory):
    """A checkpoint of the teacher's network after a short training on the drawn data."""
    init_default_scope('mmseg')
    config = demo_config(city, '')
    data = DATASETS.build(config.train_dataloader.dataset)
    network_config = network(8, classes=CITY_CLASSES)
    model = build(dict(network_config, data_preprocessor=config.model.data_preprocessor))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(STEPS):
        positions = [StreamPosition((4 * step + image) % len(data), step) for image in range(4)]
        batch = model.data_preprocessor(pseudo_collate([data[each] for each in positions]), True)
        loss = model(**batch, mode='loss')['decode.loss_ce']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    meta = dict(dataset_meta={key: list(data.metainfo[key]) for key in ('classes', 'palette')})
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def lines(report: Report, name: str) -> list[tuple[str, str]]:
    """Status and text of the checks of a name."""
    return [(check.status, check.text) for check in report.checks if check.name == name]
