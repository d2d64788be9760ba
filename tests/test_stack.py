import runpy
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import setuptools

import mmseg_adm
from mmseg_adm import stack
from mmseg_adm.stack import STACKS, check_stack, installed_versions

ROOT = Path(__file__).resolve().parents[1]
ONEDL = {'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmsegmentation': '1.4.2'}
OPENMMLAB = {'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmsegmentation': '1.2.2'}

pytestmark = pytest.mark.core


def install(folder: Path, distributions: dict[str | None, str]) -> Path:
    """Write what pip leaves beside the packages; ``None`` is a half-removed distribution."""
    for name, version in distributions.items():
        entry = folder / f'{(name or "_gone").replace("-", "_")}-{version}.dist-info'
        entry.mkdir(parents=True)
        if name is not None:
            header = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
            (entry / 'METADATA').write_text(header)
    return folder


def found_in(*folders: Path) -> list[metadata.Distribution]:
    return list(metadata.distributions(path=[str(folder) for folder in folders]))


def message_for(versions: dict[str, str]) -> str:
    with pytest.raises(RuntimeError) as error:
        check_stack(versions)
    return str(error.value)


def test_the_stack_in_use_is_one_of_both():
    assert check_stack() in STACKS


@pytest.mark.parametrize(
    ('versions', 'name'),
    [
        (ONEDL, 'onedl'),
        (OPENMMLAB, 'openmmlab'),
        (ONEDL | {'onedl-mmcv': '2.3.9'}, 'onedl'),
        (ONEDL | {'onedl-mmcv': '2.3.7rc1'}, 'onedl'),
        (OPENMMLAB | {'mmcv': '2.1.0+cpu'}, 'openmmlab'),
    ],
    ids=['onedl', 'openmmlab', 'newer-patch', 'release-candidate', 'local-build'],
)
def test_complete_and_in_range(versions, name):
    assert check_stack(versions) == name


def test_neither_says_how_to_install_either():
    message = message_for({})
    assert message.startswith('mmseg_adm needs MMSegmentation, which is not installed.')
    assert 'pip install -e ".[onedl]"' in message
    assert 'pip install -e ".[openmmlab]"' in message
    for wanted in STACKS.values():
        ranges = ' '.join(f'"{name}{specifier}"' for name, specifier in wanted.items())
        assert f'\n    {ranges}' in message


@pytest.mark.parametrize(
    'versions',
    [ONEDL | OPENMMLAB, ONEDL | {'mmengine': '0.10.7'}, {'mmcv': '2.1.0', 'onedl-mmcv': '2.3.6'}],
    ids=['both', 'one-too-many', 'mixture'],
)
def test_both_says_what_to_uninstall(versions):
    message = message_for(versions)
    assert 'overwrite each other' in message
    for name, version in versions.items():
        assert f'{name} {version}' in message
    assert f'pip uninstall -y {" ".join(sorted(versions))}.' in message


@pytest.mark.parametrize('stack_name', STACKS)
@pytest.mark.parametrize('missing', [0, 1, 2])
def test_one_missing_is_named_with_its_range(stack_name, missing):
    versions = dict({'onedl': ONEDL, 'openmmlab': OPENMMLAB}[stack_name])
    name = list(versions)[missing]
    del versions[name]
    message = message_for(versions)
    assert message.startswith(f'{name}{STACKS[stack_name][name]} is missing beside ')
    for other, version in versions.items():
        assert f'{other} {version}' in message.splitlines()[0]


@pytest.mark.parametrize(
    ('versions', 'name', 'found'),
    [
        (ONEDL, 'onedl-mmengine', '0.10.11'),
        (ONEDL, 'onedl-mmcv', '2.4.0'),
        (ONEDL, 'onedl-mmsegmentation', '1.5.0rc1'),
        (OPENMMLAB, 'mmengine', '0.10.6'),
        (OPENMMLAB, 'mmcv', '2.2.0'),
        (OPENMMLAB, 'mmsegmentation', '0.30.0'),
    ],
)
def test_out_of_range_names_both_versions(versions, name, found):
    wanted = next(wanted[name] for wanted in STACKS.values() if name in wanted)
    message = message_for(versions | {name: found})
    assert message.startswith(f'{name} {found} is installed, not {wanted}.')
    assert 'pip install' in message


def test_installed_versions_reads_names_as_pip_writes_them(tmp_path):
    folder = install(
        tmp_path,
        {'onedl_mmengine': '0.10.12', 'MMCV': '2.1.0', 'numpy': '2.0.0', None: '1.0.0'},
    )
    assert installed_versions(found_in(folder)) == {'onedl-mmengine': '0.10.12', 'mmcv': '2.1.0'}


@pytest.mark.parametrize(
    ('alias', 'name', 'complete'),
    [
        ('mmcv-lite', 'mmcv', OPENMMLAB),
        ('mmengine-lite', 'mmengine', OPENMMLAB),
        ('onedl-mmengine-lite', 'onedl-mmengine', ONEDL),
        ('onedl_mmengine_lite', 'onedl-mmengine', ONEDL),
    ],
)
def test_a_light_edition_stands_in_for_the_full_one(alias, name, complete, tmp_path):
    others = {other: complete[other] for other in complete if other != name}
    light = found_in(install(tmp_path / 'light', others | {alias: complete[name]}))
    assert check_stack(installed_versions(light)) == check_stack(complete)
    old = found_in(install(tmp_path / 'old', others | {alias: '0.1'}))
    assert f'{name} 0.1 is installed' in message_for(installed_versions(old))


def test_the_version_that_is_imported_counts(tmp_path):
    first = install(tmp_path / 'environment', {'mmengine': '0.10.7'})
    second = install(tmp_path / 'system', {'mmengine': '0.9.0'})
    assert installed_versions(found_in(first, second)) == {'mmengine': '0.10.7'}


def test_the_uninstall_line_names_what_is_installed(tmp_path, monkeypatch):
    found = found_in(install(tmp_path, {'mmcv-lite': '2.1.0', 'onedl-mmcv': '2.3.6'}))
    monkeypatch.setattr(stack.metadata, 'distributions', lambda: found)
    with pytest.raises(RuntimeError, match='pip uninstall -y mmcv-lite onedl-mmcv'):
        check_stack()


@pytest.mark.parametrize(
    'use',
    [
        'import mmseg_adm; mmseg_adm.pair',
        "from mmengine.registry import MODELS; MODELS.get('mmseg_adm.KnowledgeDistiller')",
    ],
    ids=['import', 'registry'],
)
def test_without_a_stack_the_package_says_so(use):
    program = f'from importlib import metadata\nmetadata.distributions = lambda: []\n{use}'
    result = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    last = result.stderr.split('RuntimeError: ')[-1]
    assert last.startswith('mmseg_adm needs MMSegmentation, which is not installed.')
    assert all(f'[{name}]"' in last for name in STACKS)


@pytest.mark.parametrize(
    'argv', [pytest.param(['train', 'config.py'], marks=pytest.mark.slow), ['info']], ids=' '.join
)
def test_a_stack_that_does_not_fit_is_one_message(argv):
    program = f"""
from importlib import metadata
from mmseg_adm.commands.main import main
metadata.distributions = lambda: []
raise SystemExit(main({argv}))"""
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    said = 'mmseg_adm needs MMSegmentation, which is not installed.'
    assert 'Traceback' not in done.stderr
    if argv == ['info']:  # The versions stand there all the same.
        assert done.returncode == 0
        assert f'OpenMMLab stack: does not fit. {said}' in done.stdout
        assert 'PyTorch: ' in done.stdout
    else:
        assert done.returncode == 2
        assert done.stderr.startswith(f'mmseg-adm: {said}')


def test_an_old_pytorch_does_not_fit(monkeypatch):
    monkeypatch.setattr(stack.metadata, 'version', lambda name: '2.5.1+cu121')
    with pytest.raises(RuntimeError, match=r'needs torch>=2\.6, and 2\.5\.1\+cu121 is installed'):
        check_stack(ONEDL)


@pytest.mark.parametrize('left', ['', 'half'])
def test_half_a_grammar_of_yapf_stops_nobody(left, tmp_path, monkeypatch):
    # What another process is about to write, or what one that was killed left.
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    line = 'import yapf.yapflib.yapf_api as yapf; print(yapf.FormatCode("a  =  1")[0])'
    subprocess.run([sys.executable, '-c', line], check=True, capture_output=True)
    cached = list(tmp_path.rglob('Grammar*.pickle'))
    assert cached
    for file in cached:
        file.write_bytes(file.read_bytes()[:100] if left else b'')
    plain = subprocess.run([sys.executable, '-c', line], capture_output=True)
    assert plain.returncode
    ready = f'from mmseg_adm.stack import check_installed; check_installed(); {line}'
    told = subprocess.run([sys.executable, '-c', ready], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, 'a = 1\n\n'), told.stderr


def test_a_wheel_from_the_source_distribution_has_the_configs(tmp_path):
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('mmseg_adm', 'configs'):
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'MANIFEST.in'):
        shutil.copy(ROOT / name, source)
    setup(source, 'sdist', '--formats=tar', f'--dist-dir={tmp_path}')
    shutil.unpack_archive(next(tmp_path.glob('*.tar')), tmp_path / 'unpacked')
    (unpacked,) = (tmp_path / 'unpacked').iterdir()
    setup(unpacked, 'build_py', f'--build-lib={tmp_path / "built"}')
    built = tmp_path / 'built' / 'mmseg_adm' / '.mim' / 'configs'
    assert files_in(built) == files_in(source / 'configs')
    assert files_in(built)


def setup(folder: Path, *arguments: str) -> None:
    command = [sys.executable, 'setup.py', '-q', *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def test_setup_offers_each_stack_as_an_extra(monkeypatch):
    arguments = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **given: arguments.update(given))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / 'setup.py'))
    undeclared = {'ftfy', 'regex'}
    for name, wanted in STACKS.items():
        ranges = {f'{package}{specifier}' for package, specifier in wanted.items()}
        assert set(arguments['extras_require'][name]) == ranges | undeclared
    assert arguments['version'] == mmseg_adm.__version__
    assert 'mmseg_adm.models.methods' in arguments['packages']
    assert not any(package.startswith('tests') for package in arguments['packages'])
