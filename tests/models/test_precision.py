"""Frozen members that compute in lower precision than what they teach."""

import copy

import pytest
import torch
from factory import build, distiller_config, losses_of, raw_batch, save_segmentor, segmentor
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import nn
from torch.testing import assert_close

from mmseg_adm.engine.settings import differences, settings_of
from mmseg_adm.export import plain_config
from mmseg_adm.models.flops import count_flops
from mmseg_adm.models.taps import FeatureTap, find_classifier, recording

pytestmark = pytest.mark.core

METHODS = dict(
    kd=dict(type='mmseg_adm.KD'),
    features=dict(type='mmseg_adm.FitNet'),
    inner=dict(type='mmseg_adm.FitNet', at='backbone.layer3'),
    adm=dict(type='mmseg_adm.ADM', divergence=None, target='teacher'),
)
# Of the loss of each method, relative, and of a class's probability, between bfloat16 and float32.
TOLERANCE = 0.02


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_segmentor(tmp_path_factory.mktemp('precision') / 'teacher.pth', segmentor(8))


def member(checkpoint, **options):
    return segmentor(8, checkpoint=checkpoint, **dict(frozen=True) | options)


def offline(checkpoint, methods=METHODS, **options):
    members = dict(student=segmentor(4, dropout=0.0), teacher=member(checkpoint, **options))
    torch.manual_seed(0)
    return MODELS.build(distiller_config(methods, members=members))


def images():
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_it_computes_what_autocast_computes(checkpoint):
    lower, plain = (offline(checkpoint, dtype=d).network('teacher') for d in ('bfloat16', None))
    classifier = find_classifier(plain)
    seen = []
    classifier.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        found = lower(images())
        with torch.autocast('cpu', torch.bfloat16):
            plain(images())
    assert found.dtype == torch.float32
    assert seen[0].dtype == torch.bfloat16
    assert torch.equal(found, seen[0].float())


def test_it_holds_half_of_the_memory(checkpoint):
    lower, plain = (offline(checkpoint, dtype=d).network('teacher') for d in ('bfloat16', None))
    halved, whole = (sum(each.nbytes for each in n.parameters()) for n in (lower, plain))
    assert halved < 0.51 * whole
    norms = [each for each in lower.modules() if isinstance(each, nn.BatchNorm2d)]
    assert {each.running_var.dtype for each in norms} == {torch.float32}


@pytest.mark.parametrize('amp', [False, True])
def test_what_it_teaches_is_nearly_the_same(amp, checkpoint):
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        lower, plain = (losses_of(offline(checkpoint, dtype=d)) for d in ('bfloat16', None))
    assert lower.keys() == plain.keys()
    methods = [key for key in lower if key.split('.')[0] in METHODS]
    assert len(methods) >= len(METHODS)
    for key in methods:
        assert_close(lower[key], plain[key], rtol=TOLERANCE, atol=1e-4, msg=key)
        assert lower[key].isfinite()


def test_methods_read_float32(checkpoint):
    model = offline(checkpoint, dtype='bfloat16')
    points = ('features', 'logits', 'backbone.layer3')
    seen = {}

    def read(step):
        for point in points:
            value = step.read('teacher', point)
            assert step.read('teacher', point) is value
            seen[point] = value.dtype

    model.observe(raw_batch(), read)
    assert seen == dict.fromkeys(points, torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        model.observe(raw_batch(), read)
    assert seen == {**dict.fromkeys(points, torch.bfloat16), 'logits': torch.float32}


def test_a_tap_that_is_read_amid_two_passes_reads_the_last(checkpoint):
    network = offline(checkpoint, {}, dtype='bfloat16').network('teacher')
    tap = FeatureTap(network, 'features')
    with torch.no_grad(), recording([tap]):
        network(images())
        first = tap.value
        network(-images())
        assert not torch.equal(tap.value, first)


def test_it_predicts_nearly_the_same(checkpoint):
    lower, plain = (offline(checkpoint, dtype=d) for d in ('bfloat16', None))
    logits = [model.eval().predict_members(raw_batch(), ('teacher',))['teacher'][0].seg_logits.data
              for model in (lower, plain)]  # fmt: skip
    assert logits[0].dtype == torch.float32
    first, second = (each.softmax(dim=0) for each in logits)
    assert 0 < (first - second).abs().max() < TOLERANCE


def test_it_trains_nobody_else_otherwise(checkpoint):
    model = offline(checkpoint, dtype='bfloat16')
    before = copy.deepcopy(model.network('teacher').state_dict())
    keys = model.state_dict().keys()
    model.train_step(raw_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert keys == offline(checkpoint).state_dict().keys()
    assert all(each.dtype != torch.bfloat16 for each in model.state_dict().values())
    after = model.network('teacher').state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_channels_last_and_a_copy_of_the_model(checkpoint):
    model = offline(checkpoint, dtype='bfloat16')
    expected = losses_of(model)
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    convolution = twin.network('teacher').backbone.layer1[0].conv1.weight
    assert convolution.dtype == torch.bfloat16
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert_close(losses_of(twin)['kd.loss_kl'], expected['kd.loss_kl'], rtol=0.01, atol=1e-5)


def test_a_copy_of_the_network_runs_itself(checkpoint):
    network = offline(checkpoint, {}, dtype='bfloat16').network('teacher')
    twin = copy.deepcopy(network)
    nn.init.zeros_(find_classifier(twin).weight)
    with torch.no_grad():
        assert network(images()).std() > 0
        assert twin(images()).flatten(2).std(dim=2).abs().max() == 0


def test_its_flops_are_counted(checkpoint):
    lower, plain = (offline(checkpoint, {}, dtype=d).network('teacher') for d in ('bfloat16', None))
    assert count_flops(lower, (32, 48)) == count_flops(plain, (32, 48)) > 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(dtype='half'), "member 'teacher': dtype must be one of 'bfloat16', 'float16', got "),
        (
            dict(dtype='bfloat16', frozen=False),
            r"member 'teacher' trains, .* remove model\.members\.teacher\.dtype",
        ),
    ],
    ids=['unknown', 'it trains'],
)
def test_refusals(options, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        offline(checkpoint, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU computes in float16')
def test_float16_is_refused_on_a_cpu(checkpoint):
    with pytest.raises(ValueError, match=r"member 'teacher': .* needs CUDA: .* dtype='bfloat16'"):
        offline(checkpoint, dtype='float16')


def test_it_is_a_setting_of_the_run_and_of_no_export(checkpoint):
    members = dict(student=segmentor(4), teacher=member(checkpoint, dtype='bfloat16'))
    lower, plain = (Config(dict(model=distiller_config(members=members))) for _ in range(2))
    plain.model.members.teacher.pop('dtype')
    (change,) = differences(settings_of(plain), settings_of(lower))
    assert change == ('model.members.teacher.dtype', None, 'bfloat16')
    assert plain_config(lower, 'teacher').model == plain_config(plain, 'teacher').model


def test_a_bridge_goes_on_in_float32(checkpoint):
    bridge = dict(type='mmseg_adm.TeacherBridge', teacher='teacher')
    members = dict(
        student=segmentor(4), teacher=member(checkpoint, dtype='bfloat16'), bridge=bridge
    )
    with pytest.raises(
        ValueError, match=r'goes on in float32 .* remove model\.members\.teacher\.d'
    ):
        build(distiller_config(members=members))
