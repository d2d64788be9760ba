"""What a finished training leaves, as a line of a benchmark."""

import json

import pytest
import torch
from command_line import command
from factory import DEMO, demo_config
from mmengine.runner import Runner
from plans import SCORES, line_of, tiny_plan

from mmseg_adm.benchmark.results import collect, student_hash


@pytest.fixture(scope='module')
def trained(city, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('trained')
    options = dict(train_cfg__val_interval=1, val_evaluator__type='mmseg_adm.ClassIoUMetric')
    config = demo_config(city, work_dir, iters=2, config=DEMO, **options)
    config.default_hooks.pop('pictures')
    config.default_hooks.probe = dict(
        type='mmseg_adm.AgreementProbeHook', foreground=['car'], interval=1
    )
    Runner.from_cfg(config).train()
    return work_dir


def test_a_training_is_collected_from_its_own_log(trained):
    found = collect(trained)
    assert [row['step'] for row in found['evaluations']] == [1, 2]
    assert {'student/mIoU', 'teacher/mIoU', 'student/IoU.road'} < set(found['evaluations'][-1])
    assert 'data_time' not in found['evaluations'][-1]
    assert [row['step'] for row in found['probes']] == [0, 1, 2]
    assert found['fingerprint']['step'] == 1
    assert {'student.decode.loss_ce', 'adm.loss_consensus'} < set(found['fingerprint'])
    assert found['seconds per iteration'] > 0
    assert 0 <= found['share of data waiting'] <= 1
    assert found['extra parameters'] == 8 * 16  # the projection of ADM


def test_the_student_is_told_by_its_weights(trained, tmp_path):
    found = collect(trained)['student']
    (exported,) = trained.glob('student_iter_2.pth')
    weights = torch.load(exported, weights_only=True)['state_dict']
    assert student_hash(weights) == found
    weights['decode_head.conv_seg.bias'][0] += 1e-6
    assert student_hash(weights) != found


def test_an_evaluation_that_was_made_twice_counts_once(trained, tmp_path):
    (log,) = trained.glob('*/vis_data/scalars.json')
    folder = tmp_path / 'again' / 'vis_data'
    folder.mkdir(parents=True)
    later = {'student/mIoU': 12.5, 'step': 2}
    (folder / 'scalars.json').write_text(log.read_text() + json.dumps(later) + '\n{"half')
    (tmp_path / 'iter_2.pth').symlink_to(trained / 'iter_2.pth')
    assert [row.get('student/mIoU') for row in collect(tmp_path)['evaluations']][-1] == 12.5


def test_what_a_training_has_not_left_is_told(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match='no log in'):
        collect(tmp_path)
    folder = tmp_path / 'run' / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('{"mIoU": 1.0, "step": 1}\n')
    with pytest.raises(
        ValueError, match=r'no training iteration .* default_hooks\.logger\.interval'
    ):
        collect(tmp_path)
    (log,) = trained.glob('*/vis_data/scalars.json')
    (folder / 'scalars.json').write_text(log.read_text())
    with pytest.raises(FileNotFoundError, match='no checkpoint in'):
        collect(tmp_path)


def test_the_command_trains_what_is_left_and_reports(tmp_path, monkeypatch):
    """In this process, with trainings that only say that they were."""
    plan = tiny_plan(tmp_path, 'dml')
    raw = plan.path.parent / 'results' / 'tiny.jsonl'
    raw.parent.mkdir()

    def run_plan(plan, results, work_dir, jobs, report):
        report(plan.cells[0], 'running')
        for cell in plan.cells:
            results.add(line_of(cell, SCORES[cell.row.name][cell.seed]))
            report(cell, 'done')
        results.add(line_of(cell) | {'status': 'failed', 'log': 'run/log'})
        assert jobs == 2

    monkeypatch.setattr('mmseg_adm.benchmark.run_plan', run_plan)
    done = command('benchmark', plan.path, '--jobs', 2, cwd=tmp_path)
    assert done.returncode == 1
    assert '| dml | 3 |' in done.stdout
    assert 'failed: tiny/dml/2; their logs are named in' in done.stderr
    assert 'tiny/student/0: done' in done.stderr
    table = raw.with_suffix('.md')
    assert f'wrote {table}' in done.stdout
    names = sorted(path.name for path in raw.parent.glob('*.png'))
    assert names == ['tiny_tiny_curves.png', 'tiny_tiny_gain.png']
    # A report trains nothing.
    monkeypatch.setattr('mmseg_adm.benchmark.run_plan', None)
    assert command('benchmark', plan.path, '--report', cwd=tmp_path).stdout == done.stdout
