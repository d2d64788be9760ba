import math
import os
import socket
import subprocess
import sys

import pytest
import torch
from factory import (
    DEMO,
    ROOT,
    build,
    demo_config,
    distiller_config,
    raw_batch,
    save_segmentor,
    segmentor,
)
from method_cases import METHODS as METHOD_CASES
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.commands.launch import enable_amp, load_config, prepare_runner
from mmseg_adm.preflight import inspect_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device'),
]

METHODS = {
    'dml': dict(type='mmseg_adm.DML'),
    'adm': dict(type='mmseg_adm.ADM'),
    'cwd': dict(type='mmseg_adm.CWD', at='features'),
}
SMALL = [
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'train_dataloader.batch_size=2',
    'default_hooks.checkpoint.interval=2',
    *(f'{split}_dataloader.{option}' for split in ('train', 'val', 'test')
      for option in ('num_workers=0', 'persistent_workers=False')),
]  # fmt: skip


def on_gpu(methods: dict | None = None, **options) -> torch.nn.Module:
    return build(distiller_config(METHODS if methods is None else methods, **options)).cuda()


def frozen_pair(folder) -> dict:
    checkpoint = save_segmentor(folder / 'teacher.pth', segmentor(8))
    return dict(student=segmentor(4), teacher=segmentor(8, frozen=True, checkpoint=checkpoint))


def train(model: torch.nn.Module, steps: int = 2, **wrapper) -> list[dict[str, float]]:
    options = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)) | wrapper
    optim_wrapper = build_optim_wrapper(model, options)
    logged = [model.train_step(raw_batch(seed=seed), optim_wrapper) for seed in range(steps)]
    return [{name: float(value) for name, value in step.items()} for step in logged]


def test_losses_are_those_of_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    # Dropout draws from the device's own generator.
    members = dict(student=segmentor(4, dropout=0.0), teacher=segmentor(8, dropout=0.0))
    (expected,) = train(build(distiller_config(METHODS, members=members)), steps=1)
    (found,) = train(on_gpu(members=members), steps=1)
    # A pixel between two classes may tip over.
    names = [name for name in expected if 'acc_seg' not in name]
    assert {name: found[name] for name in names} == pytest.approx(
        {name: expected[name] for name in names}, rel=1e-2, abs=1e-3
    )


def test_training_moves_every_member_and_projection():
    model = on_gpu()
    names = [
        'members.student.decode_head.conv_seg.weight',
        'members.teacher.decode_head.conv_seg.weight',
        'methods.adm.projection.weight',
        'methods.cwd.projection.weight',
    ]
    before = {name: model.state_dict()[name].clone() for name in names}
    for losses in train(model):
        assert all(math.isfinite(value) for value in losses.values())
    after = model.state_dict()
    assert {value.device.type for value in after.values()} == {'cuda'}
    assert not [name for name in names if after[name].equal(before[name])]


def test_half_precision_stays_finite_and_close():
    members = dict(student=segmentor(4, dropout=0.0), teacher=segmentor(8, dropout=0.0))
    (exact,) = train(on_gpu(members=members), steps=1)
    half = train(
        on_gpu(members=members), steps=4, type='AmpOptimWrapper', loss_scale='dynamic',
        dtype='float16',
    )  # fmt: skip
    for losses in half:
        assert all(math.isfinite(value) for value in losses.values())
    assert half[0]['loss'] == pytest.approx(exact['loss'], rel=0.05)
    assert half[0] != exact


GROUPS = dict(
    constructor='mmseg_adm.GroupOptimWrapperConstructor',
    dtype='float16',
    rest=dict(optimizer=dict(type='SGD', lr=0.01), clip_grad=dict(max_norm=1.0)),
)
WRAPPERS = {
    'one': dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16',
                optimizer=dict(type='SGD', lr=0.01)),
    'groups': GROUPS,
}  # fmt: skip


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('name', METHOD_CASES)
def test_every_method_in_half_precision(name, wrapper, tmp_path):
    variant = METHOD_CASES[name][0]
    frozen = variant.frozen_teacher and variant.members != 'peers'
    checkpoint = save_segmentor(tmp_path / 'teacher.pth', segmentor(8)) if frozen else None
    members = variant.networks(segmentor(4), segmentor(8), checkpoint)
    model = on_gpu(dict(method=variant.config), members=members, student=variant.student)
    model.pauses_members = True
    optim_wrapper = build_optim_wrapper(model, WRAPPERS[wrapper])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for seed in range(4):
        for key, value in model.train_step(raw_batch(seed=seed), optim_wrapper).items():
            assert math.isfinite(value), key
    after = model.state_dict()
    for member in model.members:
        key = f'members.{member}.decode_head.conv_seg.weight'
        assert not after[key].equal(before[key])


def test_a_frozen_member_moves_along(tmp_path):
    methods = dict(kd=dict(type='mmseg_adm.KD'))
    model = on_gpu(methods, members=frozen_pair(tmp_path))
    network = model.frozen['teacher'].network

    def devices() -> set[str]:
        tensors = [*network.parameters(), *network.buffers()]
        return {tensor.device.type for tensor in tensors}

    assert devices() == {'cuda'}
    for losses in train(model):
        assert losses['kd.loss_kl'] > 0
    model.cpu()
    assert devices() == {'cpu'}


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_a_frozen_member_of_lower_precision_teaches_nearly_the_same(dtype, tmp_path):
    members = frozen_pair(tmp_path)
    methods = dict(cwd=METHODS['cwd'], kd=dict(type='mmseg_adm.KD'))
    (exact,) = train(on_gpu(methods, members=members), steps=1)
    members['teacher']['dtype'] = dtype
    (found,) = train(on_gpu(methods, members=members), steps=1)
    for name in ('cwd.loss_cwd', 'kd.loss_kl'):
        assert found[name] == pytest.approx(exact[name], rel=0.02)


def test_sync_bn_stays_where_there_is_a_gpu(tmp_path):
    sync = {
        f'model.members.{member}.{part}.norm_cfg.type': 'SyncBN'
        for member in ('student', 'teacher')
        for part in ('backbone', 'decode_head')
    }
    config = load_config(DEMO, sync)
    prepare_runner(config, tmp_path)
    model = build(config.model).cuda()
    for name in ('student', 'teacher'):
        layers = [
            module for module in model.network(name).modules()
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        ]  # fmt: skip
        assert layers
        assert all(isinstance(layer, torch.nn.SyncBatchNorm) for layer in layers)


def test_amp_flag_scales_the_loss():
    config = load_config(DEMO)
    enable_amp(config)
    assert config.optim_wrapper.type == 'AmpOptimWrapper'
    assert config.optim_wrapper.loss_scale == 'dynamic'


def test_a_run_with_amp_trains_validates_and_saves(city, tmp_path):
    config = demo_config(city, tmp_path, iters=2)
    enable_amp(config)
    runner = Runner.from_cfg(config)
    runner.train()
    assert next(runner.model.parameters()).device.type == 'cuda'
    saved = read_checkpoint(tmp_path / 'iter_2.pth')
    assert all(torch.isfinite(value).all() for value in saved['state_dict'].values())
    assert (tmp_path / 'student_iter_2.pth').is_file()
    assert list((tmp_path / 'pictures').iterdir())


SYNC_BN = [
    f'model.members.{member}.{part}.norm_cfg.type=SyncBN'
    for member in ('student', 'teacher')
    for part in ('backbone', 'decode_head')
]


@pytest.mark.parametrize('options', [[], SYNC_BN], ids=['BN', 'SyncBN'])
@pytest.mark.parametrize('processes', [1, 2])
def test_nccl_launch(processes, options, city, tmp_path):
    """Student and teacher both train."""
    if torch.cuda.device_count() < processes:
        pytest.skip(f'needs {processes} CUDA devices')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    result = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(DEMO), str(processes), '--work-dir',
         'run', '--cfg-options', *SMALL, *options],
        cwd=tmp_path,
        env=os.environ | {
            'PYTHON': sys.executable,
            'PORT': str(port),
            'SYNTHETIC_CITY_ROOT': str(city),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    config = Config.fromfile(tmp_path / 'run' / DEMO.name)
    assert config.launcher == 'pytorch'
    assert config.env_cfg.dist_cfg.backend == 'nccl'
    assert 'device_ids' not in config.model_wrapper_cfg
    record = read_checkpoint(tmp_path / 'run' / 'iter_2.pth')['meta']['mmseg_adm']
    assert record['processes'] == processes
    assert (tmp_path / 'run' / 'student_iter_2.pth').is_file()
    assert 'SyncBN is replaced' not in result.stdout + result.stderr


def test_preflight_measures_the_step_and_refuses_a_batch_that_does_not_fit(city, tmp_path):
    config = demo_config(city, tmp_path)
    report = inspect_config(config)
    assert report.failed == []
    assert report.memory.basis.startswith('Measured in a step of 2 images')
    # Room for about sixteen images.
    capacity = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(8 * report.memory.total / capacity)
    try:
        config.train_dataloader.batch_size = 256
        (line,) = inspect_config(config).failed
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert line.name == 'memory'
    assert 'a step of 256 images of 96x128 ran out of memory' in line.text
