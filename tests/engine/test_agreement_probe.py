import json

import pytest
import torch
from factory import demo_config
from mmengine.runner import Runner

from mmseg_adm.engine.hooks import agreement_probe
from mmseg_adm.export import plain_config

THINGS = ('person', 'car')


def probing(city, work_dir, foreground=THINGS, **options):
    hook = dict(type='mmseg_adm.AgreementProbeHook', interval=2, images=2, foreground=foreground)
    # DML reads no features: the probe reads them itself.
    methods = dict(adm=None, dml=dict(type='mmseg_adm.DML'))
    return demo_config(city, work_dir, custom_hooks=[hook | options], model__methods=methods)


def probes(work_dir):
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    rows = map(json.loads, path.read_text().splitlines())
    return [row for row in rows if 'probe/response_student' in row]


@pytest.mark.slow
def test_a_run_is_probed_and_not_changed(city, tmp_path):
    runner = Runner.from_cfg(probing(city, tmp_path / 'probed'))
    runner.train()
    rows = probes(tmp_path / 'probed')
    assert [row['step'] for row in rows] == [0, 2, 4]
    for row in rows:
        similarities = [row[f'probe/similarity_{where}'] for where in ('foreground', 'background')]
        assert all(-1 <= value <= 1 for value in similarities)
        assert similarities[0] != similarities[1]
        for name in ('student', 'teacher'):
            assert 0 <= row[f'probe/response_{name}'] <= 1
            quarters = [row[f'probe/right_{name}_quarter_{number}'] for number in (1, 2, 3, 4)]
            assert all(0 <= share <= 1 for share in quarters)
    assert not any('features' in taps for taps in runner.model._taps_by_member().values()), (
        'DML reads features now: the test shows nothing'
    )
    config = probing(city, tmp_path / 'alone')
    config.custom_hooks = []
    alone = Runner.from_cfg(config)
    alone.train()
    for name, value in alone.model.state_dict().items():
        assert torch.equal(value, runner.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(foreground=('person', 'horse')), 'no class horse: road'),
        (dict(pair=('student', 'peer')), 'no member peer: student, teacher'),
    ],
)
def test_what_is_not_there_is_refused(options, message, city, tmp_path):
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(probing(city, tmp_path, **options)).train()


def test_a_probe_that_fails_leaves_no_hook(city, tmp_path, monkeypatch):
    runner = Runner.from_cfg(probing(city, tmp_path))
    before = hooks_of(runner.model)

    def broken(*arguments):
        raise RuntimeError('broken')

    monkeypatch.setattr(agreement_probe, 'attention', broken)
    with pytest.raises(RuntimeError, match='broken'):
        runner.train()
    assert hooks_of(runner.model) == before


def hooks_of(model):
    """Of its networks: others look at what the model returns."""
    return sum(len(part._forward_hooks) for part in model.modules() if part is not model)


def test_overlap_by_hand():
    # Two of three foreground positions are among the three highest: 2 / (3 + 3 - 2).
    response = torch.tensor([[[5.0, 4.0, 3.0, 2.0, 9.0]]])
    foreground = torch.tensor([[[True, False, True, True, False]]])
    valid = torch.tensor([[[True, True, True, True, False]]])
    assert agreement_probe._overlap(response, foreground, valid) == 0.5


def test_right_by_quarter_by_hand():
    similarity = torch.tensor([[[0.9, -0.5, 0.1, 0.3, 0.8, 0.5, 0.2, 0.7, 0.99]]])
    labels = torch.tensor([[[0, 0, 0, 0, 0, 0, 0, 0, 1]]])
    # From low to high similarity, without the last position: right, wrong, wrong, wrong, ...
    predicted = torch.tensor([[[0, 0, 1, 1, 0, 1, 1, 0, 0]]])
    logits = torch.nn.functional.one_hot(predicted, 2).movedim(-1, 1).float()
    valid = labels == 0
    shares = agreement_probe._right_by_quarter(logits, labels, similarity, valid)
    assert shares == [0.5, 0.0, 0.5, 1.0]
    assert agreement_probe._right_by_quarter(logits, labels, similarity, similarity < 0.2) == []


@pytest.mark.parametrize('scale', [0.1, 10.0])
def test_overlap_is_one_where_the_response_is_the_foreground(scale):
    foreground = torch.rand(1, 6, 8) > 0.6
    response = scale * (foreground + 0.1 * torch.rand(1, 6, 8))
    assert agreement_probe._overlap(response, foreground, torch.ones_like(foreground)) == 1


def test_a_network_alone_is_not_measured(city, tmp_path):
    config = probing(city, tmp_path)
    alone = plain_config(config, 'student').model
    config.model = alone
    config.val_cfg = dict(type='ValLoop')
    config.default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
    Runner.from_cfg(config).train()
    assert probes(tmp_path) == []
