import cv2
import numpy as np
import pytest
import torch
from factory import ROOT, build, demo_config
from matplotlib import colormaps
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.engine import panel as panel_module
from mmseg_adm.engine.hooks import consensus_picture
from mmseg_adm.engine.hooks.consensus_picture import read_maps
from mmseg_adm.engine.panel import as_rgb, draw_panel
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
        (f'dml/dml_{PAIR}', set()),
        pytest.param(f'adm/adm-offline_{PAIR}', MAPS, marks=pytest.mark.slow),
        pytest.param(f'cwd/cwd_{PAIR}', set(), marks=pytest.mark.slow),
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


@pytest.mark.slow
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
    [pytest.param([], marks=pytest.mark.slow), [dict(type='EMAHook', momentum=1e-4)]],
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
    labels, predictions, weights, ignored = model.observe(data, lambda step: read_maps(model, step))
    assert ignored == 255
    expected = model.eval().predict_members(data, model.member_names)
    assert (labels == data['data_samples'][0].gt_sem_seg.data[0].numpy()).all()
    for name in ('student', 'teacher'):
        assert len(np.unique(predictions[name])) > 1
        assert (predictions[name] == expected[name][0].pred_sem_seg.data[0].numpy()).all()
    similarity = weights['similarity']
    assert -1 <= similarity.min() < 0 < similarity.max() <= 1
    np.testing.assert_allclose(weights['consensus weight'], similarity.clip(0), atol=1e-6)
    np.testing.assert_allclose(weights['divergence weight'], 1 - similarity.clip(0), atol=1e-6)


def test_what_cannot_be_drawn_does_not_stop_a_training(make_runner, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise TypeError('no picture')

    monkeypatch.setattr(consensus_picture, 'draw_panel', fail)
    runner = make_runner()
    metrics = runner.val()
    assert 'student/mIoU' in metrics
    (log,) = tmp_path.glob('*/*.log')
    assert 'WARNING - No picture of image 0: TypeError: no picture' in log.read_text()
    assert not (tmp_path / 'pictures').exists()


def test_labels_that_another_index_ignores(make_runner, drawn):
    """A head's own ignore_index is what is drawn black, and what does not count."""
    runner = make_runner()
    runner.model.network('student').decode_head.ignore_index = 3
    runner.val()
    (call,) = drawn
    assert call['ignore_index'] == 3


# --------------------------------------------------------------------------- the panel

GREY, RED, BLUE, BLACK = (123, 124, 125), (200, 30, 60), (20, 40, 220), (0, 0, 0)
ALL = np.ones((64, 128), dtype=np.int64)


def count(panel, color, tolerance=0):
    distance = np.abs(panel.astype(int) - np.asarray(color)).max(axis=-1)
    return int((distance <= tolerance).sum())


def draw(labels, predictions, weights=None, palette=(RED, BLUE), **options):
    image = np.full((*labels.shape, 3), GREY, dtype=np.uint8)
    panel = draw_panel(image, labels, predictions, weights or {}, ('a', 'b'), palette, **options)
    assert panel.dtype == np.uint8
    return panel, count(panel, GREY)


def test_tiles_have_the_colors_of_the_palette():
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


@pytest.mark.parametrize(('weight', 'color'), [(-1, 0), (0, 0), (1, 255)])
def test_weights_share_one_scale(weight, color):
    found, tile = draw(0 * ALL, {'student': ALL}, {'weight': np.full((4, 8), float(weight))})
    color = np.asarray(colormaps['viridis'](color)[:3]) * 255
    assert count(found, color, tolerance=1) == pytest.approx(tile, rel=0.1)


def test_another_ignored_label_is_black_too():
    labels = 0 * ALL
    labels[:, 64:] = 7
    panel, tile = draw(labels, {'student': ALL}, ignore_index=7)
    assert count(panel, BLACK) == pytest.approx(tile, rel=0.1)
    assert count(panel, RED) == pytest.approx(tile / 2, rel=0.1)


def test_black_stands_in_the_legend_where_there_is_any(monkeypatch):
    legends = []
    legend = panel_module.Figure.legend

    def watched(self, handles, **options):
        legends.append({each.get_label(): each.get_facecolor()[:3] for each in handles})
        return legend(self, handles=handles, **options)

    monkeypatch.setattr(panel_module.Figure, 'legend', watched)
    draw(0 * ALL, {'student': ALL})
    labels = 0 * ALL
    labels[0] = 255
    draw(labels, {'student': 0 * ALL})
    assert [list(each) for each in legends] == [['a', 'b'], ['a', 'unlabeled']]
    assert legends[1]['unlabeled'] == (0, 0, 0)


def test_a_class_without_a_color_of_its_own_is_not_black():
    panel, tile = draw(0 * ALL, {'student': ALL}, palette=[RED])
    assert count(panel, RED) == pytest.approx(tile, rel=0.1)
    assert count(panel, BLACK) < tile / 10


def test_where_predictions_differ_has_a_frame():
    """Predictions that differ everywhere are a white map on a white page."""
    panel, tile = draw(0 * ALL, {'student': ALL, 'teacher': 0 * ALL})
    plain, _ = draw(0 * ALL, {'student': ALL})
    height = (tile / 2) ** 0.5
    assert count(panel, BLACK, 99) - count(plain, BLACK, 99) > 2 * (height + 2 * height)


@pytest.mark.parametrize(
    ('members', 'weights', 'shape'),
    [(1, 0, (1, 3)), (2, 0, (1, 5)), (3, 0, (2, 3)), (2, 3, (2, 4)), (3, 3, (3, 3))],
)
def test_no_tile_of_a_figure_is_empty(members, weights, shape, monkeypatch):
    figures = []
    subplots = panel_module.Figure.subplots

    def watched(self, *grid, **options):
        figures.append((self, grid))
        return subplots(self, *grid, **options)

    monkeypatch.setattr(panel_module.Figure, 'subplots', watched)
    maps = {str(index): np.zeros((4, 8)) for index in range(weights)}
    draw(0 * ALL, {f'member {index}': ALL for index in range(members)}, maps)
    ((figure, grid),) = figures
    assert grid == shape
    rows, columns = shape
    tiles = figure.axes[: rows * columns]
    assert all(tile.images for tile in tiles)


# ------------------------------------------------------------------- images of any channels


def test_bytes_are_shown_as_they_are():
    photo = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert (as_rgb(photo) == photo[..., ::-1]).all()


@pytest.mark.parametrize(('channels', 'shown'), [(1, (0, 0, 0)), (2, (0, 0, 0)), (4, (2, 1, 0)),
                                                 (5, (2, 1, 0)), (25, (2, 1, 0))])  # fmt: skip
def test_any_number_of_channels(channels, shown):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, channels), np.uint8)
    assert (as_rgb(image) == image[..., list(shown)]).all()


@pytest.mark.parametrize('dtype', [np.uint16, np.int32, np.float32])
def test_other_values_are_stretched_between_their_percentiles(dtype):
    """Channels of 1000 to 1100 and 0 to 40000: each fills the range, its ends are cut."""
    ramp = np.linspace(0, 1, 101)
    image = np.stack([1000 + 100 * ramp, 40000 * ramp, 7 + 0 * ramp], axis=-1)[None].astype(dtype)
    red, green, blue = as_rgb(image)[0].astype(int).T
    assert (red == 0).all()
    assert (green[:3] == 0).all()
    assert (green[-3:] == 255).all()
    np.testing.assert_allclose(green[2:99], 255 * (ramp[2:99] - 0.02) / 0.96, atol=0.51)
    np.testing.assert_allclose(blue, green, atol=3)


def test_values_that_are_not_finite_are_no_values():
    image = np.random.default_rng(0).normal(size=(8, 8, 1)).astype(np.float32)
    image[0, 0], image[1, 1] = np.nan, np.inf
    assert len(np.unique(as_rgb(image))) > 30


def test_the_student_alone_is_drawn_beside_the_distilled_one(make_runner, drawn, tmp_path):
    """A frozen member that no method reads is evaluated and drawn, and costs a step nothing."""
    runner = make_runner(iters=1)
    plain = plain_config(runner.cfg, 'student').model
    torch.save({'state_dict': build(plain, seed=3).state_dict()}, tmp_path / 'alone.pth')
    alone = dict(plain, frozen=True, checkpoint=str(tmp_path / 'alone.pth'))
    alone.pop('data_preprocessor')
    runner = make_runner(iters=1, model__members__alone=alone)
    ran = []
    runner.model.network('alone').register_forward_hook(lambda *_: ran.append(runner.iter))
    runner.train()
    (panel,) = drawn
    assert list(panel['predictions']) == ['student', 'teacher', 'alone']
    assert runner.message_hub.log_scalars['val/alone/mIoU'].current() >= 0
    assert set(ran) == {1}  # in the validation alone
