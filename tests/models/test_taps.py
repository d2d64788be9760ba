import copy
import weakref

import pytest
import torch
from factory import segmentor
from mmengine.registry import MODELS
from torch import nn
from torch.testing import assert_close

from mmseg_adm.models.taps import (
    FeatureTap,
    channels_at,
    find_classifier,
    find_module,
    map_shapes,
    recording,
)

CLASSES = 5
WIDTHS = [8, 8, 16, 16]


def network(head, backbone=None, kind='EncoderDecoder'):
    """A segmentor whose four maps are ``WIDTHS`` wide, with the given decode head or heads."""
    backbone = backbone or dict(
        type='MixVisionTransformer', embed_dims=8, num_stages=4, num_layers=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2], patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1],
        out_indices=(0, 1, 2, 3), mlp_ratio=2,
    )  # fmt: skip
    config = dict(type=kind, backbone=backbone, decode_head=head, train_cfg=dict(), test_cfg=dict())
    if isinstance(head, list):
        config['num_stages'] = len(head)
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy(config))


def head(kind, **options):
    """A decode head that drops out half of what its classifier reads."""
    common = dict(
        in_channels=WIDTHS[3], in_index=3, channels=6, num_classes=CLASSES, dropout_ratio=0.5,
        norm_cfg=dict(type='BN'), align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )  # fmt: skip
    return dict(common | options, type=kind)


ALL_MAPS = dict(in_channels=WIDTHS, in_index=[0, 1, 2, 3])
HEADS = {
    'PSP': head('PSPHead', pool_scales=(1, 2)),
    'ASPP': head('ASPPHead', dilations=(1, 2)),
    'DepthwiseSeparableASPP': head(
        'DepthwiseSeparableASPPHead', dilations=(1, 2), c1_in_channels=8, c1_channels=4
    ),
    'FCN': head('FCNHead', num_convs=1, concat_input=False),
    'FCN without convolutions': head('FCNHead', num_convs=0, channels=16, concat_input=False),
    'UPer': head('UPerHead', pool_scales=(1, 2), **ALL_MAPS),
    'Segformer': head('SegformerHead', **ALL_MAPS),
    'DA': head('DAHead', pam_channels=4),
    'no dropout': head('PSPHead', pool_scales=(1, 2), dropout_ratio=0.0),
    'cascade': [
        head('FCNHead', num_convs=1, concat_input=False, channels=10),
        head('OCRHead', ocr_channels=4),
    ],
}


def images(size=(64, 64)):
    return torch.randn(2, 3, *size)


class Stand(nn.Module):
    """What a tap asks of a segmentor: a backbone and a decode head."""

    def __init__(self, decode_head):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.decode_head = decode_head

    def forward(self, inputs):
        return self.decode_head(self.backbone(inputs))


class QueryHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.mask_embed = nn.Linear(4, 4)


class BusyHead(nn.Module):
    """Its dropout has more to do than to feed the classifier."""

    def __init__(self, order):
        super().__init__()
        self.order = order
        self.dropout = nn.Dropout2d(0.5)
        self.conv_seg = nn.Conv2d(4, CLASSES, 1)
        self.branch = nn.Conv2d(4, 2, 1)

    def forward(self, maps):
        if self.order == 'branch first':
            self.branch(self.dropout(2 * maps))
            return self.conv_seg(self.dropout(maps))
        if self.order == 'branch between':
            dropped = self.dropout(maps)
            self.branch(self.dropout(2 * maps))
            return self.conv_seg(dropped)
        if self.order == 'branch alone':
            self.branch(self.dropout(2 * maps))
            return self.conv_seg(maps)
        logits = self.conv_seg(self.dropout(maps))
        self.branch(self.dropout(2 * maps))
        return logits


def read(model, inputs, *points):
    """Values of several points in one pass, and what the classifier itself saw and said."""
    taps = [FeatureTap(model, point) for point in points]
    seen = []
    handle = find_classifier(model).register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0], output))
    )
    with recording(taps):
        model(inputs)
        values = [tap.value for tap in taps]
    for tap in taps:
        tap.remove()
    handle.remove()
    ((classifier_input, classifier_output),) = seen
    return values, classifier_input, classifier_output


@pytest.mark.parametrize('name', HEADS)
def test_features_are_what_the_classifier_reads_in_evaluation(name):
    kind = 'CascadeEncoderDecoder' if name == 'cascade' else 'EncoderDecoder'
    model = network(HEADS[name], kind=kind).eval()
    inputs = images()
    (features, logits), _, classifier_output = read(model, inputs, 'features', 'logits')
    decode_head = model.decode_head[-1] if name == 'cascade' else model.decode_head
    assert_close(decode_head.conv_seg(features), logits, rtol=0, atol=0)
    assert logits is classifier_output
    # What the cascade's last head says, not its first; the map, not a tuple with auxiliaries.
    output = model(inputs)
    assert_close(output[0] if isinstance(output, tuple) else output, logits, rtol=0, atol=0)
    assert channels_at(model, 'features') == features.shape[1]
    assert channels_at(model, 'logits') == CLASSES


@pytest.mark.parametrize('name', [name for name in HEADS if name != 'no dropout'])
def test_features_are_read_before_the_dropout(name):
    kind = 'CascadeEncoderDecoder' if name == 'cascade' else 'EncoderDecoder'
    model = network(HEADS[name], kind=kind).train()
    (features,), classifier_input, _ = read(model, images(), 'features')
    kept = classifier_input.ne(0).flatten(2).any(dim=2)[..., None, None]
    assert_close(classifier_input, 2 * features * kept)
    dropped = features.abs().flatten(2).amax(dim=2)[~kept[..., 0, 0]]
    assert dropped.gt(0).any()


def test_features_without_dropout_are_the_classifiers_input():
    model = network(HEADS['no dropout']).train()
    (features,), classifier_input, _ = read(model, images(), 'features')
    assert features is classifier_input


@pytest.mark.parametrize('order', ['branch first', 'branch after', 'branch alone'])
def test_only_the_dropout_that_feeds_the_classifier_counts(order):
    model = Stand(BusyHead(order)).train()
    inputs = images((8, 8))
    (features,), _, _ = read(model, inputs, 'features')
    assert_close(features, model.backbone(inputs), rtol=0, atol=0)


def test_a_dropout_between_the_classifier_and_its_own_does_not_hide_it():
    model = Stand(BusyHead('branch between')).train()
    inputs = images((8, 8))
    (features,), _, _ = read(model, inputs, 'features')
    assert_close(features, model.backbone(inputs), rtol=0, atol=0)


@pytest.mark.parametrize('point', ['decode_head.bottleneck', 'backbone.0'])
def test_a_module_path_gives_that_modules_output(point):
    model = Stand(BusyHead('branch after')) if point == 'backbone.0' else network(HEADS['PSP'])
    outputs = []
    find_module(model, point).register_forward_hook(lambda *args: outputs.append(args[2]))
    (value,), _, _ = read(model, images(), point)
    assert value is outputs[0]


def test_a_wrong_path_lists_the_nearest():
    model = network(HEADS['PSP'])
    with pytest.raises(
        ValueError, match=r"EncoderDecoder has no point 'decode_head\.botleneck'"
    ) as caught:
        FeatureTap(model, 'decode_head.botleneck')
    nearest = str(caught.value).split('Nearest: ')[1].split('. Always there: ')
    assert nearest[0].split(', ')[0] == 'decode_head.bottleneck'
    assert nearest[1] == 'features, logits'
    assert len(nearest[0].split(', ')) <= 5


@pytest.mark.parametrize(('wrong', 'near'), [('feature', 'features'), ('logit', 'logits')])
def test_a_misspelt_name_is_found_too(wrong, near):
    with pytest.raises(ValueError, match=rf'Nearest: {near}'):
        FeatureTap(network(HEADS['PSP']), wrong)


@pytest.mark.parametrize('path', ['', 'zzz'])
def test_a_hopeless_path_is_refused_too(path):
    with pytest.raises(ValueError, match='Nearest: none'):
        FeatureTap(Stand(QueryHead()), path)


@pytest.mark.parametrize('point', ['features', 'logits'])
@pytest.mark.parametrize(
    ('model', 'name'),
    [
        (lambda: Stand(QueryHead()), 'QueryHead'),
        (
            lambda: network(
                head('SegmenterMaskTransformerHead', num_layers=1, num_heads=1, embed_dims=8)
            ),
            'SegmenterMaskTransformerHead',
        ),
    ],
    ids=['stand-in', 'Segmenter'],
)
def test_a_head_without_a_classifier_is_refused_by_name(model, name, point):
    model = model()
    with pytest.raises(ValueError, match=rf"{name} has no classifier 'conv_seg' of its own"):
        FeatureTap(model, point)
    with pytest.raises(ValueError, match=name):
        channels_at(model, point)
    assert all(not module._forward_hooks for module in model.modules())


def test_a_network_without_decode_head_is_refused_by_name():
    with pytest.raises(ValueError, match='Sequential has no decode_head'):
        FeatureTap(nn.Sequential(nn.Conv2d(3, 4, 1)), 'logits')


def test_a_module_that_returns_no_tensor_is_refused_by_name():
    model = network(HEADS['PSP'])
    tap = FeatureTap(model, 'backbone')
    message = "tap 'backbone' reads a MixVisionTransformer that returns (list|tuple), not a map"
    with pytest.raises(TypeError, match=message), recording([tap]):
        model(images())
    assert not tap.recording
    model(images())


@pytest.mark.parametrize('point', ['features', 'logits', 'decode_head.bottleneck'])
def test_a_tap_records_inside_the_block_alone(point):
    model = network(HEADS['PSP'])
    tap = FeatureTap(model, point)
    model(images())
    with pytest.raises(RuntimeError, match=rf"tap '{point}' captured nothing"):
        _ = tap.value
    with recording([tap]):
        with pytest.raises(RuntimeError, match='captured nothing'):
            _ = tap.value
        model(images())
        first = tap.value
        model(images() + 1)
        assert tap.value is not first
    with pytest.raises(RuntimeError, match='captured nothing'):
        _ = tap.value


@pytest.mark.parametrize('point', ['features', 'logits', 'decode_head.bottleneck'])
@pytest.mark.parametrize('fails', [False, True])
def test_the_graph_is_released_after_the_block(point, fails):
    model = network(HEADS['PSP'])
    tap = FeatureTap(model, point)
    try:
        with recording([tap]):
            model(images())
            value = weakref.ref(tap.value)
            assert value() is not None
            if fails:
                raise KeyError('an error of the step')
    except KeyError:
        pass
    assert value() is None
    assert not tap.recording
    assert tap._dropped == []


@pytest.mark.parametrize('point', ['features', 'logits', 'decode_head.bottleneck'])
def test_remove_leaves_the_network_as_it_was(point):
    model = network(HEADS['PSP'])
    keys = list(model.state_dict())
    tap = FeatureTap(model, point)
    assert any(module._forward_hooks for module in model.modules())
    assert list(model.state_dict()) == keys
    tap.remove()
    assert not any(module._forward_hooks for module in model.modules())
    with recording([tap]):
        model(images())
        with pytest.raises(RuntimeError, match='captured nothing'):
            _ = tap.value


@pytest.mark.parametrize('point', ['features', 'logits', 'decode_head.bottleneck'])
def test_a_copy_of_network_and_tap_is_on_its_own(point):
    model = network(HEADS['PSP'])
    tap = FeatureTap(model, point)
    with recording([tap]):
        model(images()).sum().backward()
    twin, twin_tap = copy.deepcopy((model, tap))
    inputs = images()
    with recording([tap, twin_tap]):
        twin(inputs)
        with pytest.raises(RuntimeError, match='captured nothing'):
            _ = tap.value
        assert twin_tap.value.requires_grad
    twin_tap.remove()
    with recording([tap]):
        model(inputs)
        assert tap.value.requires_grad


def test_two_taps_of_one_point_do_not_disturb_each_other():
    model = network(HEADS['PSP'])
    first, second = FeatureTap(model, 'features'), FeatureTap(model, 'features')
    with recording([first, second]):
        model(images())
        assert first.value is second.value
        first.remove()
        model(images())
        assert second.value is not None
        with pytest.raises(RuntimeError, match='captured nothing'):
            _ = first.value


def test_taps_keep_the_gradient():
    model = network(HEADS['PSP'])
    taps = [FeatureTap(model, 'features'), FeatureTap(model, 'logits')]
    with recording(taps):
        model(images())
        features, logits = (tap.value for tap in taps)
    parameters = [model.decode_head.bottleneck.conv.weight, model.decode_head.conv_seg.weight]
    behind = torch.autograd.grad(features.sum(), parameters, allow_unused=True, retain_graph=True)
    assert behind[0].abs().amax() > 0
    assert behind[1] is None
    assert all(g.abs().amax() > 0 for g in torch.autograd.grad(logits.square().sum(), parameters))


@pytest.mark.parametrize('training', [True, False])
def test_probing_the_width_leaves_no_trace(training):
    model = MODELS.build(segmentor(4)).train(training)
    before = copy.deepcopy(model.state_dict())
    modes = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    assert channels_at(model, 'backbone.layer3') == 16
    assert channels_at(model, 'decode_head.bottleneck') == 8
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(not module._forward_hooks for module in model.modules())


def test_shapes_of_several_maps_cost_one_pass():
    model = network(HEADS['PSP']).train()
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(None))
    points = ['logits', 'features', 'decode_head.bottleneck']
    found = map_shapes(model, points)
    # The last of the backbone's maps is 32 times smaller.
    assert found == {'logits': (CLASSES, 4, 4), 'features': (6, 4, 4),
                     'decode_head.bottleneck': (6, 4, 4)}  # fmt: skip
    assert list(found) == points
    assert len(calls) == 1
    assert model.training
    assert all(not module._forward_hooks for module in model.modules() if module != model.backbone)


def test_shapes_where_there_is_no_map_are_refused():
    model = network(HEADS['PSP'])
    with pytest.raises(TypeError, match="tap 'backbone' reads a MixVisionTransformer that returns"):
        map_shapes(model, ['logits', 'backbone'])
    assert all(not module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match=r"has no point 'backbone\.layer9' to tap"):
        map_shapes(model, ['logits', 'backbone.layer9'])


WRITTEN_INTO = {  # by what comes next
    'decode_head.bottleneck.bn': 'a ReLU in place',
    'backbone.stem.1': 'a ReLU in place',
    'backbone.layer4.1.bn2': 'the sum with the shortcut',
}


@pytest.mark.parametrize('frozen', [False, True], ids=['trained', 'frozen'])
@pytest.mark.parametrize('point', WRITTEN_INTO)
def test_what_is_read_is_what_the_module_returned_before_it_was_written_into(point, frozen):
    model = MODELS.build(segmentor(4)).train(not frozen)
    returned = []
    find_module(model, point).register_forward_hook(
        lambda module, inputs, output: returned.append(output.detach().clone())
    )
    tap = FeatureTap(model, point)
    for _ in range(3):  # the first step no less than those that know
        with torch.set_grad_enabled(not frozen), recording([tap]):
            model(images())
            assert_close(tap.value, returned[-1], rtol=0, atol=0)
            assert tap.value.min() < 0
            assert tap.value.requires_grad is not frozen
            assert tap.value is tap.value


@pytest.mark.parametrize('point', WRITTEN_INTO)
def test_the_gradient_is_that_of_what_the_module_returned(point):
    model = MODELS.build(segmentor(4)).eval()
    inputs, module = images(), find_module(model, point)
    tap = FeatureTap(model, point)
    with recording([tap]):
        model(inputs)
        found = torch.autograd.grad((tap.value - 1).square().sum(), module.weight)[0]
    scale, shift = (each[:, None, None] for each in (module.weight, module.bias))
    normalized = []
    module.register_forward_hook(
        lambda module, inputs, output: normalized.append(((output - shift) / scale).detach())
    )
    model(inputs)
    values = normalized[0] * scale + shift
    expected = torch.autograd.grad((values - 1).square().sum(), module.weight)[0]
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


def copies(monkeypatch):
    """Count the copies that are made of tensors."""
    made = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, 'clone', lambda self: made.append(1) or clone(self))
    return made


@pytest.mark.parametrize(
    ('point', 'expected'),
    [('decode_head.bottleneck.bn', [1, 1, 1]), ('decode_head.bottleneck', [1, 0, 0]),
     ('features', [1, 0, 0]), ('logits', [1, 0, 0])],
)  # fmt: skip
@pytest.mark.parametrize('read_it', [True, False], ids=['read', 'not read'])
def test_copies_are_made_only_where_something_writes(monkeypatch, point, expected, read_it):
    model = network(HEADS['PSP'])
    tap = FeatureTap(model, point)
    made = copies(monkeypatch)
    found = []
    for _ in range(3):
        made.clear()
        with recording([tap]):
            model(images())
            if read_it:
                assert tap.value.dim() == 4
        found.append(len(made))
    assert found == expected


def test_training_and_evaluation_are_told_apart():
    class WritesInTraining(nn.Module):
        def forward(self, maps):
            return maps.add_(1) if self.training else maps + 1

    model = Stand(BusyHead('branch after'))
    model.backbone.append(WritesInTraining())
    tap = FeatureTap(model, 'backbone.1')
    for training in (False, True, False, True):
        model.train(training)
        inputs = images((8, 8))
        expected = model.backbone[:2](inputs)
        with recording([tap]):
            model(inputs)
            assert_close(tap.value, expected, rtol=0, atol=0)


def test_an_operation_that_starts_to_write_is_an_error_and_not_another_value():
    model = Stand(BusyHead('branch after')).eval()
    tap = FeatureTap(model, 'backbone.0')
    model.backbone[1].inplace = False
    with recording([tap]):
        model(images((8, 8)))
        assert tap.value.min() < 0
    model.backbone[1].inplace = True
    with recording([tap]):
        model(images((8, 8)))
        with pytest.raises(RuntimeError, match=r"'backbone\.0' has lost what its module returned"):
            _ = tap.value
    with recording([tap]):
        model(images((8, 8)))
        assert tap.value.min() < 0


def test_in_inference_mode_nothing_counts_writes_and_all_is_copied():
    model = MODELS.build(segmentor(4)).eval()
    tap = FeatureTap(model, 'decode_head.bottleneck.bn')
    for _ in range(2):
        with torch.inference_mode(), recording([tap]):
            model(images())
            assert tap.value.min() < 0


def test_a_dropout_in_place_before_the_classifier_is_refused():
    decode_head = BusyHead('branch after')
    decode_head.dropout.inplace = True
    model = Stand(decode_head)
    with pytest.raises(ValueError, match=r'dropout of BusyHead works in place.*set inplace=False'):
        FeatureTap(model, 'features')
    assert all(not module._forward_hooks for module in model.modules())
    FeatureTap(model, 'logits')
