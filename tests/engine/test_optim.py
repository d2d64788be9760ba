import copy

import pytest
import torch
from factory import build, demo_config, distiller_config, raw_batch, segmentor
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmseg_adm.engine import CPUAmpOptimWrapper
from mmseg_adm.models.taps import find_classifier

METHODS = dict(dml=dict(type='mmseg_adm.DML'), adm=dict(type='mmseg_adm.ADM'))
WRAPPERS = [OptimWrapper, CPUAmpOptimWrapper]
RATE = 0.5


class Losses(Hook):
    def __init__(self):
        self.outputs = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.outputs.append(outputs)


@pytest.fixture
def model():
    """A distiller that draws nothing at random."""
    members = dict(student=segmentor(4, dropout=0.0), teacher=segmentor(8, dropout=0.0))
    return build(distiller_config(METHODS, members=members)).train()


def wrap(kind, model, **options):
    return kind(torch.optim.SGD(model.parameters(), lr=RATE), **options)


def gradients(model, batch, wrapper):
    """Of one batch, by parameter."""
    model = copy.deepcopy(model)
    with wrapper.optim_context(model):
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()
            if parameter.grad is not None}  # fmt: skip


def norm(tensors):
    return float(torch.stack([tensor.detach().norm() for tensor in tensors]).norm())


def test_bfloat16_in_a_run(city, tmp_path):
    config = demo_config(
        city, tmp_path, iters=2, train_cfg__val_begin=1000,
        optim_wrapper__type='mmseg_adm.CPUAmpOptimWrapper',
    )  # fmt: skip
    runner = Runner.from_cfg(config)
    losses = Losses()
    runner.register_hook(losses)
    seen = []
    for name in ('student', 'teacher'):
        classifier = find_classifier(runner.model.network(name))
        classifier.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    assert seen == [torch.bfloat16] * 4
    for outputs in losses.outputs:
        assert {'adm.loss_consensus', 'dml.loss_student', 'student.decode.loss_ce'} < set(outputs)
        for name, value in outputs.items():
            assert value.dtype == torch.float32, name
            assert torch.isfinite(value), name
    after = runner.model.state_dict()
    for part in ('members.student.backbone.', 'members.teacher.backbone.', 'methods.adm.'):
        moved = [key for key in after if key.startswith(part) and key.endswith('weight')
                 and not torch.equal(before[key], after[key])]  # fmt: skip
        assert moved
    assert all(value.dtype != torch.bfloat16 for value in after.values())


def test_autocast_ends_with_the_forward_pass(model):
    wrapper = wrap(CPUAmpOptimWrapper, model)
    with wrapper.optim_context(model):
        assert torch.get_autocast_dtype('cpu') == torch.bfloat16
        assert torch.is_autocast_enabled('cpu')
    assert not torch.is_autocast_enabled('cpu')


def test_bfloat16_gradients_point_where_those_of_float32_do(model):
    full, half = (gradients(model, raw_batch(), wrap(kind, model)) for kind in WRAPPERS)
    assert full.keys() == half.keys()
    for member in ('student', 'teacher'):
        key = f'members.{member}.decode_head.conv_seg.weight'
        cosine = torch.cosine_similarity(full[key].flatten(), half[key].flatten(), dim=0)
        assert 0.98 < cosine < 1


@pytest.mark.parametrize('kind', WRAPPERS)
def test_two_accumulated_batches_are_one_step_of_their_mean_gradient(kind, model):
    batches = [raw_batch(seed=seed) for seed in (1, 2)]
    first, second = (gradients(model, batch, wrap(kind, model)) for batch in batches)
    before = copy.deepcopy(dict(model.named_parameters()))
    wrapper = wrap(kind, model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 2)

    model.train_step(batches[0], wrapper)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    model.train_step(batches[1], wrapper)
    for name, parameter in model.named_parameters():
        step = RATE * (first[name] + second[name]) / 2
        torch.testing.assert_close(parameter, before[name] - step, rtol=1e-4, atol=1e-6)
    assert norm(first[name] - second[name] for name in first) > 0.1


@pytest.mark.parametrize('kind', WRAPPERS)
@pytest.mark.parametrize('max_norm', [0.1, 1e6])
def test_clipping(kind, max_norm, model):
    batch = raw_batch()
    unclipped = norm(gradients(model, batch, wrap(kind, model)).values())
    assert 0.1 < unclipped < 1e6
    before = copy.deepcopy(dict(model.named_parameters()))
    model.train_step(batch, wrap(kind, model, clip_grad=dict(max_norm=max_norm)))
    moved = norm(parameter - before[name] for name, parameter in model.named_parameters())
    assert moved == pytest.approx(RATE * min(max_norm, unclipped), rel=1e-3)
