import json
import os

import pytest
from plans import fill, line_of, tiny_plan
from scipy import stats

from mmseg_adm.benchmark import Results, draw_figures, markdown_table
from mmseg_adm.benchmark.summary import Spread, Summary

SCORES = {
    'student': {0: {'mIoU': 40.0}, 1: {'mIoU': 44.0}, 2: {'mIoU': 42.0}},
    'teacher': {0: {'mIoU': 50.0}, 1: {'mIoU': 50.0}, 2: {'mIoU': 53.0}},
    'dml': {
        0: {'student/mIoU': 41.0, 'teacher/mIoU': 49.0, 'agreement': 90.0},
        1: {'student/mIoU': 46.0, 'teacher/mIoU': 49.0, 'agreement': 91.0},
        2: {'student/mIoU': 45.0, 'teacher/mIoU': 52.0, 'agreement': 92.0},
    },
}


@pytest.fixture
def plan(tmp_path):
    return tiny_plan(tmp_path, 'kd', 'dml')


@pytest.fixture
def summary(plan, tmp_path):
    return Summary(plan, fill(plan, tmp_path / 'raw.jsonl', SCORES))


def test_spread_by_hand():
    spread = Spread.of([1.0, 2.0, 6.0])
    # Mean 3; squares 4 + 1 + 9 = 14 over 2; error sqrt(7 / 3).
    assert spread == Spread(3.0, pytest.approx(7**0.5), 3)
    assert spread.error == pytest.approx((7 / 3) ** 0.5)
    assert Spread.of([]) is None


def test_gains_are_paired_by_seed(summary):
    # 1, 2 and 3 over the student alone; the spread of either row is larger than theirs.
    assert summary.gain('tiny', 'dml', 'student') == Spread(2.0, pytest.approx(1.0), 3)
    assert summary.gain('tiny', 'dml', 'teacher') == Spread(-1.0, 0.0, 3)
    assert summary.gain('tiny', 'dml', 'student', over='dml') == Spread(0.0, 0.0, 3)


def test_seeds_that_one_row_lacks_are_not_compared(plan, tmp_path):
    scores = SCORES | {'student': {1: {'mIoU': 44.0}}}
    summary = Summary(plan, fill(plan, tmp_path / 'raw.jsonl', scores))
    gain = summary.gain('tiny', 'dml', 'student')
    assert (gain.mean, gain.count) == (2.0, 1)


def test_the_last_evaluation_counts_and_the_best_stands_beside(plan, tmp_path):
    results = Results(tmp_path / 'raw.jsonl')
    results.add(line_of(plan.cells[0], {'mIoU': 30.0}, {'mIoU': 45.0}, {'mIoU': 43.0}))
    summary = Summary(plan, results)
    assert summary.member('tiny', 'student', 'student').mean == 43.0
    assert summary.member('tiny', 'student', 'student', best=True).mean == 45.0


def test_table(summary):
    rows = [
        [cell.strip() for cell in row.strip('|').split('|')]
        for row in markdown_table(summary, 'tiny').splitlines()
    ]
    assert rows[2][:6] == ['student alone', '3', '42.00 ± 2.00', '42.00 ± 2.00', '', '']
    assert rows[3][:9] == ['teacher alone', '3', '', '', '', '', '51.00 ± 1.73', '', '']
    assert rows[4] == ['kd', '0', *['not run'] * 11]
    # The 97.5th percentile of Student's t with two degrees of freedom is 4.303.
    assert rows[5] == [
        'dml', '3', '44.00 ± 2.65', '44.00 ± 2.65',
        '+2.00 ± 0.58', '-0.48 to +4.48, no difference found', '50.00 ± 1.73',
        '-1.00 ± 0.00', '-1.00 to -1.00', '91.00 ± 1.00', '0.50', '600', '0',
    ]  # fmt: skip


def test_one_seed_has_no_interval(plan, tmp_path):
    scores = {name: {0: row[0]} for name, row in SCORES.items()}
    summary = Summary(plan, fill(plan, tmp_path / 'raw.jsonl', scores))
    row = markdown_table(summary, 'tiny').splitlines()[-1]
    assert row.startswith('| dml | 1 | 41.00 | 41.00 | +1.00 |  | 49.00 | -1.00 |  |')


def test_the_interval_is_that_of_a_paired_t_test():
    own, other = [41.0, 46.5, 45.0, 44.2], [40.0, 44.0, 42.0, 44.1]
    expected = stats.ttest_rel(own, other).confidence_interval(0.95)
    differences = [first - second for first, second in zip(own, other, strict=True)]
    assert Spread.of(differences).interval == pytest.approx(tuple(expected))


def test_the_deployed_leader_is_the_student(plan, tmp_path):
    scores = SCORES | {'dml': {0: {'leader/mIoU': 45.0, 'peer1/mIoU': 1.0}}}
    summary = Summary(plan, fill(plan, tmp_path / 'raw.jsonl', scores))
    assert summary.gain('tiny', 'dml', 'student').mean == 5.0
    assert summary.member('tiny', 'dml', 'teacher') is None


def test_figures_of_what_ran(summary, plan, tmp_path):
    drawn = draw_figures(summary, 'tiny', tmp_path / 'all', 'plan')
    assert [path.name for path in drawn] == [
        'plan_tiny_gain.png', 'plan_tiny_curves.png', 'plan_tiny_classes.png',
    ]  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in drawn)
    nothing = Summary(plan, Results(tmp_path / 'none.jsonl'))
    assert draw_figures(nothing, 'tiny', tmp_path / 'none', 'plan') == []


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
    assert summary.probes('tiny', 'dml') == dict.fromkeys(names, expected)
    drawn = draw_figures(summary, 'tiny', tmp_path, 'plan')
    assert drawn[-1].name == 'plan_tiny_foreground.png'
    assert drawn[-1].stat().st_size > 5000


@pytest.mark.parametrize(
    'names',
    [('similarity_foreground', 'response_leader', 'response_peer1'), ('similarity_background',)],
    ids=['another pair', 'no foreground in sight'],
)
def test_any_probe_is_drawn(names, plan, tmp_path):
    results = Results(tmp_path / 'raw.jsonl')
    for cell in plan.cells:
        probes = [{'step': step, **{f'probe/{name}': step for name in names}} for step in (0, 10)]
        results.add(line_of(cell, {'student/mIoU': 1.0}, probes=probes))
    drawn = draw_figures(Summary(plan, results), 'tiny', tmp_path, 'plan')
    assert drawn[-1].name == 'plan_tiny_foreground.png'


def test_lines_of_other_settings_and_failures_do_not_count(plan, tmp_path):
    results = Results(tmp_path / 'raw.jsonl')
    first, second, *_ = plan.cells
    results.add(line_of(first, {'mIoU': 1.0}, settings='others'))
    results.add(line_of(second, {'mIoU': 1.0}, status='failed'))
    assert results.finished(plan.cells) == {}
    results.add(line_of(second, {'mIoU': 2.0}))
    again = Results(tmp_path / 'raw.jsonl')
    assert list(again.finished(plan.cells)) == [second.key]
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
