"""What a training step takes: measured, scaled, and compared with what there is."""

import pytest
import torch
from factory import build, distiller_config, preprocessor, raw_batch
from mmengine.optim import build_optim_wrapper

from mmseg_adm.models.memory import peak_bytes
from mmseg_adm.models.methods import KD
from mmseg_adm.preflight import Report, data, memory, teachers
from mmseg_adm.preflight.data import count_of, crop_of, repeated
from mmseg_adm.preflight.memory import (
    Machine,
    Size,
    Trial,
    check_machine,
    machine_memory,
    measure_memory,
    scaled,
    smaller_batches,
)
from mmseg_adm.preflight.report import Memory

pytestmark = [pytest.mark.core, pytest.mark.usefixtures('measured')]

GIB = 2**30
SGD = dict(type='SGD', lr=0.1, momentum=0.9)


def trained_on(batch: dict, processes: int = 1, **wrapper) -> tuple[Trial, dict]:
    """A trial of a small distiller, and a batch as its preprocessor leaves it."""
    model = build(distiller_config(dict(adm=dict(type='mmseg_adm.ADM'))))
    options = dict(optimizer=SGD) | wrapper
    trial = Trial(model, build_optim_wrapper(model, options), processes)
    return trial, trial.model.data_preprocessor(batch, True)


def gradients_of(trial: Trial) -> int:
    return 4 * sum(each.numel() for each in trial.model.parameters())


def test_it_is_what_the_training_allocates():
    trial, batch = trained_on(raw_batch())
    found = trial.memory(lambda: repeated(batch, 4))

    model = build(distiller_config(dict(adm=dict(type='mmseg_adm.ADM')))).train()
    wrapper = build_optim_wrapper(model, dict(optimizer=SGD))
    four = repeated(raw_batch() | {'inputs': torch.stack(raw_batch()['inputs'])}, 4)
    four['inputs'] = list(four['inputs'])
    model.train_step(four, wrapper)
    # The trial's images are there in bytes too, those of the training only in floats.
    assert found.step == pytest.approx(
        peak_bytes(lambda: model.train_step(four, wrapper)), rel=0.02
    )
    assert found.optimizer == gradients_of(trial)
    assert found.exchange == 0
    assert all(each.grad is None for each in trial.model.parameters())


def test_other_processes_need_the_gradients_once_more():
    trial, _ = trained_on(raw_batch(), processes=2)
    assert trial.kept.exchange == gradients_of(trial)
    assert trial.kept.total == trial.kept.weights + 2 * gradients_of(trial)


def test_amid_an_accumulation_gradients_are_there_all_the_time():
    at_once, batch = trained_on(raw_batch())
    gathering, _ = trained_on(raw_batch(), accumulative_counts=3)
    more = gathering.memory(lambda: batch).step - at_once.memory(lambda: batch).step
    assert more > gradients_of(gathering) / 2


@pytest.mark.parametrize(
    ('optimizer', 'copies', 'counts'),
    [
        (dict(type='SGD'), 0, False),
        (dict(type='SGD', momentum=0.9), 1, False),
        (dict(type='AdamW'), 2, True),
        (dict(type='AdamW', amsgrad=True), 3, True),
    ],
)
def test_what_optimizers_keep(optimizer, copies, counts):
    model = torch.nn.Conv2d(3, 5, 1)
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(lr=0.1) | optimizer))
    # AdamW counts the steps of each parameter, too.
    expected = copies * 4 * (3 * 5 + 5) + counts * 4 * 2
    assert Trial(model, wrapper, 1).kept.optimizer == expected


def test_every_group_of_optimizers_counts():
    model = build(distiller_config(dict(fitnet=dict(type='mmseg_adm.FitNet'))))
    groups = dict(
        constructor='mmseg_adm.GroupOptimWrapperConstructor',
        teacher=dict(optimizer=dict(type='AdamW', lr=0.1)),
        rest=dict(optimizer=SGD),
    )
    trial = Trial(model, build_optim_wrapper(model, groups), 1)
    numbers = {name: sum(each.numel() for each in module.parameters())
               for name, module in (*model.members.items(), *model.methods.items())}  # fmt: skip
    kept = 4 * (numbers['student'] + 2 * numbers['teacher'] + numbers['fitnet'])
    assert trial.kept.optimizer == kept + 4 * len(list(model.members['teacher'].parameters()))


# ----------------------------------------------------------------------------- other sizes


def of(step: int) -> Memory:
    return Memory(weights=3, optimizer=2, exchange=1, step=step, basis='')


def test_bytes_lie_on_a_line():
    small, large = Size(2, 10, 10), Size(2, 20, 10)
    found = scaled({small: of(1000 + 200 * 7), large: of(1000 + 400 * 7)}, Size(4, 30, 50))
    assert found.step == 1000 + 6000 * 7
    assert (found.weights, found.optimizer, found.exchange) == (3, 2, 1)
    assert found.basis == (
        'Scaled to 4 images of 30x50, which were not run, from steps of 2 images of 10x10 and 2 '
        'images of 20x10'
    )
    few, more = Size(1, 10, 10), Size(2, 10, 10)
    assert scaled({few: of(1500), more: of(2000)}, Size(5, 10, 10)).step == 3500


def test_attention_grows_with_the_square():
    def bytes_at(size):
        return size.images * (7 * size.area + 2 * size.area**2)

    small, large, wanted = Size(2, 10, 10), Size(2, 20, 10), Size(3, 40, 40)
    measured = {size: of(bytes_at(size)) for size in (small, large)}
    assert scaled(measured, wanted).step == bytes_at(wanted)


def test_smaller_batches_are_of_smaller_images_or_of_fewer(monkeypatch):
    _, batch = trained_on(raw_batch())
    assert [(count_of(each), *crop_of(each)) for each in smaller_batches(batch)] == [
        (2, 32, 48), (4, 32, 48),
    ]  # fmt: skip
    monkeypatch.setattr(data, 'MULTIPLE', 4)
    monkeypatch.setattr(memory, 'MAX_PIXELS', 600)
    monkeypatch.setattr(data, 'MAX_PIXELS', 600)
    assert [crop_of(each) for each in smaller_batches(batch)] == [(16, 24), (20, 32)]


def test_what_is_scaled_is_near_what_is_measured(monkeypatch):
    monkeypatch.setattr(data, 'MAX_PIXELS', 128 * 128)
    monkeypatch.setattr(memory, 'MAX_PIXELS', 128 * 128)
    size = (192, 256)
    model = build(
        distiller_config(dict(adm=dict(type='mmseg_adm.ADM')), data_preprocessor=preprocessor(size))
    )
    trial = Trial(model, build_optim_wrapper(model, dict(optimizer=SGD)), 1)
    batch = trial.model.data_preprocessor(raw_batch(size=size), True)
    few = smaller_batches(batch)
    measured = {memory.size_of(each): trial.memory(lambda each=each: each) for each in few}
    found = scaled(measured, Size(3, *size)).step
    assert found == pytest.approx(trial.memory(lambda: repeated(batch, 3)).step, rel=0.1)


@pytest.mark.slow
def test_the_real_size_is_run_where_it_is_small(inspect, monkeypatch):
    monkeypatch.setattr(teachers, 'MARGIN', -10)
    settings = {'train_dataloader.batch_size': 3}
    assert inspect(**settings).memory.basis == 'Measured in a step of 3 images of 32x48'
    monkeypatch.setattr(memory, 'RUN_ON_CPU', 0)
    report = inspect(**settings)
    assert report.memory.basis.startswith('Scaled to 3 images of 32x48, which were not run')
    assert report.failed == []


def test_a_step_that_fails_in_its_real_size_alone(inspect, monkeypatch):
    forward = KD.forward

    def picky(self, step):
        if len(step.labels) > 2:
            raise RuntimeError('too many')
        return forward(self, step)

    monkeypatch.setattr(KD, 'forward', picky)
    settings = {'model.methods': dict(kd=dict(type='mmseg_adm.KD'))}
    assert inspect(**settings).failed == []
    (line,) = inspect(**settings, **{'train_dataloader.batch_size': 5}).failed
    assert (line.name, line.text) == (
        'training step',
        'RuntimeError: too many. It was tried with a batch of 5 images of 32x48 pixels',
    )


# ----------------------------------------------------------------------------- what fits


class OutOfMemory:
    """A trial that takes a GiB an image on top of one, on a GPU of eight."""

    def __init__(self, most: int = 6) -> None:
        self.most = most

    def memory(self, batch) -> Memory:
        images = count_of(batch())
        if images > self.most:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return Memory(weights=0, optimizer=0, exchange=0, step=(1 + images) * GIB, basis='')


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (6 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda: GIB)
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)


@pytest.mark.parametrize(('images', 'fits'), [(6, True), (7, False)])
def test_a_batch_that_a_gpu_has_no_room_for(images, fits, gpu):
    batch = dict(inputs=torch.zeros(2, 3, 32, 48), data_samples=[None, None])
    report = Report()
    found = measure_memory(OutOfMemory(), batch, batch, 0, images, report)
    assert found.step == (1 + images) * GIB
    if fits:
        assert found.basis == 'Measured in a step of 6 images of 32x48'
        assert report.checks == []
        return
    (line,) = report.failed
    assert line.name == 'memory'
    assert line.text.startswith(
        'a step of 7 images of 32x48 ran out of memory: it takes about 8.0 GiB of the 7.0 GiB that '
        'are free on this GPU of 8.0 GiB; 6 would fit. Lower train_dataloader.batch_size'
    )


def test_a_gpu_that_has_room_for_nothing(gpu):
    batch = dict(inputs=torch.zeros(2, 3, 32, 48), data_samples=[None, None])
    report = Report()
    assert measure_memory(OutOfMemory(most=1), batch, batch, 0, 4, report) is None
    (line,) = report.failed
    assert 'a step of 4 images of 32x48 ran out of memory, and so did smaller ones' in line.text


def test_a_profiler_of_the_users_goes_on(inspect, monkeypatch):
    monkeypatch.setattr(teachers, 'MARGIN', -10)
    with torch.autograd.profiler.profile():
        report = inspect()
    assert report.failed == []
    assert report.memory is None
    assert ('memory', 'warning') in [(each.name, each.status) for each in report.checks]


@pytest.mark.parametrize(
    ('gib', 'processes', 'expected'),
    [
        (3, 1, None),
        (5, 1, ('warning', 'a step takes 5.0 GiB, and this machine has 4.0 GiB available now. ')),
        (9, 1, ('failed', 'a step takes 9.0 GiB, and this machine has 8.0 GiB. ')),
        (3, 3, ('failed', 'a step takes 9.0 GiB in 3 processes, and this machine has 8.0 GiB. ')),
    ],
)
def test_a_machine_that_has_less(gib, processes, expected, monkeypatch):
    monkeypatch.setattr(memory, 'machine_memory', lambda: Machine(8 * GIB, 4 * GIB))
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    report = Report()
    check_machine(of(gib * GIB), 'failed', report)
    found = [(each.status, each.text.removesuffix(memory.ADVICE)) for each in report.checks]
    assert found == ([expected] if expected else [])


@pytest.mark.parametrize(('limit', 'total'), [(None, 10), ('max', 10), (str(6 * 1024), 6)])
def test_the_memory_of_a_machine_and_of_a_container(limit, total, tmp_path):
    assert machine_memory(tmp_path) is None
    (tmp_path / 'proc').mkdir()
    (tmp_path / 'proc/meminfo').write_text(
        'MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 6 kB\nSwapTotal: 2 kB\nSwapFree: 1 kB\n'
        'HugePages_Total: 0\n'
    )
    if limit:
        (tmp_path / 'sys/fs/cgroup').mkdir(parents=True)
        (tmp_path / 'sys/fs/cgroup/memory.max').write_text(limit)
    assert machine_memory(tmp_path) == Machine(1024 * total, 1024 * min(7, total))


def test_too_large_a_training_does_not_start(inspect, monkeypatch):
    monkeypatch.setattr(teachers, 'MARGIN', -10)
    monkeypatch.setattr(memory, 'machine_memory', lambda: Machine(2**20, 2**20))
    (line,) = inspect().failed
    assert line.name == 'memory'
    assert 'this machine has 0.0 GiB' in line.text
