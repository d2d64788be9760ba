"""``compile`` in a config: the same training, whatever is read in the middle of the networks."""

import copy

import pytest
import torch
from factory import build, demo_config, distiller_config, save_segmentor, segmentor
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.testing import assert_close

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.config.structure import check_structure
from mmseg_adm.engine import TrainingRunner
from mmseg_adm.export import export_member
from mmseg_adm.models.compiling import uninterrupted_parts

ITERS = 3
# Both networks write into what it returns: their residual sums are in place.
INNER = 'backbone.layer2.0.bn2'


def parts_of(methods, member='student', **options):
    model = build(distiller_config(methods, **options))
    return [path for path, _ in uninterrupted_parts(model.network(member))]


HEAD = ['decode_head.psp_modules.0', 'decode_head.psp_modules.1', 'decode_head.bottleneck']


def test_a_backbone_that_nobody_reads_is_compiled_as_a_whole():
    assert parts_of(dict(kd=dict(type='mmseg_adm.DML'))) == ['backbone', *HEAD]


def test_parts_end_where_a_tap_reads():
    parts = parts_of(dict(hint=dict(type='mmseg_adm.FitNet', at=INNER)))
    assert {'backbone.layer1', 'backbone.layer2.1', 'backbone.layer3', *HEAD} <= {*parts}
    assert not {'backbone', 'backbone.layer2', 'backbone.layer2.0', INNER} & {*parts}


def test_what_a_bridge_shares_is_left_as_it_is(tmp_path):
    path = save_segmentor(tmp_path / 'teacher.pth', segmentor(8))
    members = dict(
        student=segmentor(4),
        teacher=segmentor(8, frozen=True, checkpoint=path),
        bridge=dict(type='mmseg_adm.TeacherBridge', teacher='teacher'),
    )
    assert parts_of({}, 'bridge', members=members) == ['backbone.layer4', *HEAD]
    # What the bridge is handed is kept by hooks on the teacher's stages.
    stages = [path for path in parts_of({}, 'teacher', members=members) if path.count('.') == 1]
    assert stages == ['backbone.layer4', 'decode_head.bottleneck']


@pytest.mark.parametrize('value', ['eager', 1, ['eager']])
def test_another_kind_of_setting_is_refused(value):
    with pytest.raises(ValueError, match=r'compile must be True, False, or a dict of .*, got the'):
        check_structure(Config(dict(model=dict(), compile=value)))


@pytest.mark.core
@pytest.mark.parametrize(
    ('options', 'reason'),
    [(dict(backend='eagre'), "Invalid backend: 'eagre'"), (dict(fast=True), 'unexpected .*fast')],
    ids=['backend', 'option'],
)
def test_what_pytorch_refuses_is_refused_before_the_first_iteration(
    options, reason, city, tmp_path
):
    runner = TrainingRunner.from_cfg(demo_config(city, tmp_path, compile=options))
    message = rf'compile: PyTorch cannot compile with .*{reason}.*backend=.aot_eager'
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert runner.iter == 0


# ---------------------------------------------------------------------- trainings


METHODS = {
    'taps': dict(
        adm=dict(type='mmseg_adm.ADM'),
        hint=dict(type='mmseg_adm.FitNet', at=INNER),
    ),
    'pause': dict(switokd=dict(type='mmseg_adm.SwitOKD')),
}


class Losses(Hook):
    """What is logged of each iteration."""

    def __init__(self):
        self.logged = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.logged.append({key: float(value) for key, value in outputs.items()})


def configure(city, folder, methods, compiled, **options):
    config = demo_config(
        city, folder, ITERS, train_cfg__val_interval=2, default_hooks__checkpoint__interval=1,
        default_hooks__checkpoint__max_keep_ckpts=-1, compile=compiled, **options,
    )  # fmt: skip
    config.default_hooks.preflight.enabled = True
    config.model.methods = copy.deepcopy(METHODS[methods])
    config.default_hooks.schedule.schedules = {}
    config.default_hooks.pop('pictures')
    return config


def train(config):
    runner = TrainingRunner.from_cfg(config)
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    return losses.logged


@pytest.fixture(scope='module')
def trained(city, tmp_path_factory):
    """The folder of a run and what it logged, trained once."""
    runs = {}

    def run(methods, compiled):
        key = f'{methods}-{compiled}'
        if key not in runs:
            folder = tmp_path_factory.mktemp(methods)
            runs[key] = folder, train(configure(city, folder, methods, compiled))
        return runs[key]

    return run


def check_same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert_close(first[key], second[key], rtol=1e-5, atol=1e-5, msg=key)


def weights_in(path):
    return dict(read_checkpoint(path)['state_dict'])


@pytest.mark.core
@pytest.mark.slow
@pytest.mark.parametrize(
    ('methods', 'backend'), [('taps', 'eager'), ('taps', 'aot_eager'), ('pause', 'aot_eager')]
)
def test_a_compiled_training_is_the_same(methods, backend, trained):
    torch._dynamo.utils.counters.clear()
    folder, found = trained(methods, dict(backend=backend))
    counters = torch._dynamo.utils.counters
    # Each part in training and in evaluation, none given up as compiled too often.
    assert counters['frames']['ok'] == counters['frames']['total'] > 10
    assert not counters['graph_break']
    plain, expected = trained(methods, None)
    assert len(found) == ITERS
    for one, other in zip(found, expected, strict=True):
        check_same(one, other)
    check_same(*(weights_in(each / f'iter_{ITERS}.pth') for each in (folder, plain)))


@pytest.mark.slow
@pytest.mark.parametrize('first', [None, dict(backend='eager')], ids=['plain', 'compiled'])
def test_a_run_goes_on_compiled_or_not(first, trained, city, tmp_path):
    folder, logged = trained('taps', first)
    then = None if first else dict(backend='eager')
    config = configure(
        city, tmp_path, 'taps', then, resume=True, load_from=str(folder / 'iter_2.pth')
    )
    (found,) = train(config)
    check_same(found, logged[-1])
    check_same(*(weights_in(each / f'iter_{ITERS}.pth') for each in (folder, tmp_path)))


@pytest.mark.slow
def test_an_export_of_a_compiled_run_is_a_plain_network(trained, city, tmp_path):
    runs = [trained('taps', compiled)[0] for compiled in (None, dict(backend='eager'))]
    exported = [
        export_member(
            configure(city, tmp_path, 'taps', None),
            run / f'iter_{ITERS}.pth',
            tmp_path / f'{i}.pth',
        )
        for i, run in enumerate(runs)
    ]
    check_same(*map(weights_in, exported))
