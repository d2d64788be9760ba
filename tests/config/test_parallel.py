"""What may stand around a model in several processes."""

import pytest
from factory import demo_config
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel, MMSeparateDistributedDataParallel

from mmseg_adm.config import check_config
from mmseg_adm.config.checks import check_parallel

pytestmark = pytest.mark.core


class Own(MMDistributedDataParallel):
    """A user's own."""


@pytest.mark.parametrize(
    'wrapper',
    [
        None,
        dict(find_unused_parameters=True),
        dict(type='MMDistributedDataParallel', static_graph=True),
        dict(type='mmengine.MMDistributedDataParallel'),
        dict(type=MMDistributedDataParallel),
        dict(type=Own),
    ],
)
def test_copies(wrapper):
    check_parallel(Config(dict(model_wrapper_cfg=wrapper, runner_type='Runner')))


@pytest.mark.parametrize(
    ('setting', 'options', 'name'),
    [
        ('model_wrapper_cfg.type', dict(type='MMFullyShardedDataParallel'), None),
        ('model_wrapper_cfg.type', dict(type='mmengine.MMFullyShardedDataParallel'), None),
        ('model_wrapper_cfg.type', dict(type='MMDeepSpeedEngineWrapper'), None),
        ('model_wrapper_cfg.type', dict(type=MMSeparateDistributedDataParallel),
         'MMSeparateDistributedDataParallel'),
        ('strategy', dict(type='FSDPStrategy', model_wrapper=dict()), None),
        ('strategy', dict(type='DeepSpeedStrategy'), None),
        ('runner_type', 'FlexibleRunner', 'FlexibleRunner'),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(setting, options, name, city, tmp_path):
    config = demo_config(city, tmp_path)
    check_config(config)
    config[setting.partition('.')[0]] = options
    with pytest.raises(ValueError) as caught:
        check_config(config)
    name = name or options['type']
    assert str(caught.value).startswith(f'{setting} is {name}, but several processes train whole')
    assert f'Leave {setting} out' in str(caught.value)
