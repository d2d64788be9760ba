import cv2
import numpy as np
import pytest
import torch
from factory import ROOT, build, demo_config
from matplotlib import colormaps
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.engine.hooks import consensus_picture
from mmseg_adm.engine.hooks.consensus_picture import read_maps
from mmseg_adm.engine.panel import draw_panel
from mmseg_adm.export import plain_config

CONFIGS = ROOT / 'configs'
PAIR = 'pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'
MAPS = {'similarity', 'consensus weight', 'divergence weight'}


class Predictions(Hook):
    """The student's predictions of the validation images."""

    def __init__(self):
        self.seen = []

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append(outputs[0].pred_sem_seg.data[0].numpy())


@pytest.fixture
def make_runner(city, tmp_path):
    """A runner whose validation images are neither scaled up nor down."""

    def make(config=f'adm/adm_{PAIR}', **options):
        path = CONFIGS / config
        config = demo_config(city, tmp_path, config=path, **options)
        if config.model.members.teacher.get('frozen'):
            network = plain_config(config, 'teacher').model
            torch.save({'state_dict': build(network).state_dict()}, tmp_path / 'teacher.pth')
            config.model.members.teacher.checkpoint = str(tmp_path / 'teacher.pth')
        height, width = cv2.imread(str(next(city.rglob('val/**/*_leftImg8bit.png')))).shape[:2]
        config.default_hooks.checkpoint.save_best = None
        for step in config.val_dataloader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (width, height)
        return Runner.from_cfg(config)

    return make


@pytest.fixture
def drawn(monkeypatch):
    """What the panels were drawn of, and the panels."""
    calls = []

    def draw(image, labels, predictions, weights, **options):
        panel = draw_panel(image, labels, predictions, weights, **options)
        calls.append(dict(image=image, labels=labels, predictions=predictions, weights=weights,
                          panel=panel, **options))  # fmt: skip
        return panel

    monkeypatch.setattr(consensus_picture, 'draw_panel', draw)
    return calls


def differ_by_place(runner):
    """Let fresh networks predict several classes: with the batch's statistics for their own."""
    data = pseudo_collate([runner.val_dataloader.dataset[index] for index in range(2)])
    inputs = runner.model.data_preprocessor(data)['inputs']
    for name in runner.model.member_names:
        network = runner.model.network(name)
        for module in network.train().modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network(inputs)
        torch.nn.init.normal_(network.eval().decode_head.conv_seg.weight)


@pytest.mark.parametrize(
    ('config', 'maps'),
    [
        (f'adm/adm_{PAIR}', MAPS),
        (f'adm/adm-offline_{PAIR}', MAPS),
        (f'dml/dml_{PAIR}', set()),
        (f'cwd/cwd_{PAIR}', set()),
    ],
)
def test_a_picture_is_written_after_the_validation(config, maps, make_runner, drawn, tmp_path):
    runner = make_runner(config)
    runner.val()
    (call,) = drawn
    assert set(call['weights']) == maps
    assert set(call['predictions']) == {'student', 'teacher'}
    assert call['title'] == 'iteration 0'
    panel = call['panel']
    assert 300 < panel.shape[0] < 2000
    assert 800 < panel.shape[1] < 3000
    (written,) = (tmp_path / 'pictures').iterdir()
    assert written.name == 'consensus_0_iter_0.png'
    assert (cv2.imread(str(written))[..., ::-1] == panel).all()
    (shown,) = tmp_path.rglob('vis_image/consensus_0_0.png')
    assert (cv2.imread(str(shown))[..., ::-1] == panel).all()


def test_indices_and_folder(make_runner, drawn, tmp_path):
    options = {
        'default_hooks__pictures__indices': (1, 5),
        'default_hooks__pictures__out_dir': 'elsewhere',
    }
    runner = make_runner(**options)
    runner.val()
    names = {path.name for path in (tmp_path / 'elsewhere').iterdir()}
    assert names == {'consensus_1_iter_0.png', 'consensus_5_iter_0.png'}
    for call, index in zip(drawn, (1, 2), strict=True):
        info = runner.val_dataloader.dataset.get_data_info(index)
        assert (call['image'] == cv2.imread(info['img_path'])[..., ::-1]).all()
        assert (call['labels'] == cv2.imread(info['seg_map_path'], cv2.IMREAD_GRAYSCALE)).all()


@pytest.mark.parametrize(
    'hooks',
    [[], [dict(type='EMAHook', momentum=1e-4)]],
    ids=['weights as trained', 'averaged weights'],
)
def test_the_picture_shows_what_was_validated(hooks, make_runner, drawn):
    runner = make_runner(
        train_cfg__max_iters=2, optim_wrapper__optimizer__lr=0.1, custom_hooks=hooks
    )
    differ_by_place(runner)
    runner.model.is_init = True
    predictions = Predictions()
    runner.register_hook(predictions)
    runner.train()
    assert len(np.unique(predictions.seen[0])) > 1
    assert (drawn[-1]['predictions']['student'] == predictions.seen[0]).all()


@pytest.mark.parametrize('kind', ['adm', 'adm-offline'])
def test_read_maps(kind, make_runner):
    runner = make_runner(f'adm/{kind}_{PAIR}')
    model = runner.model
    data = pseudo_collate([runner.val_dataloader.dataset[1]])
    differ_by_place(runner)
    labels, predictions, weights = model.observe(data, lambda step: read_maps(model, step))
    expected = model.eval().predict_members(data, model.member_names)
    assert (labels == data['data_samples'][0].gt_sem_seg.data[0].numpy()).all()
    for name in ('student', 'teacher'):
        assert len(np.unique(predictions[name])) > 1
        assert (predictions[name] == expected[name][0].pred_sem_seg.data[0].numpy()).all()
    similarity = weights['similarity']
    assert -1 <= similarity.min() < 0 < similarity.max() <= 1
    np.testing.assert_allclose(weights['consensus weight'], similarity.clip(0), atol=1e-6)
    np.testing.assert_allclose(weights['divergence weight'], 1 - similarity.clip(0), atol=1e-6)


# --------------------------------------------------------------------------- the panel

GREY, RED, BLUE, BLACK = (123, 124, 125), (200, 30, 60), (20, 40, 220), (0, 0, 0)
ALL = np.ones((64, 128), dtype=np.int64)


def count(panel, colour, tolerance=0):
    distance = np.abs(panel.astype(int) - np.asarray(colour)).max(axis=-1)
    return int((distance <= tolerance).sum())


def draw(labels, predictions, weights=None):
    image = np.full((*labels.shape, 3), GREY, dtype=np.uint8)
    panel = draw_panel(image, labels, predictions, weights or {}, ('a', 'b'), [RED, BLUE])
    assert panel.dtype == np.uint8
    return panel, count(panel, GREY)


def test_tiles_have_the_colours_of_the_palette():
    labels = 0 * ALL
    labels[:, 64:] = 255
    panel, tile = draw(labels, {'student': ALL})
    assert tile > 200 * 100
    # The left half of the labels is class 0; the prediction is class 1 wherever it counts.
    assert count(panel, RED) == pytest.approx(tile / 2, rel=0.1)
    assert count(panel, BLUE) == pytest.approx(tile / 2, rel=0.1)
    assert count(panel, BLACK) == pytest.approx(tile, rel=0.1)


def test_where_predictions_differ_is_white():
    same, tile = draw(0 * ALL, {'student': ALL, 'teacher': ALL})
    half = ALL.copy()
    half[:32] = 0
    other, _ = draw(0 * ALL, {'student': ALL, 'teacher': half})
    assert count(same, BLACK) == pytest.approx(tile, rel=0.1)
    assert count(same, BLACK) - count(other, BLACK) == pytest.approx(tile / 2, rel=0.1)


@pytest.mark.parametrize(('weight', 'colour'), [(-1, 0), (0, 0), (1, 255)])
def test_weights_share_one_scale(weight, colour):
    found, tile = draw(0 * ALL, {'student': ALL}, {'weight': np.full((4, 8), float(weight))})
    colour = np.asarray(colormaps['viridis'](colour)[:3]) * 255
    assert count(found, colour, tolerance=1) == pytest.approx(tile, rel=0.1)
