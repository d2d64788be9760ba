"""IoU by class."""

import pytest
import torch
from mmseg.registry import METRICS

pytestmark = pytest.mark.core


@pytest.fixture
def score():
    """Metrics of label maps and predictions, both as nested lists."""

    def of(labels, predictions, **options):
        metric = METRICS.build(dict(type='mmseg_adm.ClassIoUMetric', **options))
        metric.dataset_meta = dict(classes=('road', 'car', 'sky', 'tree'))
        sample = dict(
            gt_sem_seg=dict(data=torch.tensor([labels])),
            pred_sem_seg=dict(data=torch.tensor([predictions])),
            img_path='city/image.png',
        )
        metric.process({}, [sample])
        return metric.evaluate(1)

    return of


def test_each_class_that_occurs_has_its_iou(score):
    found = score([[0, 0, 1, 255]], [[0, 1, 1, 2]])
    # Road: 1 of 2 pixels; car: 1 of 2; the sky stands where nothing is labeled, trees nowhere.
    assert found['IoU.road'] == 50.0
    assert found['IoU.car'] == 50.0
    assert not {'IoU.sky', 'IoU.tree'} & found.keys()
    assert found['aAcc'] == pytest.approx(66.67)
    wrong = score([[0, 0, 1, 1]], [[0, 1, 1, 2]])
    assert (wrong['IoU.road'], wrong['IoU.sky']) == (50.0, 0.0)
    assert wrong['IoU.car'] == pytest.approx(33.33)


def test_where_only_files_are_written_there_is_nothing_to_add(score, tmp_path):
    assert score([[0, 1]], [[0, 1]], format_only=True, output_dir=str(tmp_path)) == {}
    assert (tmp_path / 'image.png').is_file()
