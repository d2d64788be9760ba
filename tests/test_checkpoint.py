import argparse
import os
import pickle
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from factory import DEMO, build, demo_config, distiller_config, save_segmentor, segmentor
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.runner import Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmseg_adm.checkpoint import (
    check_state_dict,
    fetch,
    fetching,
    is_remote,
    local_path,
    read_checkpoint,
    safe_loading,
    trust_checkpoints,
    weights_of,
)
from mmseg_adm.checkpoint.fetching import url_of
from mmseg_adm.export import plain_config

pytestmark = pytest.mark.core

OFFLINE = DEMO.with_name(DEMO.name.replace('adm_', 'adm-offline_', 1))
RESNET = 'https://download.example.org/third_party/resnet18_v1c-b5776b93.pth'


class Call:
    """Pickled, it calls ``function`` when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    'a shell command': lambda marker: Call(os.system, f'touch {marker}'),
    'an expression': lambda marker: Call(eval, f'open({str(marker)!r}, "w")'),
    'an expression beside what is allowed': lambda marker: Call(
        eval, f'open({str(marker)!r}, "w")', {'x': Call(getattr, HistoryBuffer, 'mean')}
    ),
}


@pytest.fixture
def loading_safely():
    with safe_loading():
        yield


@pytest.fixture
def stock_loading(monkeypatch):
    """MMEngine's own loaders at first; what a test installs is taken back."""
    loaders = {
        '': mmengine_checkpoint.load_from_local,
        'https://': mmengine_checkpoint.load_from_http,
    }
    monkeypatch.setattr(CheckpointLoader, '_schemes', loaders)


@pytest.fixture
def trust():
    """``--trust-checkpoint``, taken back after the test."""
    yield trust_checkpoints
    trust_checkpoints(False)


@pytest.fixture(scope='module')
def real(city, tmp_path_factory):
    """A checkpoint as a run with ``save_best`` writes it."""
    work_dir = tmp_path_factory.mktemp('real')
    Runner.from_cfg(demo_config(city, work_dir, iters=1)).train()
    return work_dir / 'iter_1.pth'


@pytest.fixture
def marker(tmp_path):
    """What a hostile checkpoint would write."""
    return tmp_path / 'executed'


@pytest.fixture
def hostile(real, tmp_path, marker):
    """Write a checkpoint that does something else beside holding weights."""

    def write(kind='a shell command'):
        checkpoint = torch.load(real, weights_only=False)
        checkpoint['meta']['extra'] = HOSTILE[kind](marker)
        torch.save(checkpoint, tmp_path / 'hostile.pth')
        return tmp_path / 'hostile.pth'

    return write


def same_weights(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )


@pytest.mark.parametrize('load', [read_checkpoint, CheckpointLoader.load_checkpoint])
@pytest.mark.parametrize('name', ['iter_1.pth', 'best_student_mIoU_iter_1.pth'])
def test_checkpoints_of_a_run_are_read(load, name, real, loading_safely):
    path = real.with_name(name)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    found = load(str(path))
    expected = torch.load(path, weights_only=False)
    assert same_weights(found['state_dict'], expected['state_dict'])
    assert found['message_hub']['runtime_info'] == expected['message_hub']['runtime_info']
    scalars = found['message_hub']['log_scalars']
    assert type(scalars['train/loss']) is HistoryBuffer
    for key, buffer in expected['message_hub']['log_scalars'].items():
        assert scalars[key].mean() == buffer.mean(), key


def test_the_score_of_the_best_is_read(real):
    info = read_checkpoint(real)['message_hub']['runtime_info']
    assert info['best_score'] >= 0
    assert Path(info['best_ckpt']).name == 'best_student_mIoU_iter_1.pth'


@pytest.mark.parametrize('kind', HOSTILE)
def test_what_would_run_code_is_refused(kind, hostile, marker):
    path = hostile(kind)
    torch.load(path, weights_only=False)
    assert marker.is_file(), 'the file is not hostile'
    marker.unlink()
    with pytest.raises(ValueError, match=r'refused to load .*hostile.pth: .* could run code'):
        read_checkpoint(path)
    assert not marker.exists()


def test_the_refusal_names_the_function(hostile):
    text = r'\(GLOBAL \S*eval\).*If you trust the file, save its state_dict alone'
    with pytest.raises(ValueError, match=text):
        read_checkpoint(hostile('an expression'))


def test_the_refusal_names_a_function_of_a_blocked_module(hostile):
    with pytest.raises(ValueError) as caught:
        read_checkpoint(hostile('a shell command'))
    assert f'{os.system.__module__}.system' in str(caught.value)
    assert 'weights_only' not in str(caught.value)


@pytest.mark.parametrize(
    'reach',
    [
        lambda: Call(getattr, HistoryBuffer, '__subclasses__'),
        lambda: Call(getattr, HistoryBuffer, 'update'),
        lambda: Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'),
        lambda: Call(getattr, torch.Tensor, 'mean'),
        lambda: Call(getattr, Call(HistoryBuffer), 'mean'),
    ],
)
def test_getattr_reaches_statistics_of_history_buffers_alone(reach, tmp_path):
    torch.save({'state_dict': {}, 'extra': reach()}, tmp_path / 'reach.pth')
    assert 'extra' in torch.load(tmp_path / 'reach.pth', weights_only=False)
    with pytest.raises(ValueError, match='refused to load'):
        read_checkpoint(tmp_path / 'reach.pth')
    torch.save({'extra': Call(getattr, HistoryBuffer, 'mean')}, tmp_path / 'allowed.pth')
    assert read_checkpoint(tmp_path / 'allowed.pth')['extra'] is HistoryBuffer.mean


@pytest.mark.parametrize('resume', [False, True])
def test_a_runner_refuses_a_hostile_checkpoint(
    resume, city, hostile, marker, tmp_path, stock_loading
):
    config = demo_config(
        city, tmp_path, iters=2, load_from=str(hostile()), resume=resume,
        train_cfg__val_begin=1000,
    )  # fmt: skip
    with pytest.raises(ValueError, match='refused to load'):
        Runner.from_cfg(config).train()
    assert not marker.exists()


def test_weights_to_start_from_are_read_weights_only(hostile, marker, stock_loading):
    before = CheckpointLoader._schemes
    member = segmentor(init_cfg=dict(type='Pretrained', checkpoint=str(hostile())))
    with pytest.raises(ValueError, match='refused to load'):
        build(distiller_config(members=dict(student=member)))
    assert not marker.exists()
    assert CheckpointLoader._schemes is before


def test_a_frozen_teacher_refuses_a_hostile_checkpoint(city, hostile, marker, tmp_path):
    frozen = dict(frozen=True, checkpoint=str(hostile()))
    config = demo_config(city, tmp_path, model__members__teacher=frozen)
    with pytest.raises(ValueError, match='refused to load'):
        Runner.from_cfg(config)
    assert not marker.exists()


def test_a_config_text_in_a_checkpoint_is_not_run(city, real, marker, tmp_path, loading_safely):
    text = f'opened = open({str(marker)!r}, "w").close()'
    Config.fromstring(text, file_format='.py')
    assert marker.is_file(), 'the text is not hostile'
    marker.unlink()

    checkpoint = torch.load(real, weights_only=False)
    checkpoint['meta']['config'] = text
    torch.save(checkpoint, tmp_path / 'text.pth')
    config = demo_config(
        city, tmp_path, iters=2, load_from=str(tmp_path / 'text.pth'), resume=True,
        train_cfg__val_begin=1000,
    )  # fmt: skip
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.iter == 2
    assert not marker.exists()


def half(path):
    content = path.read_bytes()
    return content[: len(content) // 2]


def half_in_the_old_format(real):
    path = real.with_name('old.pth')
    torch.save({'a': torch.ones(9)}, path, _use_new_zipfile_serialization=False)
    return half(path)


DAMAGED = r'broken\.pth is damaged or truncated \(.+\)\. Copy or download it again'
FOREIGN = r'refused to load .*broken\.pth: it is no PyTorch checkpoint \(not a pickle of weights\)'
BROKEN = {
    'truncated': (half, DAMAGED),
    'truncated in the old format': (half_in_the_old_format, DAMAGED),
    'empty': (lambda real: b'', r'broken\.pth: it is empty \(0 bytes\)\. Copy or download it'),
    'a word': (lambda real: b'hello', FOREIGN),
    'a web page': (lambda real: b'<!DOCTYPE html><html>', FOREIGN),
    'a pointer': (lambda real: b'version https://git-lfs.github.com/spec/v1', FOREIGN),
}


@pytest.mark.parametrize('trusting', [False, True])
@pytest.mark.parametrize('kind', BROKEN)
def test_a_broken_file_is_named(kind, trusting, real, tmp_path, trust):
    trust(trusting)
    content, text = BROKEN[kind]
    path = tmp_path / 'broken.pth'
    path.write_bytes(content(real))
    with pytest.raises(ValueError, match=text):
        read_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'checkpoint not found: .*nowhere\.pth'):
        read_checkpoint(tmp_path / 'nowhere.pth')


def test_a_list_is_no_checkpoint(tmp_path):
    torch.save([torch.ones(1)], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match=r'list\.pth holds a list, not a state dict'):
        read_checkpoint(tmp_path / 'list.pth')


# ------------------------------------------------------------------ --trust-checkpoint


@pytest.fixture
def warnings_of(caplog):
    """What MMEngine's logger is warned of."""
    MMLogger.get_instance('log', log_level='WARNING').addHandler(caplog.handler)
    return caplog


def test_the_refusal_names_the_flag_and_what_it_does(hostile):
    path = hostile('an expression')
    with pytest.raises(ValueError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    start = f'refused to load {path}: it holds objects that could run code when unpickled (GLOBAL '
    assert message.startswith(start)
    assert message.endswith(
        "eval). Only weights and MMEngine's own records are read. If you trust the file, save its "
        'state_dict alone and use that, or pass --trust-checkpoint, which runs the code in it'
    )


@pytest.mark.parametrize('load', [read_checkpoint, CheckpointLoader.load_checkpoint])
def test_a_trusted_file_is_read_and_its_code_runs(
    load, real, hostile, marker, trust, loading_safely, warnings_of
):
    trust(True)
    path = hostile('an expression')
    found = load(str(path))
    assert marker.is_file()
    assert same_weights(found['state_dict'], read_checkpoint(real)['state_dict'])
    text = f'--trust-checkpoint: running the code in {path} (GLOBAL '
    assert warnings_of.messages[-1].startswith(text)

    marker.unlink()
    trust(False)
    with pytest.raises(ValueError, match='refused to load'):
        load(str(path))
    assert not marker.exists()


def test_what_is_safe_is_read_weights_only_though_trusted(real, trust, monkeypatch):
    asked = []
    original = torch.load

    def load(*args, weights_only, **kwargs):
        asked.append(weights_only)
        return original(*args, weights_only=weights_only, **kwargs)

    monkeypatch.setattr(torch, 'load', load)
    trust(True)
    read_checkpoint(real)
    assert asked == [True]


def test_trust_does_not_extend_to_the_config_text(real, marker, tmp_path, trust):
    checkpoint = torch.load(real, weights_only=False)
    checkpoint['meta'].update(config=f'open({str(marker)!r}, "w")', args=argparse.Namespace(lr=1))
    torch.save(checkpoint, tmp_path / 'text.pth')
    trust(True)
    meta = read_checkpoint(tmp_path / 'text.pth')['meta']
    assert meta['args'].lr == 1
    assert 'config' not in meta


def test_trust_outlives_the_building_of_a_distiller(
    city, hostile, marker, tmp_path, trust, loading_safely
):
    config = demo_config(city, tmp_path, config=OFFLINE, load_from=str(hostile()))
    teacher = save_segmentor(tmp_path / 'teacher.pth', plain_config(config, 'teacher').model)
    torch.save(torch.load(teacher) | {'args': argparse.Namespace(lr=1)}, teacher)
    config.model.members.teacher.checkpoint = teacher
    with pytest.raises(ValueError, match=r'GLOBAL argparse.Namespace\)'):
        Runner.from_cfg(config)
    trust(True)
    runner = Runner.from_cfg(config)
    assert not marker.exists()
    with pytest.raises(ValueError, match='the checkpoint does not fit KnowledgeDistiller'):
        runner.load_or_resume()
    assert marker.is_file()


@pytest.mark.parametrize('old', [False, True], ids=['zip', 'old format'])
@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_half_of_a_trusted_file_is_damaged(share, old, tmp_path, trust):
    path = tmp_path / 'broken.pth'
    content = {'args': argparse.Namespace(lr=1), 'state_dict': {'a': torch.ones(999)}}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    trust(True)
    assert read_checkpoint(path)['args'].lr == 1
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=DAMAGED):
        read_checkpoint(path)


def test_a_trusted_file_whose_code_is_missing_is_named(tmp_path, monkeypatch, trust):
    (tmp_path / 'of_elsewhere.py').write_text('class Settings:\n    lr = 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    import of_elsewhere

    path = tmp_path / 'settings.pth'
    torch.save({'state_dict': {}, 'settings': of_elsewhere.Settings()}, path)
    trust(True)
    assert read_checkpoint(path)['settings'].lr == 1
    monkeypatch.delitem(sys.modules, 'of_elsewhere')
    (tmp_path / 'of_elsewhere.py').unlink()
    text = r"settings\.pth needs code that is not installed here \(No module named 'of_elsewhere'\)"
    with pytest.raises(ValueError, match=text):
        read_checkpoint(path)


def test_a_trusted_network_is_no_state_dict(network, tmp_path, trust):
    torch.save(network, tmp_path / 'network.pth')
    trust(True)
    with pytest.raises(ValueError, match=r'network\.pth holds a Sequential, not a state dict'):
        read_checkpoint(tmp_path / 'network.pth')


# ------------------------------------------------------------------------- addresses


@pytest.fixture
def downloads(monkeypatch, tmp_path, loading_safely):
    """Serve one file for every address; returns the addresses that were asked for."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'home'))
    asked = []
    served = tmp_path / 'served.pth'
    torch.save({'weight': torch.arange(3)}, served)

    def download(url, target, *_, **__):
        asked.append(url)
        shutil.copy(served, target)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    return asked


def test_a_file_is_downloaded_once(downloads, tmp_path):
    path = fetch(RESNET)
    assert path == tmp_path / 'home' / 'checkpoints' / 'resnet18_v1c-b5776b93.pth'
    assert fetch(RESNET + '?download=1') == path
    assert CheckpointLoader.load_checkpoint(RESNET)['weight'].tolist() == [0, 1, 2]
    assert downloads == [RESNET]


def test_of_several_at_once_one_downloads(downloads, monkeypatch):
    download = torch.hub.download_url_to_file

    def slowly(*args, **options):
        download(*args, **options)
        time.sleep(0.2)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', slowly)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(fetch, [RESNET] * 4))
    assert len(paths) == 1
    assert downloads == [RESNET]


@pytest.mark.parametrize('name', ['latest.pth', 'model.pth?raw=1', 'weights', 'model-v2.pth'])
def test_addresses_that_end_alike_have_a_file_each(name, downloads):
    urls = [f'https://{host}.example.org/{name}' for host in 'ab']
    first, second = map(fetch, urls)
    assert first != second
    assert fetch(urls[0]) == first
    assert downloads == urls
    stem, _, suffix = name.partition('?')[0].partition('.')
    assert first.name.startswith(f'{stem}-')
    assert first.suffix == (f'.{suffix}' if suffix else '')


def test_a_file_is_named_by_the_path_of_its_address(downloads):
    assert fetch(f'{RESNET}?from=a/b.pth#c/d.pth').name == 'resnet18_v1c-b5776b93.pth'


def test_a_downloaded_file_is_read_weights_only(downloads, hostile, marker, tmp_path):
    shutil.copy(hostile(), tmp_path / 'served.pth')
    with pytest.raises(ValueError, match='refused to load'):
        CheckpointLoader.load_checkpoint(RESNET)
    assert downloads == [RESNET]
    assert not marker.exists()


def test_a_downloaded_file_is_never_trusted(downloads, hostile, marker, tmp_path, trust):
    trust(True)
    shutil.copy(hostile(), tmp_path / 'served.pth')
    with pytest.raises(ValueError, match='does not extend to downloaded files'):
        CheckpointLoader.load_checkpoint(RESNET)
    assert not marker.exists()
    copied = shutil.copy(fetch(RESNET), tmp_path / 'copied.pth')
    read_checkpoint(copied)
    assert marker.exists()


def test_neither_are_links_into_the_cache_and_out_of_it(
    downloads, hostile, marker, tmp_path, trust
):
    trust(True)
    cache = tmp_path / 'home' / 'checkpoints'
    elsewhere = tmp_path / 'elsewhere'
    for folder in (cache, elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / 'teacher.pth').write_bytes(hostile().read_bytes())
    (cache / 'teacher.pth').symlink_to(elsewhere / 'teacher.pth')
    (cache / 'folder').symlink_to(elsewhere)
    (tmp_path / 'alias').symlink_to(cache)
    for path in (cache, cache / 'folder', elsewhere / '..' / cache, tmp_path / 'alias'):
        with pytest.raises(ValueError, match='does not extend to downloaded files'):
            read_checkpoint(path / 'teacher.pth')
    assert not marker.exists()
    read_checkpoint(elsewhere / 'teacher.pth')
    assert marker.exists()


@pytest.mark.parametrize('scheme', ['open-mmlab', 'openmmlab'])
def test_a_model_zoo_name_becomes_an_address(scheme, downloads):
    loaded = CheckpointLoader.load_checkpoint(f'{scheme}://resnet18_v1c')
    assert loaded['weight'].tolist() == [0, 1, 2]
    (address,) = downloads
    assert address.startswith('https://')
    assert 'resnet18_v1c' in address
    assert local_path(f'{scheme}://resnet18_v1c').name == address.split('/')[-1]
    assert len(downloads) == 1


@pytest.mark.parametrize(
    ('name', 'address'),
    [
        ('https://example.org/a.pth', 'https://example.org/a.pth'),
        ('mmcls://mobilenet_v2', '/mobilenet_v2_'),
        ('torchvision://resnet18', '/resnet18-5c106cde.pth'),
    ],
)
def test_every_model_zoo_has_addresses(name, address, monkeypatch):
    urls = {'resnet18': 'https://download.pytorch.org/models/resnet18-5c106cde.pth'}
    monkeypatch.setattr(fetching.mmengine_checkpoint, 'get_torchvision_models', lambda: urls)
    assert address in url_of(name)
    assert url_of(name).startswith('https://')


def test_a_model_zoo_that_cannot_be_looked_up_is_named(monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'torchvision'")

    monkeypatch.setattr(fetching.mmengine_checkpoint, 'get_torchvision_models', missing)
    with pytest.raises(ValueError, match="'torchvision://resnet18' is looked up in torchvision"):
        url_of('torchvision://resnet18')


def test_an_unknown_model_zoo_name_is_named(downloads):
    with pytest.raises(ValueError, match="'open-mmlab://resnet19' is not a model that MMEngine"):
        CheckpointLoader.load_checkpoint('open-mmlab://resnet19')
    assert downloads == []


@pytest.mark.parametrize('url', [RESNET, 'https://download.example.org/latest.pth'])
def test_a_failed_download_says_what_to_do(url, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise URLError('no route to host')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', fail)
    with pytest.raises(FileNotFoundError, match='--no-pretrained') as caught:
        fetch(url)
    for part in (url, 'no route to host'):
        assert part in str(caught.value)
    # Done as told, it is found.
    target = Path(re.search(r'put it at (\S+),', str(caught.value))[1])
    target.write_bytes(b'')
    assert target.parent == tmp_path / 'checkpoints'
    assert fetch(url) == target


@pytest.mark.parametrize('name', ['s3://a/b.pth', 'cluster:s3://a/b.pth', 'petrel://a', 'pavi://a'])
def test_schemes_that_unpickle_are_shut(name, loading_safely):
    with pytest.raises(ValueError, match=f'{name} cannot be read weights-only: download it'):
        CheckpointLoader.load_checkpoint(name)


@pytest.mark.parametrize(
    ('checkpoint', 'remote'),
    [
        (RESNET, True),
        ('open-mmlab://resnet18_v1c', True),
        ('torchvision://resnet18', True),
        ('work_dirs/https/iter_1.pth', False),
        (None, False),
    ],
)
def test_is_remote(checkpoint, remote):
    assert is_remote(checkpoint) is remote


def test_a_local_path_is_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert local_path('~/teacher.pth') == tmp_path / 'teacher.pth'


# --------------------------------------------------------------------- what must fit


def test_weights_of_a_bare_state_dict():
    weights = {'weight': torch.ones(1)}
    assert weights_of(weights) is weights
    assert weights_of({'state_dict': weights, 'meta': {}}) is weights


@pytest.mark.parametrize(
    'checkpoint', [{'state_dict': [1]}, {'epoch': 3}, {'state_dict': {'a': 1}}]
)
def test_weights_of_something_else(checkpoint):
    with pytest.raises(ValueError, match='holds no state dict: a dict of tensors by name'):
        weights_of(checkpoint)


@pytest.fixture
def network():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))


def test_weights_that_fit(network):
    weights = network.state_dict()
    check_state_dict(network, weights, 'weights')
    weights.pop('1.num_batches_tracked')
    check_state_dict(network, weights, 'weights older than PyTorch 0.4.1')


def test_weights_that_do_not_fit(network):
    weights = network.state_dict()
    del weights['0.bias']
    weights['head.weight'] = torch.ones(1)
    weights['0.weight'] = torch.ones(2, 4, 1, 1)
    with pytest.raises(ValueError) as caught:
        check_state_dict(network, weights, 'the file')
    assert str(caught.value).splitlines() == [
        'the file does not fit Sequential:',
        '  1 missing: 0.bias',
        '  1 unexpected: head.weight',
        '  1 of another shape: 0.weight: expected (2, 3, 1, 1), found (2, 4, 1, 1)',
    ]


def test_a_long_difference_is_cut(network):
    with pytest.raises(ValueError) as caught:
        check_state_dict(network, {}, 'an empty file')
    expected = '  6 missing: 0.weight, 0.bias, 1.weight, 1.bias, 1.running_mean, and 1 more'
    assert str(caught.value).splitlines()[1:] == [expected]
