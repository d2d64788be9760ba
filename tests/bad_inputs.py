"""Bad inputs to every command, and what must be said of each."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from factory import DEMO, ROOT, build, demo_config, segmentor
from mmengine.config import Config

from mmseg_adm.export import plain_config

# Stands for the folder of `write_material` in command lines and texts.
M = 'M/'
# Writes into the folder in which a command is run; the second argument is that of the material.
Writer = Callable[[Path, Path], object]
NAME = '_base_/default_runtime.py'
PSP = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
IMAGES, LABELS = 'leftImg8bit', 'gtFine'


@dataclass(frozen=True)
class BadInput:
    """A command line that is refused.

    Attributes:
        line: Without the name of the program.
        said: Words of the message.
        files: What is in the folder, by name: a text, bytes, or what writes it.
        lines: Of the message; ``None`` where it lists what it has found.
    """

    line: str
    said: tuple[str, ...]
    files: Mapping[str, str | bytes | Writer] = field(default_factory=dict)
    lines: int | None = 1


def write_material(folder: Path, city: Path) -> None:
    """Configs of narrow networks on drawn data, and checkpoints, good ones and others."""
    config = demo_config(city, 'run')
    plain = demo_config(city, 'run', config=_config('pspnet/pspnet_r18-w16-d8'))
    plain.model = plain_config(config, 'student').model
    offline = demo_config(city, 'run', config=_config(f'adm/adm-offline_{_pair()}'))
    offline.model.members.teacher.checkpoint = str(folder / 'teacher.pth')
    for name, each in (('small', config), ('plain', plain), ('offline', offline)):
        each.dump(folder / f'{name}.py')
    distiller = build(config.model)
    _save(folder / 'distiller.pth', distiller.state_dict())
    _save(folder / 'teacher.pth', distiller.network('teacher').state_dict())
    _save(folder / 'plain.pth', distiller.network('student').state_dict())
    _write_checkpoints(folder / 'bad', folder)


def _config(name: str) -> Path:
    return ROOT / f'configs/{name}_1xb8-demo_synthetic-city-96x128.py'


def _pair() -> str:
    return DEMO.name.split('_1xb8')[0].partition('_')[2]


def _save(path: Path, weights: dict) -> None:
    torch.save({'state_dict': weights, 'meta': {}}, path)


class _Code:
    def __reduce__(self) -> tuple:
        return print, ('this must not run',)


def _write_checkpoints(bad: Path, good: Path) -> None:
    (bad / 'folder.pth').mkdir(parents=True)
    content = (good / 'distiller.pth').read_bytes()
    header = json.dumps({'weight': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}).encode()
    tensors = struct.pack('<Q', len(header)) + header + bytes(4)
    for name, each in {
        'empty': b'', 'half': content[: len(content) // 2], 'text': b'just a note\n',
        'renamed_safetensors': tensors,
    }.items():  # fmt: skip
        (bad / f'{name}.pth').write_bytes(each)
    (bad / 'weights.safetensors').write_bytes(tensors)
    torch.jit.script(torch.nn.Conv2d(1, 1, 1)).save(bad / 'script.pth')
    torch.save({'state_dict': _Code()}, bad / 'code.pth')
    torch.save([1, 2], bad / 'list.pth')
    torch.save({'state_dict': {'weight': 'heavy'}}, bad / 'no_tensors.pth')
    with zipfile.ZipFile(bad / 'zip.pth', 'w') as archive:
        archive.writestr('note.txt', 'just a note')
    _save(bad / 'other_network.pth', build(segmentor(6, classes=19)).state_dict())
    teacher = torch.load(good / 'teacher.pth')['state_dict']
    other = {key: value[:7] if 'conv_seg' in key else value for key, value in teacher.items()}
    _save(bad / 'other_classes.pth', other)


def config(text: str, base: str = 'small') -> dict[str, str]:
    """A config ``c.py`` that differs so from one of the material."""
    return {'c.py': f"_base_ = '{M}{base}.py'\n{text}\n"}


def override(setting: str, *said: str, command: str = 'train', **options: int) -> BadInput:
    """A training with one setting."""
    return BadInput(f'{command} {M}small.py --cfg-options {setting}', said, **options)


def of_a_command_line() -> Iterator[BadInput]:
    """What no config is read for."""
    commands = {
        'train': 'c.py', 'preflight': 'c.py', 'profile': 'c.py', 'test': 'c.py c.pth',
        'export': 'c.py c.pth', 'benchmark': 'p.py', 'demo': '', 'info': '',
    }  # fmt: skip
    yield BadInput('tarin', ("invalid choice: 'tarin'", 'train'))
    for command, given in commands.items():
        said = ('unrecognized arguments: --amq', f'mmseg-adm {command} --help')
        yield BadInput(f'{command} {given} --amq', said)
    for command in ('train', 'preflight', 'profile', 'test', 'export', 'demo'):
        said = ("--cfg-options: expected KEY=VALUE, got 'lr'",)
        yield BadInput(f'{command} {commands[command]} --cfg-options lr', said)
    for command, missing in (('test', 'checkpoint'), ('export', 'checkpoint')):
        yield BadInput(f'{command} c.py', (f'are required: {missing}',))
    for command, missing in (('benchmark', 'plan'), ('profile', 'config')):
        yield BadInput(command, (f'are required: {missing}',))
    for flags, said in (
        ('benchmark p.py --jobs 0', "--jobs: expected an integer >= 1, got '0'"),
        ('benchmark p.py --gpus two', "--gpus: expected an integer >= 1, got 'two'"),
        ('benchmark p.py --jobs 1.5', "--jobs: expected an integer >= 1, got '1.5'"),
        ('profile c.py --rounds -1', "--rounds: expected an integer >= 1, got '-1'"),
        (f'profile c.py --rounds {"9" * 5000}', '--rounds: expected an integer >= 1'),
        ('export c.py c.pth --onnx --shape 0 32', "--shape: expected an integer >= 1, got '0'"),
        ('export c.py c.pth --onnx --shape 32', '--shape: expected 2 arguments'),
        ('export c.py c.pth --onnx --shape a b', "--shape: expected an integer >= 1, got 'a'"),
        ('export c.py c.pth --shape 32 32', '--shape belongs to --onnx'),
        ("export c.py c.pth --out ''", "--out: expected a path, got ''"),
        ("train c.py --work-dir ''", "--work-dir: expected a path, got ''"),
        ("train ''", "config: expected a path, got ''"),
        ("test c.py ''", "checkpoint: expected a path, got ''"),
        ('test c.py c.pth --wait-time soon', "--wait-time: expected seconds >= 0, got 'soon'"),
        ('test c.py c.pth --wait-time -1', "--wait-time: expected seconds >= 0, got '-1'"),
        ('train c.py --launcher ssh', "--launcher: invalid choice: 'ssh'"),
        ('train c.py --local-rank one', "invalid int value: 'one'"),
        ('train c.py --cfg-options =1', "--cfg-options: expected KEY=VALUE, got '=1'"),
        ('train c.py --amp=yes', "--amp: ignored explicit argument 'yes'"),
        ('train', 'name a config, or two networks: --student CONFIG --teacher CONFIG'),
        ('preflight', 'name a config, or two networks: --student CONFIG --teacher CONFIG'),
        ('train --student a.py', '--student needs a --teacher'),
        ('train --teacher a.py', '--teacher belong to a pair: name its --student too'),
        ('train c.py --student a.py --teacher b.py', 'stand in place of one'),
        ('train c.py --method adm', '--method belong to a pair'),
        ('train --student a.py --teacher b.py --dataset-from me', "invalid choice: 'me'"),
    ):
        yield BadInput(flags, (said,))


def of_paths() -> Iterator[BadInput]:
    """Configs and checkpoints that are not there."""
    for command, more in (('train', ''), ('preflight', ''), ('profile', ''), ('test', 'c.pth'),
                          ('export', 'c.pth'), ('export --onnx', 'c.pth')):  # fmt: skip
        yield BadInput(f'{command} none.py {more}'.strip(), ('config not found: none.py',))
    for name, said in (
        ('mmseg::none.py', "mmseg has no config 'none.py'"),
        ('mmdet::none.py', 'configs have names in mmseg, mmseg_adm only'),
        ('mmseg_adm::adm', "'mmseg_adm::adm' is a folder: name a config in it: adm-finetune_"),
        ('mmseg_adm::adm/adm_pspnet.py', 'Nearest: adm/adm_'),
        ('mmseg_adm::', "mmseg_adm has no config '.py'"),
    ):
        yield BadInput(f'train {name}', (said,))
    yield BadInput(f'train {M}smal.py', (f'config not found: {M}smal.py. Nearest: small.py',))
    yield BadInput(f'train {M}', (f'{M} is a folder: name a config in it: ', 'small.py'))
    yield BadInput('train configs', ('configs is a folder without configs: name a file',),
                   {'configs/note.txt': ''})  # fmt: skip
    yield BadInput('benchmark none.py', ('plan not found: ', 'none.py'))
    yield BadInput('benchmark plans', ('plans is a folder: name a plan in it',),
                   {'plans/p.py': ''})  # fmt: skip
    yield BadInput(f'train --student {PSP.replace("r18", "r19")} --teacher {PSP}',
                   ("mmseg has no config 'pspnet/pspnet_r19", 'Nearest: pspnet/'))  # fmt: skip
    yield BadInput(f'train --student {PSP} --teacher {PSP} --teacher-checkpoint none.pth',
                   ('checkpoint not found: none.pth',))  # fmt: skip
    for command in ('test', 'export', 'export --onnx'):
        said = ('checkpoint not found: none.pth',)
        yield BadInput(f'{command} {M}small.py none.pth', said)
    yield BadInput('train loop.py', ('config not found: loop.py',), {'loop.py': _loop})


def _loop(path: Path, material: Path) -> None:
    path.symlink_to(path)


def of_writing() -> Iterator[BadInput]:
    """Where a command shall write, and cannot or must not."""
    mine: dict = {'mine': 'my notes'}
    for command, flag in (
        (f'train {M}small.py', '--work-dir'), (f'test {M}small.py {M}distiller.pth', '--work-dir'),
        (f'test {M}small.py {M}distiller.pth', '--out'), ('benchmark p.py', '--work-dir'),
        (f'test {M}small.py {M}distiller.pth', '--show-dir'), ('benchmark p.py', '--results'),
        ('demo', '--work-dir'), ('demo', '--data-root'),
    ):  # fmt: skip
        files = mine | {'p.py': ''}
        for path in ('mine', 'mine/below'):
            said = (f'{flag} {path}: ', 'mine is a file, where a folder is needed')
            yield BadInput(f'{command} {flag} {path}', said, files)
        said = (f'{flag} /proc/mine: /proc cannot be written into', 'Choose another folder')
        yield BadInput(f'{command} {flag} /proc/mine', said, files)
    for flag in ('--out', '--show-dir'):
        said = (f'{flag} maps/teacher holds files already, a.png for one', 'choose a new folder')
        yield BadInput(f'test {M}small.py {M}distiller.pth {flag} maps', said,
                       {'maps/teacher/a.png': 'mine'})  # fmt: skip
        said = (f'{flag} maps holds files already, a.png for one',)
        yield BadInput(f'test {M}plain.py {M}plain.pth {flag} maps', said, {'maps/a.png': 'mine'})
    said = ('--out mine: ', 'mine is a file, where a folder is needed')
    yield BadInput(f'export {M}small.py {M}distiller.pth --out mine/a.pth', said, mine)
    yield BadInput(f'export {M}small.py {M}distiller.pth --out /proc/a.pth',
                   ('--out /proc: /proc cannot be written into',))  # fmt: skip
    yield BadInput(f'train {M}small.py --cfg-options work_dir=mine',
                   ('the work dir mine: ', 'is a file'), mine)  # fmt: skip
    for folder in ('.', 'configs/..'):
        yield BadInput(f'train c.py --work-dir {folder}',
                       ('c.py is there, and no training has written it', 'Choose another --work'),
                       config('') | {'configs/x': ''})  # fmt: skip
    exported = f'export {M}small.py c.pth --out'
    copied: dict = {'c.pth': _copied('distiller.pth')}
    yield BadInput(f'{exported} c.pth', ('c.pth is what is exported from',), copied)
    yield BadInput(f'{exported} c', ('c.pth is what is exported from',), copied)
    yield BadInput(f'{exported} ./x/../c.pth', ('is what is exported from',), copied | {'x/y': ''})
    yield BadInput('export s.py c.pth --out s.pth', ('s.py is what is exported from',),
                   copied | {'s.py': _copied('small.py')})  # fmt: skip
    for name in ('tiny.py', 'tiny.pth'):
        said = (f'{name} is there, and no export has written it', 'choose another --out')
        yield BadInput(f'{exported} tiny.pth', said, copied | {name: 'mine'})
    yield BadInput(f'{exported} v1.2', ('v1.2.py is there, and no export',),
                   copied | {'v1.2.py': 'a = 1'})  # fmt: skip
    yield BadInput(f'{exported} teacher.pth', ('teacher.pth is there, and no export',),
                   copied | {'teacher.pth': _copied('teacher.pth')})  # fmt: skip
    yield BadInput(f'export {M}small.py c.pth --onnx --out a.onnx',
                   ('a.onnx is there, and no export',), copied | {'a.onnx': 'mine'})  # fmt: skip
    yield BadInput(f'{exported} run/a.pth', ('among the files of a training',),
                   copied | {'run/a.pth': 'mine', 'run/last_checkpoint': ''})  # fmt: skip
    yield BadInput(f'export {M}small.py c.pth', ('student_c.pth is there, and no export',),
                   copied | {'export/student_c.pth': 'mine'})  # fmt: skip
    for out in ('folder', 'folder/', 'new/'):
        yield BadInput(f'{exported} {out}', (f'{out} is a folder: --out is the path of a file',),
                       copied | {'folder/x': ''})  # fmt: skip
    yield BadInput('demo --data-root city', ('city is not a folder of a synthetic city',),
                   {'city/mine.png': 'mine'})  # fmt: skip


def _copied(name: str) -> Writer:
    return lambda path, material: shutil.copy(material / name, path)


def of_config_files() -> Iterator[BadInput]:
    """Files that are no configs."""
    for text, said in (
        ('model = (', "c.py cannot be read: SyntaxError in line 1: '(' was never closed"),
        ('a = 1\nmodel == dict(\n)\nb = = 2', 'c.py cannot be read: SyntaxError in line 4'),
        ('model = nothing', "c.py cannot be read: NameError: name 'nothing' is not defined"),
        ('a = 1 / 0', 'c.py cannot be read: ZeroDivisionError: division by zero'),
        ('raise ValueError("mine")', 'c.py cannot be read: mine'),
        ("custom_imports = dict(imports=['nothing_such'])", "No module named 'nothing_such'"),
        ('assert False, "no"', 'c.py cannot be read: AssertionError: no'),
        ("open('none.txt')", 'c.py cannot be read: No such file or directory: none.txt'),
        ("_base_ = './none.py'", 'none.py: No such file or directory'),
        ("_base_ = 'c.py'", 'its _base_ leads back to itself, c.py -> c.py: remove one of them'),
        ('_base_ = 5', 'c.py cannot be read: _base_ must be a path, a name, or a list of them'),
        ("_base_ = 'mmseg::pspnet/none.py'", "mmseg has no config 'pspnet/none.py'. Nearest: "),
        ('', 'c.py has no model: is it a part of other configs?'),
        ('model = 5', 'c.py has no model'),
        ("model = 'pspnet'", 'c.py has no model'),
    ):  # fmt: skip
        yield BadInput('train c.py', (said,), {'c.py': text})
    yield BadInput('train c.py', ("c.py cannot be read: 'utf-8' codec can't decode",),
                   {'c.py': b'\x00\xff\xfe'})  # fmt: skip
    yield BadInput('train c.md', ('c.md cannot be read: OSError: Only py/yml/yaml/json',),
                   {'c.md': '# A note'})  # fmt: skip
    yield BadInput('train c.yml', ('c.yml cannot be read: ',), {'c.yml': 'a: [1\nb: {'})
    yield BadInput('train c.json', ('c.json cannot be read: ',), {'c.json': '{"a": '})
    yield BadInput('train a.py', ('leads back to itself, a.py -> b.py -> a.py',),
                   {'a.py': "_base_ = './b.py'", 'b.py': "_base_ = ['./a.py']"})  # fmt: skip
    yield BadInput('train a.py', ('it inherits from ', 'b.py: SyntaxError in line 2'),
                   {'a.py': "_base_ = './b.py'", 'b.py': 'a = 1\nb ='})  # fmt: skip
    yield BadInput('train a.py', ('Duplicate key is not allowed among bases',),
                   {'a.py': "_base_ = ['./b.py', './d.py']", 'b.py': 'a = 1',
                    'd.py': 'a = 2'})  # fmt: skip
    for command, more in (('train', ''), ('preflight', ''), ('profile', ''),
                          ('test', f'{M}plain.pth'), ('export', f'{M}plain.pth')):  # fmt: skip
        yield BadInput(f'{command} mmseg_adm::{NAME} {more}', ('has no model: is it a part of',))
    said = ('c.py cannot be read: SyntaxError in line 1',)
    for command in (f'test c.py {M}plain.pth', f'export c.py {M}plain.pth', 'preflight c.py'):
        yield BadInput(command, said, {'c.py': 'model = ('})


def of_settings() -> Iterator[BadInput]:
    """Configs that are some, with something in them that does not fit."""
    for setting, said in (
        ('model.members=[a,b]', 'model.members must be a dict by name'),
        ('model.members.student=5', 'model.members.student must be a dict'),
        ('model.members.student=none.py', 'config not found: none.py'),
        (
            'model.methods=[adm]',
            'model.methods must be a dict by name, such as methods=dict(kd=...',
        ),
        ('model.methods.adm=5', "method 'adm' must be a dict with the type of a method"),
        ('model.student=pupil', "student='pupil' is not a member: student, teacher"),
        ('model=5', 'has no model'),
        (
            'model.type=mmseg_adm.Distiller',
            "model.type: no network is called 'mmseg_adm.Distiller'",
        ),
        (
            'default_hooks.schedule.schedules=[adm]',
            'default_hooks.schedule.schedules must be a dict',
        ),
        ('default_hooks.schedule.schedules.adm=5', 'schedules.adm must be a dict, got the int 5'),
        ('default_hooks.schedule.schedules.amd.start=1', "schedule for 'amd', but the methods are"),
        ('default_hooks.schedule.schedules.adm.begin=1', "has no option 'begin': start, ramp"),
        ('default_hooks.schedule.schedules.adm.start=-1', 'start must be an integer >= 0, got -1'),
        ('default_hooks=[a]', "default_hooks must be a dict, got the list ['a']"),
        ('default_hooks.logger=often', "default_hooks.logger must be a dict, got the str 'often'"),
        ('default_hooks.mine.type=MyHook', "default_hooks.mine: no hook is called 'MyHook'"),
        (
            'default_hooks.logger.intervall=5',
            "LoggerHook has no option 'intervall'. Did you mean 'interval'?",
        ),
        (
            'default_hooks.checkpoint.max_keep_ckpt=1',
            "CheckpointHook has no option 'max_keep_ckpt'. Did you mean 'max_keep_ckpts'?",
        ),
        (
            'default_hooks.checkpoint.save_best=student/mIuO',
            "save_best is 'student/mIuO', which no validation has. Did you mean 'student/mIoU'?",
        ),
        ('default_hooks.checkpoint.save_best=mIoU', "Did you mean 'student/mIoU'?"),
        ('default_hooks.checkpoint.save_best=5', 'save_best'),
        ('default_hooks.pictures.indices=5', 'indices'),
        ('custom_hooks=5', 'custom_hooks must be a dict, or a list of dicts, got the int 5'),
        ('train_dataloader=5', 'train_dataloader must be a dict, got the int 5'),
        ('train_dataloader=None', 'has no train_dataloader: nothing to run'),
        ('train_dataloader.dataset=5', 'train_dataloader.dataset must be a dict'),
        (
            'train_dataloader.dataset.dataset.type=CityscapeDataset',
            "no data set is called 'CityscapeDataset'. Did you mean 'CityscapesDataset'?",
        ),
        (
            'train_dataloader.dataset.dataset.pipeline.2.type=RandomResized',
            "pipeline.2: no transform is called 'RandomResized'. Did you mean 'RandomResize'?",
        ),
        (
            'train_dataloader.dataset.dataset.pipeline.3.crop=5',
            "pipeline.3: RandomCrop has no option 'crop'",
        ),
        ('train_dataloader.dataset.dataset.pipeline.9.type=Flip', 'Index 9 exceeds'),
        ('train_dataloader.dataset.dataset.color=red', "CityscapesDataset has no option 'color'"),
        ('train_dataloader.sampler.type=Sampler', "sampler: no sampler is called 'Sampler'"),
        ('train_dataloader.batch_size=0', 'batch_size must be an integer >= 1, got 0'),
        ('train_dataloader.batch_size=two', "batch_size must be an integer >= 1, got 'two'"),
        ('train_dataloader.num_workers=-1', 'num_workers must be an integer >= 0, got -1'),
        ('val_dataloader.num_workers=two', "num_workers must be an integer >= 0, got 'two'"),
        (
            'train_dataloader.shufle=True',
            "DataLoader has no option 'shufle'. Did you mean 'shuffle'?",
        ),
        ('train_dataloader.persistent_workers=True', 'the dataloader: persistent_workers option'),
        ('optim_wrapper=SGD', "optim_wrapper must be a dict, got the str 'SGD'"),
        ('optim_wrapper=None', 'has no optim_wrapper'),
        ('optim_wrapper.type=OptimWraper', "Did you mean 'OptimWrapper'?"),
        (
            'optim_wrapper.optimizer.type=SDG',
            "optim_wrapper.optimizer: no optimizer is called 'SDG'. Did you mean",
        ),
        ('optim_wrapper.optimizer=SGD', 'optim_wrapper.optimizer must be a dict, got the str'),
        ('optim_wrapper.optimizer.lr=high', "optimizer.lr must be a number, got the str 'high'"),
        ('optim_wrapper.optimizer.lr=-1', 'optim_wrapper: Invalid learning rate: -1'),
        (
            'optim_wrapper.optimizer.beta=0.9',
            "optim_wrapper.optimizer: AdamW has no option 'beta'. Did you mean 'betas'?",
        ),
        ('optim_wrapper.constructor=Mine', "no constructor is called 'Mine'"),
        (
            'optim_wrapper.accumulative_counts=0',
            'accumulative_counts must be an integer >= 1, got 0',
        ),
        ('param_scheduler=5', 'param_scheduler must be a dict, or a list of dicts, got the int'),
        (
            'param_scheduler.0.type=PolyLr',
            "param_scheduler.0: no parameter scheduler is called 'PolyLr'. Did you mean 'PolyLR'?",
        ),
        ('param_scheduler.0.powr=2', "has no option 'powr'. Did you mean 'power'?"),
        ('param_scheduler.7.end=3', 'the overrides do not fit the config: Index 7 exceeds'),
        ('train_cfg=5', 'train_cfg must be a dict, got the int 5'),
        ('train_cfg.type=Loop', "train_cfg: no loop is called 'Loop'"),
        ('val_cfg.type=ValLop', "Did you mean 'ValLoop'?"),
        ('val_evaluator=5', 'val_evaluator must be a dict, or a list of dicts'),
        ('val_evaluator.type=IoU', "val_evaluator: no metric is called 'IoU'. Did you mean"),
        (
            'val_evaluator.iou_metrics=[mIuO]',
            "val_evaluator.iou_metrics must be some of mIoU, mDice, mFscore, got ['mIuO']",
        ),
        ('visualizer.type=Painter', "visualizer: no visualizer is called 'Painter'"),
        (
            'visualizer.vis_backends.0.type=TensorBoardVisBackend',
            "vis_backends.0: no visualization backend is called 'TensorBoardVisBackend'. Did you",
        ),
        (
            'visualizer.vis_backends.0.type=NeptuneVisBackend',
            'vis_backends.0: NeptuneVisBackend writes by neptune, which is not installed',
        ),
        ('default_scope=mmsge', "default_scope is 'mmsge', a package that is not installed"),
        ('default_scope=5', 'default_scope must be a text, got the int 5'),
        ('randomness.seed=five', "randomness.seed must be an integer, got 'five'"),
        ('randomness=5', 'randomness must be a dict'),
        ('env_cfg=5', 'env_cfg must be a dict'),
        ('env_cfg.mp_cfg.mp_start_method=clone', "env_cfg: cannot find context for 'clone'"),
        ('log_processor.type=Log', "no log processor is called 'Log'"),
        (
            'log_level=LOUD',
            "log_level must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, got 'LOUD'",
        ),
        ('work_dir=5', 'work_dir must be a text, got the int 5'),
        ('load_from=none.pth', 'checkpoint not found: none.pth'),
        ('load_from=5', 'load_from must be a text, got the int 5'),
        ('model.methods.adm.consensus_wieght=2', "no option 'consensus_wieght'. Did you mean"),
        ('model.methods.adm.consensus_weight=-1', "method 'adm' (ADM): consensus_weight must be"),
        ('model.methods.dml.tau=hot', "method 'dml' (DML): tau must be a finite number"),
        ('model.methods.kd.type=mmseg_adm.KDD', "method 'kd' must be a dict with the type of a"),
        ('model.members.student.type=EncodeDecoder', "member 'student': EncodeDecoder is not in"),
        (
            'model.members.student.backbone.type=ResNat',
            "member 'student': ",
        ),
        ('model.members.student.backbone.depth=17', "member 'student': "),
        ('model.members.student.backbone.dept=18', "member 'student': "),
        ('model.members.student.decode_head.num_classes=7', 'different numbers of classes'),
        ('model.members.student.decode_head.num_classes=0', 'different numbers of classes'),
        ('model.members.student.decode_head.channels=wide', "member 'student': "),
        (
            'model.members.student.decode_head.in_index=9',
            'could not start: IndexError',
        ),
        ('model.members.teacher.frozen=True', "member 'teacher' is frozen and has no checkpoint"),
        ('model.data_preprocessor.size=5', 'size must be (height, width) in pixels, got the int 5'),
        ('model.data_preprocessor.type=Pre', 'Pre is not in the mmseg::model registry'),
        ('activation_checkpointing=[backbone]', 'activation_checkpointing gives a backbone'),
        ('optim_wrapper.optimizer.lr=[0.1', "lr must be a number, got the str '[0.1'"),
        (
            "'optim_wrapper.optimizer.betas=[(1,2]'",
            '--cfg-options optim_wrapper.optimizer.betas=[(',
        ),
    ):
        yield override(setting, said)
    for setting, said in (
        ('test_dataloader=None', 'has no test_dataloader: nothing to run'),
        ('test_evaluator=None', 'has no test_evaluator: nothing to run'),
        ('test_evaluator.type=IoU', "test_evaluator: no metric is called 'IoU'"),
        ('test_dataloader.dataset.type=Cities', "no data set is called 'Cities'"),
        ('test_dataloader.dataset.data_root=none', 'test data (CityscapesDataset)'),
        ('model.members=[a]', 'model.members must be a dict by name'),
    ):
        yield BadInput(f'test {M}small.py {M}distiller.pth --cfg-options {setting}', (said,))
    yield BadInput(f'test {M}small.py {M}distiller.pth --tta --cfg-options tta_pipeline=None',
                   ('--tta needs tta_pipeline and tta_model in the config',))  # fmt: skip
    yield BadInput(f'test {M}small.py {M}distiller.pth --show-dir painted --cfg-options '
                   'visualizer=None', ('--show and --show-dir need a visualizer',))  # fmt: skip
    for member in ('pupil', "''"):
        said = (f"--member '{member.strip(chr(39))}': the members are student, teacher, or all",)
        yield BadInput(f'test {M}small.py {M}distiller.pth --member {member}', said)
    yield BadInput(f'test {M}plain.py {M}plain.pth --member student',
                   ("--member 'student': this config is a plain EncoderDecoder",))  # fmt: skip
    yield BadInput(f'export {M}small.py {M}distiller.pth --member pupil',
                   ("'pupil' is not a member: student, teacher",))  # fmt: skip
    yield BadInput(f'export {M}plain.py {M}plain.pth',
                   ('this config is a EncoderDecoder, not a KnowledgeDistiller',))  # fmt: skip
    yield BadInput(f'export --onnx {M}plain.py {M}plain.pth --member student',
                   ("it has no member 'student' to choose",))  # fmt: skip
    yield BadInput(f'profile {M}plain.py', ('expected a KnowledgeDistiller',))
    for setting, said in (
        ('model.methods.adm.alpha=5', "no option 'alpha'"),
        ('optim_wrapper.optimizer.type=SDG', "no optimizer is called 'SDG'. Did you mean"),
        ('train_dataloader=None', 'has no train_dataloader.batch_size, which a step takes'),
        ('model.members=5', 'model.members must be a dict by name'),
        ('model.type=EncoderDecoder', 'expected a KnowledgeDistiller, got a EncoderDecoder'),
    ):
        yield override(setting, said, command='profile')
    for setting, said in (
        ('model.members=[a]', 'model.members must be a dict by name'),
        ('train_dataloader=5', 'train_dataloader must be a dict, got the int 5'),
        ('param_scheduler.7.end=3', 'the overrides do not fit the config: Index 7 exceeds'),
    ):
        yield override(setting, said, command='preflight')
    yield BadInput(
        "demo --cfg-options 'a=[(1,2]'", ('--cfg-options a=[(1,2]: Imbalanced brackets',)
    )
    yield BadInput('demo --cfg-options model=5', ('has no model',))
    yield BadInput(f'train {M}small.py --launcher slurm', ('--launcher slurm needs CUDA',))
    pair = f'train --student {M}plain.py --teacher {M}plain.py'
    yield BadInput(pair, ('name the --method by which they are paired:\n', 'adm'), lines=None)
    yield BadInput(f'{pair} --method amd', ("no method is called 'amd'",), lines=None)
    yield BadInput(f'{pair} --method ffsd', ('have configs of their own',), lines=None)
    yield BadInput(f'{pair} --method cwd', ('learns from a trained teacher: name its weights',))
    yield BadInput(f'train --student {M}small.py --teacher {M}plain.py --method adm',
                   ('pairs networks already',))  # fmt: skip


def of_checkpoints() -> Iterator[BadInput]:
    """Files that are no checkpoints, or of another network."""
    kinds = {
        'empty.pth': 'empty.pth: it is empty (0 bytes). Copy or download it again',
        'half.pth': 'half.pth is damaged or truncated',
        'text.pth': 'text.pth: it is no PyTorch checkpoint (not a pickle of weights)',
        'folder.pth': 'folder.pth is a folder: name a checkpoint in it, a .pth file',
        'code.pth': 'code.pth: it holds objects that could run code when unpickled (GLOBAL ',
        'weights.safetensors': 'weights.safetensors: it holds safetensors. Save them as PyTorch',
        'renamed_safetensors.pth': 'renamed_safetensors.pth: it holds safetensors',
        'script.pth': 'script.pth: it is a TorchScript archive, a program. Save the weights alone',
        'zip.pth': 'zip.pth: it is a zip archive, but none of PyTorch',
        'list.pth': 'list.pth holds a list, not a state dict',
        'no_tensors.pth': 'holds no state dict: a dict of tensors by name',
    }
    for command, (name, said) in itertools.product(
        ('test {0}small.py {1}', 'export {0}small.py {1}', 'export --onnx {0}plain.py {1}',
         'train {0}offline.py --cfg-options model.members.teacher.checkpoint={1}',
         'train {0}small.py --cfg-options load_from={1}',
         'profile {0}offline.py --cfg-options model.members.teacher.checkpoint={1}'),
        kinds.items(),
    ):  # fmt: skip
        yield BadInput(command.format(M, f'{M}bad/{name}'), (said,))


def of_checkpoints_of_others() -> Iterator[BadInput]:
    """Whole checkpoints that do not fit, and addresses where there is none."""
    teacher = 'model.members.teacher.checkpoint'
    for line, said in (
        ('test {0}small.py {0}bad/other_network.pth', 'bad/other_network.pth'),
        ('test {0}plain.py {0}bad/other_network.pth', 'bad/other_network.pth does not fit'),
        ('test {0}plain.py {0}distiller.pth', 'distiller.pth does not fit EncoderDecoder'),
        ('test {0}small.py {0}plain.pth', 'plain.pth'),
        ('export --onnx {0}plain.py {0}bad/other_network.pth', 'bad/other_network.pth does not'),
        ('train {0}small.py --cfg-options load_from={0}plain.pth', 'plain.pth'),
        (f'train {{0}}offline.py --cfg-options {teacher}={{0}}bad/other_network.pth',
         "the checkpoint of member 'teacher', {0}bad/other_network.pth, does not fit"),
        (f'train {{0}}offline.py --cfg-options {teacher}={{0}}bad/other_classes.pth',
         '7 classes in the file, 19 in the config'),
        (f'profile {{0}}offline.py --cfg-options {teacher}={{0}}bad/other_classes.pth',
         '7 classes in the file, 19 in the config'),
    ):  # fmt: skip
        yield BadInput(line.format(M), (said.format(M), 'does not fit'), lines=None)
    yield BadInput(f'export {M}small.py {M}plain.pth',
                   (f"{M}plain.pth holds no member 'student' (it holds: none)",))  # fmt: skip
    yield BadInput(f'train {M}offline.py --cfg-options {teacher}=none.pth',
                   ("member 'teacher': checkpoint not found: none.pth",))  # fmt: skip
    yield BadInput(f'train {M}offline.py --cfg-options {teacher}=5',
                   ('model.members.teacher.checkpoint must be a path',))  # fmt: skip
    yield BadInput(f'train {M}offline.py --cfg-options {teacher}=None',
                   ("member 'teacher' is frozen and has no checkpoint",))  # fmt: skip
    frozen = f'export {M}offline.py {M}plain.pth --member teacher --cfg-options {teacher}'
    yield BadInput(f'{frozen}=None', ("'teacher' is frozen, so that no checkpoint of a run",))
    yield BadInput(
        f'{frozen}=none.pth', ("the weights of the frozen 'teacher' are not at none.pth",)
    )
    # Nobody listens there.
    address = 'http://127.0.0.1:9/weights.pth'
    for line in (f'test {M}small.py {address}', f'export {M}small.py {address} --out a.pth',
                 f'export --onnx {M}plain.py {address} --out a.onnx',
                 f'train {M}offline.py --cfg-options {teacher}={address}',
                 f'train {M}small.py --cfg-options load_from={address}'):  # fmt: skip
        yield BadInput(line, (f'could not download {address}', 'Download it elsewhere and put it'))
    yield BadInput(f'export {M}small.py {address}',
                   (f'{address} has no folder to export into: name a file',))  # fmt: skip
    for name, said in (
        ('open-mmlab://resnet_18', "'open-mmlab://resnet_18' is not a model that MMEngine knows"),
        ('s3://bucket/weights.pth', 's3://bucket/weights.pth'),
    ):
        yield BadInput(f'train {M}offline.py --cfg-options {teacher}={name}', (said,))
        yield BadInput(f'test {M}small.py {name}', (said,))


def of_data() -> Iterator[BadInput]:
    """Data sets that cannot be trained on."""
    missing = (
        ('', 'does not exist', 'Expected below the root: leftImg8bit/{train,val}/CITY'),
        (f'{IMAGES}/train', 'does not exist', f'{IMAGES}/train'),
        (f'{LABELS}/train', 'does not exist', f'{LABELS}/train'),
    )
    for path, *said in missing:
        yield _on_data(_removed(path), ('train data (CityscapesDataset)', *said))
    for path in (f'{IMAGES}/val', f'{LABELS}/val'):
        yield _on_data(_removed(path), ('val data (CityscapesDataset)', path))
        yield _on_data(_removed(path), ('test data (CityscapesDataset)', path), 'test')
    for path in (f'{IMAGES}/train', f'{LABELS}/train'):
        yield _on_data(_emptied(path), (path, 'holds no file that ends in'))
    first = 'arvenholm_000000_000019'
    label, image = f'{first}_gtFine_labelTrainIds.png', f'{first}_leftImg8bit.png'
    yield _on_data(_changed(LABELS, b''), (label, 'cannot be decoded: copy or download it again'))
    yield _on_data(_halved(LABELS), (label, 'cannot be decoded: copy or download it again'))
    yield _on_data(_changed(IMAGES, b''), (image, 'cannot be decoded'))
    yield _on_data(_changed(IMAGES, b'not a picture'), (image, 'cannot be decoded'))
    yield _on_data(_drawn(LABELS, np.zeros((48, 96, 3), np.uint8)), (label, 'has 3 channels'))
    yield _on_data(_drawn(LABELS, np.full((48, 96), 99, np.uint8)),
                   (label, 'holds the label 99', 'has classes 0 to 18'))  # fmt: skip
    yield _on_data(_drawn(LABELS, np.zeros((24, 48), np.uint8)),
                   (label, 'is 24x48, but its image', '48x96'))  # fmt: skip
    yield _on_data(_drawn(IMAGES, np.zeros((1, 1, 3), np.uint8)), (image, '1x1 pixels: no picture'))
    yield _on_data(_renamed, ('no label map', label, image))
    for kind, content in itertools.product((IMAGES, LABELS), (b'', b'not a picture')):
        said = (f'city/{kind}/val/dunmere/dunmere_000000', 'cannot be decoded')
        yield _on_data(_changed(kind, content, 'val'), said, 'test')


def _on_data(write: Writer, said: tuple[str, ...], command: str = 'train') -> BadInput:
    roots = (
        'train_dataloader.dataset.dataset',
        'val_dataloader.dataset',
        'test_dataloader.dataset',
    )
    options = ' '.join(f'{root}.data_root=city' for root in roots)
    checkpoint = f'{M}distiller.pth' if command == 'test' else ''
    return BadInput(f'{command} {M}small.py {checkpoint} --cfg-options {options}', said,
                    {'city': write})  # fmt: skip


def _copy_of_city(root: Path, material: Path) -> None:
    config = Config.fromfile(material / 'small.py')
    shutil.copytree(config.val_dataloader.dataset.data_root, root)


def _removed(path: str) -> Writer:
    def write(root: Path, material: Path) -> None:
        _copy_of_city(root, material)
        shutil.rmtree(root / path)

    return write


def _emptied(path: str) -> Writer:
    def write(root: Path, material: Path) -> None:
        _removed(path)(root, material)
        (root / path).mkdir()

    return write


def _first(root: Path, kind: str, split: str = 'train') -> Path:
    return min((root / kind / split).rglob('*.png'))


def _changed(kind: str, content: bytes, split: str = 'train') -> Writer:
    def write(root: Path, material: Path) -> None:
        _copy_of_city(root, material)
        _first(root, kind, split).write_bytes(content)

    return write


def _halved(kind: str) -> Writer:
    def write(root: Path, material: Path) -> None:
        _copy_of_city(root, material)
        path = _first(root, kind)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return write


def _drawn(kind: str, pixels: np.ndarray) -> Writer:
    return _changed(kind, cv2.imencode('.png', pixels)[1].tobytes())


def _renamed(root: Path, material: Path) -> None:
    _copy_of_city(root, material)
    path = _first(root, LABELS)
    path.rename(path.with_name(f'other_{path.name}'))


def of_plans() -> Iterator[BadInput]:
    """Benchmarks that cannot be run."""
    pair = f"student='{M}plain.py', teacher='{M}plain.py'"
    whole = 'seeds = [0]\npairs = dict(one=dict({}))'
    for text, said in (
        ('pairs = (', 'p.py cannot be read: SyntaxError in line 1'),
        ('pairs = dict(one=1)', 'p.py names no seeds: seeds = (0, 1, 2)'),
        ('seeds = [0]', 'p.py names no pairs: pairs = dict(NAME=dict(student='),
        ('seeds = 1\npairs = dict(one=1)', 'expected seeds = (0, 1, 2), got 1'),
        ('seeds = [0]\npairs = [1]', 'expected pairs = dict(NAME='),
        ('seeds = [0]\npairs = dict(one=5)', "pair 'one' must be a dict of student, teacher"),
        ('seeds = [0]\ncfg_options = [1]\npairs = dict(one=5)', 'cfg_options must be a dict by'),
        (whole.format("student='a.py'"), "pair 'one' names no teacher"),
        (whole.format("student='a.py', teacher='b.py'"), "cell 'one/teacher': config not found"),
        (whole.format(f'{pair}, method=1'), "pair 'one' has no method: it may have student"),
        (whole.format(f'{pair}, methods=[1]'), "pair 'one': methods must be a dict by name"),
        (whole.format(f'{pair}, methods=dict(x=5)'), "cell 'one/x' must be a config, or dict("),
        (whole.format(f'{pair}, methods=dict(x=dict())'), "cell 'one/x' names no config"),
        (whole.format(f"{pair}, methods=dict(x='addm')"), "no method is called 'addm': adm"),
        (whole.format(f"{pair}, methods=dict(x=dict(config='adm', seed=1))"), 'has no seed: it'),
        (whole.format(f'{pair}, seeds=[7]'), "pair 'one': the plan has no seeds [7]"),
        (whole.format(f'{pair}, seeds=7'), "pair 'one': seeds must be a list of some of"),
        (whole.format(f"student=dict(config='{M}plain.py', seeds=[0]), teacher='{M}plain.py'"),
         "cell 'one/student' has no seeds: it may have config"),
        (whole.format(f"{pair}, methods=dict(x=dict(config='adm', cfg_options=[1]))"),
         "cell 'one/x': cfg_options must be a dict"),
        (whole.format(f"{pair}, methods=dict(x=dict(config='adm', cfg_options={{'model': 5}}))"),
         'has no model'),
    ):  # fmt: skip
        yield BadInput('benchmark p.py', (said,), {'p.py': text})
    text = whole.format(pair)
    yield BadInput('benchmark p.py', ('p.jsonl, line 1 is damaged', 'Remove it'),
                   {'p.py': text, 'results/p.jsonl': 'not json\n'})  # fmt: skip
    for flags in ('', ' --report'):
        yield BadInput(f'benchmark p.py{flags}',
                       ('p.md is there, and no benchmark has written it',),
                       {'p.py': text, 'results/p.md': '# My notes'})  # fmt: skip


def _named(*groups: Callable[[], Iterator[BadInput]]) -> dict[str, BadInput]:
    named = {}
    for group in groups:
        for index, case in enumerate(group()):
            words = case.line.replace(M, '').replace('--cfg-options ', '')
            name = f'{group.__name__.removeprefix("of_")}-{index}: {words}'
            named[name if len(name) < 90 else f'{name[:87]}...'] = case
    return named


BAD_INPUTS = _named(
    of_a_command_line, of_paths, of_writing, of_config_files, of_settings, of_checkpoints,
    of_checkpoints_of_others, of_data, of_plans,
)  # fmt: skip
