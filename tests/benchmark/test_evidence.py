"""Which lines of a plan count, with today's code, from a clean tree, on one device."""

import pytest
from plans import FINGERPRINT, line_of, shipped, today, write_plan

from mmseg_adm.benchmark import Results, read_plan, runs
from mmseg_adm.benchmark.evidence import (
    CHANGED,
    DIFFERS,
    NOT_RUN,
    OTHER_TEACHER,
    Evidence,
)
from mmseg_adm.benchmark.provenance import (
    code_hash,
    device_name,
    fingerprint_of,
    same_fingerprint,
)

OTHER = {'loss': 2.0, 'step': 1}


@pytest.fixture(scope='module')
def plan(tmp_path_factory):
    return read_plan(write_plan(tmp_path_factory.mktemp('plan'), shipped('kd'), (0, 1)))


@pytest.fixture
def cells(plan):
    return {cell.key.removeprefix('tiny/'): cell for cell in plan.cells}


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / 'raw.jsonl')


def check_line(cell, same: bool, **others) -> dict:
    line = line_of(cell, status='checked', row=cell.row.settings, same=same)
    return line | {'checked code': 'earlier'} | others


def test_a_clean_line_of_todays_code_counts(plan, cells, results):
    assert Evidence(plan, results).objection(cells['student/0']) == NOT_RUN
    results.add(line_of(cells['student/0']))
    evidence = Evidence(plan, results)
    assert not evidence.objection(cells['student/0'])
    assert not evidence.is_unchecked(cells['student/0'])
    assert evidence.is_finished(cells['student/0'], tree_is_changed=False)


def test_a_line_of_another_code_counts_until_a_check_says_otherwise(plan, cells, results):
    for seed in (0, 1):
        results.add(line_of(cells[f'student/{seed}'], code='earlier'))
    unchecked = Evidence(plan, results)
    assert unchecked.is_unchecked(cells['student/0'])
    assert unchecked.is_finished(cells['student/0'], tree_is_changed=False)
    # What is found of one seed holds for the row; what today's code is not, does not.
    results.add(check_line(cells['student/0'], False, code='yesterday'))
    assert unchecked.is_unchecked(cells['student/1'])
    results.add(check_line(cells['student/0'], True))
    assert not unchecked.is_unchecked(cells['student/1'])
    assert not unchecked.objection(cells['student/1'])
    results.add(check_line(cells['student/0'], False))
    assert unchecked.objection(cells['student/1']) == DIFFERS
    assert not unchecked.is_finished(cells['student/1'], tree_is_changed=False)
    # The training that follows counts again.
    results.add(line_of(cells['student/1']))
    assert not unchecked.objection(cells['student/1'])


def test_a_changed_tree_is_trained_again_once_it_is_in_a_commit(plan, cells, results):
    cell = cells['student/0']
    results.add(line_of(cell, changes=['mmseg_adm/new.py']))
    evidence = Evidence(plan, results)
    assert evidence.objection(cell) == CHANGED
    assert not evidence.is_finished(cell, tree_is_changed=False)
    assert evidence.is_finished(cell, tree_is_changed=True)
    results.add(line_of(cell, changes=['mmseg_adm/new.py'], code='earlier'))
    assert not evidence.is_finished(cell, tree_is_changed=True)


def test_what_is_wrong_with_a_teacher_is_wrong_with_what_it_taught(plan, cells, results):
    results.add(line_of(cells['kd/0'], code='earlier'))
    evidence = Evidence(plan, results, device_name())
    assert evidence.objection(cells['kd/0']) == f'its teacher: {NOT_RUN}'
    results.add(line_of(cells['teacher/0'], code='earlier'))
    assert not evidence.objection(cells['kd/0'])
    results.add(check_line(cells['kd/0'], True))
    assert evidence.is_unchecked(cells['kd/0'])
    results.add(check_line(cells['teacher/0'], False))
    assert evidence.objection(cells['kd/0']) == f'its teacher: {DIFFERS}'
    # Trained again it is another one.
    results.add(line_of(cells['teacher/0'], fingerprint=OTHER))
    assert evidence.objection(cells['kd/0']) == OTHER_TEACHER
    results.add(line_of(cells['teacher/0']))
    assert not evidence.objection(cells['kd/0'])


def test_lines_of_the_device_with_most_of_them_are_compared(plan, cells, results):
    results.add(line_of(cells['student/0']))
    for seed in (0, 1):
        results.add(line_of(cells[f'student/{seed}'], device='gpu: large'))
    results.add(line_of(cells['student/0'], device='gpu: other', settings='of another plan'))
    evidence = Evidence(plan, results)
    assert evidence.device == 'gpu: large'
    assert evidence.elsewhere == {device_name(): 1}
    here = Evidence(plan, results, device_name())
    assert set(here.counted) == {'tiny/student/0'}


def test_fingerprints_are_equal_to_the_last_digit_on_a_processor():
    rows = [{'step': 40, 'loss': 0.5, 'lr': 1.0}, {'mIoU': 1.0, 'step': 10},
            {'step': 20, 'loss': 2.0, 'dml.loss_kl': 1.5, 'lr': 1.0, 'acc': 3.0}]  # fmt: skip
    found = fingerprint_of(rows)
    assert found == {'step': 20, 'loss': 2.0, 'dml.loss_kl': 1.5}
    assert fingerprint_of(rows[1:2]) is None
    near = found | {'loss': 2.0001}
    assert same_fingerprint(found, dict(found), 'cpu: x')
    assert not same_fingerprint(found, near, 'cpu: x')
    assert same_fingerprint(found, near, 'gpu: x')
    assert not same_fingerprint(found, {'step': 20, 'loss': 2.0}, 'gpu: x')


def test_the_hash_of_the_code_knows_modules_of_ones_own(tmp_path, monkeypatch):
    module = tmp_path / 'backbone_of_mine.py'
    module.write_text('WIDTH = 1')
    monkeypatch.syspath_prepend(tmp_path)
    __import__('backbone_of_mine')
    narrow = code_hash(['backbone_of_mine'])
    assert narrow != today()
    assert code_hash(['nobody_has_imported_this']) == today()
    module.write_text('WIDTH = 2')
    assert code_hash(['backbone_of_mine']) not in (narrow, today())


@pytest.mark.parametrize(('score', 'reason'), [(5.0, 'its teacher knows nothing'), (5.5, None)])
def test_a_teacher_that_knows_nothing_teaches_nobody(
    score, reason, plan, cells, results, tmp_path, monkeypatch
):
    # Of 19 classes one everywhere has up to 5.26.
    results.add(line_of(cells['teacher/0'], {'mIoU': score}))
    sitting = runs._Sitting(plan, results, runs.Launcher(plan, tmp_path, 1, 0), print)
    sitting.done.add(cells['teacher/0'].settings)
    monkeypatch.setattr(sitting.launcher, 'command', lambda *_: ['false'])
    line = sitting._train(cells['kd/0'])
    assert line['status'] == 'failed'
    assert line.get('reason', '').startswith(reason or '')
    assert ('exit status' in line) == (reason is None)
    assert line.get('teacher') == (None if reason else FINGERPRINT)
