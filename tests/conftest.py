import gc
import os
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
CAMVID_ROOT = Path(
    os.environ.get('CAMVID_ROOT', Path(__file__).parents[2] / 'shared' / 'data' / 'camvid')
)
# A minute or more with a few tests.
LONG = ('test_notebook.py', 'test_wheel.py', 'test_install.py', 'test_speed.py')


@pytest.hookimpl(trylast=True)  # once it is known what runs
def pytest_collection_modifyitems(items):
    """Files that take long come first, so that no process goes on long after the others."""
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in LONG, -counts[item.path]))


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def default_scope():
    from command_line import forget_managers

    forget_managers()
    yield
    forget_managers()


@pytest.fixture(autouse=True, scope='session')
def quick_runners():
    """A runner spends most of a short training on what it says about itself, and on garbage.

    The rest of it goes by while workers that are gone are waited for.
    """
    from mmengine.utils.dl_utils import collect_env

    from mmseg_adm.stack import check_installed

    def unformatted(text, **_):
        return text, True

    # Another worker may be writing the cache of yapf, on a machine where it never ran.
    check_installed()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', unformatted)
        patch.setattr('mmengine.config.config.FormatCode', unformatted, raising=False)
        patch.setattr('mmengine.runner.runner.collect_env', cache(collect_env))
        patch.setattr('mmengine.dataset.base_dataset.gc.collect', lambda generation=2: 0)
        patch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 0.5)
        yield
    gc.unfreeze()


@pytest.fixture(scope='session')
def city(tmp_path_factory):
    """A small drawn data set in the layout of Cityscapes."""
    from mmseg_adm.datasets.synthetic_city import write_synthetic_city

    root = tmp_path_factory.mktemp('city')
    return write_synthetic_city(root / 'data', num_train=8, num_val=3, size=(48, 96), seed=0)


@pytest.fixture
def camvid():
    if not CAMVID_ROOT.is_dir():
        pytest.skip(f'no CamVid at {CAMVID_ROOT}: set CAMVID_ROOT')
    return CAMVID_ROOT
