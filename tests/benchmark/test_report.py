import json
import os

import pytest
from plans import SCORES, TRAINING, fill, line_of, shipped, tiny_plan, write_plan
from scipy import stats

from mmseg_adm.benchmark import Results, Summary, draw_figures, markdown_table, read_plan, remarks
from mmseg_adm.benchmark.summary import Spread


@pytest.fixture
def plan(tmp_path):
    return tiny_plan(tmp_path, 'kd', 'dml')


def rows_of(plan) -> dict:
    return {row.name: row for row in plan.rows}


def table_of(summary) -> list[list[str]]:
    table = markdown_table(summary, summary.plan.pairs[0])
    return [[cell.strip() for cell in row.strip('|').split('|')] for row in table.splitlines()]


@pytest.fixture
def summary(plan, tmp_path):
    return Summary(plan, fill(plan, tmp_path / 'raw.jsonl', SCORES))


def test_spread_by_hand():
    spread = Spread.of([1.0, 2.0, 6.0])
    # Mean 3; squares 4 + 1 + 9 = 14 over 2; standard error sqrt(7 / 3), of which 4.303 times.
    assert spread == Spread(3.0, pytest.approx(7**0.5), 3)
    assert spread.half_width == pytest.approx(4.302653 * (7 / 3) ** 0.5)
    assert Spread.of([]) is None


def test_gains_are_paired_by_seed(summary, plan):
    rows = rows_of(plan)
    # 1, 2 and 3 over the student alone; the spread of either row is larger than theirs.
    assert summary.gain(rows['dml'], 'student') == Spread(2.0, pytest.approx(1.0), 3)
    assert summary.gain(rows['dml'], 'teacher') == Spread(-1.0, 0.0, 3)
    assert summary.gain(rows['student'], 'student', over=rows['dml']).mean == -2.0
    assert summary.gain(rows['dml'], 'student', over=rows['dml']) is None


def test_seeds_that_one_row_lacks_are_not_compared(plan, tmp_path):
    scores = SCORES | {'student': {1: {'mIoU': 44.0}}}
    summary = Summary(plan, fill(plan, tmp_path / 'raw.jsonl', scores))
    gain = summary.gain(rows_of(plan)['dml'], 'student')
    assert (gain.mean, gain.count) == (2.0, 1)


def test_the_last_evaluation_counts_and_the_best_stands_beside(plan, tmp_path):
    results = Results(tmp_path / 'raw.jsonl')
    results.add(line_of(plan.cells[0], {'mIoU': 30.0}, {'mIoU': 45.0}, {'mIoU': 43.0}))
    summary = Summary(plan, results)
    row = plan.cells[0].row
    assert summary.member(row, 'student').mean == 43.0
    assert summary.member(row, 'student', best=True).mean == 45.0


def test_table(summary):
    rows = table_of(summary)
    assert rows[2][:6] == ['student alone', '3', '42.00 ± 2.00', '42.00 ± 2.00', '', '']
    assert rows[3][:9] == ['teacher alone', '3', '', '', '', '', '51.00 ± 1.73', '', '']
    assert rows[4] == ['kd', '0', *['not run'] * 14]
    # The 97.5th percentile of Student's t with two degrees of freedom is 4.303.
    assert rows[5] == [
        'dml', '3', '44.00 ± 2.65', '44.00 ± 2.65', '+2.00', '-0.48 to +4.48, no difference found',
        '50.00 ± 1.73', '-1.00', '-1.00 to -1.00', '91.00 ± 1.00', '2', '3e+09', '5', '0.50', '600',
        '0',
    ]  # fmt: skip


def test_one_seed_has_no_interval(plan, tmp_path):
    scores = {name: {0: row[0]} for name, row in SCORES.items()}
    summary = Summary(plan, fill(plan, tmp_path / 'raw.jsonl', scores))
    expected = ['dml', '1', '41.00', '41.00', '+1.00', 'one seed', '49.00', '-1.00', 'one seed']
    assert table_of(summary)[-1][:9] == expected


@pytest.mark.parametrize(('given', 'multiply_adds', 'seconds'), [(False, 6e9, 10), (True, 3e9, 5)])
def test_a_row_costs_what_its_teacher_cost_unless_that_is_given(
    given, multiply_adds, seconds, tmp_path
):
    path = write_plan(tmp_path, shipped('kd', 'dml'), teacher_is_given=given)
    plan = read_plan(path)
    scores = {
        'student': {0: {'mIoU': 1.0}},
        'teacher': {0: {'mIoU': 2.0}},
        'kd': {0: {'student/mIoU': 3.0, 'teacher/mIoU': 2.0}},
        'dml': {0: {'student/mIoU': 4.0}},
    }
    summary = Summary(plan, fill(plan, tmp_path / 'raw.jsonl', scores))
    rows = rows_of(plan)
    assert summary.multiply_adds(rows['kd']).mean == multiply_adds
    assert summary.seconds(rows['kd']).mean == seconds
    assert summary.multiply_adds(rows['dml']).mean == 3e9
    # It is what it was: no gain of exactly nothing.
    assert table_of(summary)[4][6:9] == ['2.00', 'frozen', '']
    assert summary.gain(rows['kd'], 'teacher') is None


def test_the_row_of_the_budget_is_compared_with_each_other_one(tmp_path):
    plan = read_plan(write_plan(tmp_path, shipped('dml'), (0, 1, 2), budget='dml'))
    rows = table_of(Summary(plan, fill(plan, tmp_path / 'raw.jsonl', SCORES)))
    assert rows[0][6:8] == ['dml over it', '95 % interval']
    assert rows[2][6:8] == ['+2.00', '-0.48 to +4.48, no difference found']
    assert rows[-1][6:8] == ['', '']


def test_the_interval_is_that_of_a_paired_t_test():
    own, other = [41.0, 46.5, 45.0, 44.2], [40.0, 44.0, 42.0, 44.1]
    expected = stats.ttest_rel(own, other).confidence_interval(0.95)
    differences = [first - second for first, second in zip(own, other, strict=True)]
    assert Spread.of(differences).interval == pytest.approx(tuple(expected))


def test_the_deployed_leader_is_the_student(plan, tmp_path):
    scores = SCORES | {'dml': {0: {'leader/mIoU': 45.0, 'peer1/mIoU': 1.0}}}
    summary = Summary(plan, fill(plan, tmp_path / 'raw.jsonl', scores))
    row = rows_of(plan)['dml']
    assert summary.gain(row, 'student').mean == 5.0
    assert summary.member(row, 'teacher') is None


def test_figures_of_what_ran(plan, tmp_path):
    scores = {
        name: {seed: dict(row) for seed, row in rows.items()} for name, rows in SCORES.items()
    }
    for rows, key in ((scores['student'], 'IoU.road'), (scores['dml'], 'student/IoU.road')):
        for row in rows.values():
            row[key] = 80.0
    summary = Summary(plan, fill(plan, tmp_path / 'raw.jsonl', scores))
    drawn = draw_figures(summary, plan.pairs[0], tmp_path / 'all', 'plan')
    assert [path.name for path in drawn] == [
        'plan_tiny_gain.png', 'plan_tiny_curves.png', 'plan_tiny_classes.png',
    ]  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in drawn)


BY_CLASS = {seed: score | {'IoU.road': 80.0} for seed, score in SCORES['student'].items()}


@pytest.mark.parametrize(
    ('scores', 'expected'),
    [
        ({}, []),
        pytest.param({'dml': SCORES['dml']}, ['curves'], marks=pytest.mark.slow),
        ({'student': SCORES['student']}, ['curves']),
        (SCORES, ['gain', 'curves']),
        pytest.param(SCORES | {'student': BY_CLASS}, ['gain', 'curves'], marks=pytest.mark.slow),
        ({'dml': {0: {'nothing': 1.0}}}, []),
    ],
    ids=['nothing', 'a method', 'a network alone', 'no classes', 'classes of one', 'no score'],
)
def test_no_picture_is_empty(scores, expected, plan, tmp_path):
    summary = Summary(plan, fill(plan, tmp_path / 'raw.jsonl', scores))
    drawn = draw_figures(summary, plan.pairs[0], tmp_path / 'drawn', 'plan')
    assert [path.stem for path in drawn] == [f'plan_tiny_{kind}' for kind in expected]
    assert (tmp_path / 'drawn').exists() == bool(expected)


def test_probes_are_averaged_over_seeds_and_drawn(plan, tmp_path):
    results = Results(tmp_path / 'raw.jsonl')
    names = ('similarity_foreground', 'similarity_background', 'response_student',
             'response_teacher')  # fmt: skip
    for cell in plan.cells:
        probes = [{'step': step, **{f'probe/{name}': cell.seed + step for name in names}}
                  for step in (0, 10)]  # fmt: skip
        results.add(line_of(cell, {'student/mIoU': 1.0}, probes=probes))
    summary = Summary(plan, results)
    mean = sum(plan.seeds) / len(plan.seeds)
    expected = [(0, mean), (10, mean + 10)]
    assert summary.probes(rows_of(plan)['dml']) == dict.fromkeys(names, expected)
    drawn = draw_figures(summary, plan.pairs[0], tmp_path, 'plan')
    assert drawn[-1].name == 'plan_tiny_agreement.png'
    assert drawn[-1].stat().st_size > 5000


@pytest.mark.parametrize(
    'names',
    [
        ('similarity_foreground', 'response_leader', 'response_peer1'),
        ('similarity_background',),
        ('similarity_foreground', 'response_student', 'right_student_quarter_1'),
    ],
    ids=['another pair', 'no foreground in sight', 'quarters'],
)
def test_any_probe_is_drawn(names, plan, tmp_path):
    results = Results(tmp_path / 'raw.jsonl')
    for cell in plan.cells:
        probes = [{'step': step, **{f'probe/{name}': step for name in names}} for step in (0, 10)]
        results.add(line_of(cell, {'student/mIoU': 1.0}, probes=probes))
    drawn = draw_figures(Summary(plan, results), plan.pairs[0], tmp_path, 'plan')
    assert drawn[-1].name == 'plan_tiny_agreement.png'


def test_what_is_left_out_and_what_to_know_is_said(plan, tmp_path):
    results = fill(plan, tmp_path / 'raw.jsonl', SCORES)
    cells = {cell.key: cell for cell in plan.cells}
    results.add(line_of(cells['tiny/dml/0'], {'student/mIoU': 1.0}, changes=['a.py']))
    results.add(line_of(cells['tiny/dml/1'], {'student/mIoU': 46.0}, code='other'))
    results.add(line_of(cells['tiny/dml/2'], {'student/mIoU': 1.0}, device='gpu: other'))
    many = [{'mIoU': 40.0}] * 8
    for seed in plan.seeds:
        results.add(line_of(cells[f'tiny/student/{seed}'], *many))
    summary = Summary(plan, results)
    assert remarks(summary, plan.pairs[0]) == [
        '- curves of fewer than 8 points, lower train_cfg.val_interval: tiny/teacher, tiny/dml',
        '- left out, trained from a changed tree: tiny/dml/0',
        "- not checked against today's code (--check): tiny/dml/1",
        '- left out, 1 lines of another device, gpu: other',
    ]
    assert list(summary.values(rows_of(plan)['dml'], 'student/mIoU')) == [1, 2]


def test_lines_of_other_settings_and_failures_do_not_count(plan, tmp_path):
    results = Results(tmp_path / 'raw.jsonl')
    first, second, *_ = plan.cells
    results.add(line_of(first, {'mIoU': 1.0}, settings='others'))
    results.add(line_of(second, {'mIoU': 1.0}, status='failed'))
    assert Summary(plan, results).evidence.counted == {}
    assert results.has_failed(second.settings)
    results.add(line_of(second, {'mIoU': 2.0}))
    again = Results(tmp_path / 'raw.jsonl')
    assert list(Summary(plan, again).evidence.counted) == [second.key]
    assert not again.has_failed(second.settings)
    assert len(again.lines) == 3


def test_a_line_is_added_to_what_is_there_or_not_at_all(tmp_path, monkeypatch):
    first, second = Results(tmp_path / 'raw.jsonl'), Results(tmp_path / 'raw.jsonl')
    first.add({'cell': 'a'})
    second.add({'cell': 'b'})

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', kill)
    with pytest.raises(KeyboardInterrupt):
        first.add({'cell': 'c'})
    assert Results(tmp_path / 'raw.jsonl').lines == [{'cell': 'a'}, {'cell': 'b'}]
    assert [path.name for path in tmp_path.iterdir()] == ['raw.jsonl']


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / 'raw.jsonl'
    path.write_text(json.dumps({'cell': 'a'}) + '\n{"cell": "b", ')
    with pytest.raises(ValueError, match=r'raw\.jsonl, line 2 is damaged'):
        Results(path)


def test_lists_of_images_that_are_not_here_are_named(tmp_path):
    options = {**TRAINING, 'val_dataloader.dataset.ann_file': '/nowhere/val.txt'}
    plan = read_plan(write_plan(tmp_path, {}, options=options))
    (line,) = remarks(Summary(plan, Results(tmp_path / 'raw.jsonl')), plan.pairs[0])
    assert line == '- lines are known again by lists of images that are not here: /nowhere/val.txt'
