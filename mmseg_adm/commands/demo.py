"""Train a student alone, the same distilled, and a teacher."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmseg_adm.paths import check_folder

from .flags import add_cfg_options, path

if TYPE_CHECKING:
    from rich.table import Table

NETWORK = 'mmseg_adm::fpn/fpn_r18-{}_1xb4-demo_synthetic-city-96x128.py'
TEACHER, STUDENT = NETWORK.format('w32'), NETWORK.format('w16')
METHOD = 'cwd'
# Iterations. The student alone trains as long as the distilled one, on a clock: each iteration of
# that one runs the teacher too.
LENGTHS = {'teacher': 1200, 'alone': 480, 'distilled': 300}
SIZE = (128, 256)


class Trained(NamedTuple):
    """One row of the closing table: a training, and the plain segmentor that it left."""

    name: str
    work_dir: Path
    metric: str  # its mIoU in the log
    config: Path
    weights: Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Where it writes, and overrides."""
    parser.add_argument('--work-dir', type=path, default='work_dirs/demo')
    parser.add_argument('--data-root', type=path, default='data/synthetic_city')
    add_cfg_options(parser, 'passed on to each training')


def check(args: argparse.Namespace) -> None:
    """Refuse folders that cannot be written into."""
    check_folder('--work-dir', args.work_dir)
    check_folder('--data-root', args.data_root)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from mmseg_adm.config import paired_name
    from mmseg_adm.datasets.synthetic_city import write_synthetic_city
    from mmseg_adm.tables import show

    from .flags import options_of
    from .launch import load_config
    from .quiet import log_only

    # What the trainings would refuse is refused before their data are drawn.
    for config in (TEACHER, STUDENT):
        load_config(config, options_of(args.cfg_options))
    root, data_root = Path(args.work_dir), Path(args.data_root)
    write_synthetic_city(data_root)
    print(f'Data: {data_root}, drawn in the layout of Cityscapes')
    os.environ['SYNTHETIC_CITY_ROOT'] = str(data_root.resolve())

    teacher, alone, distilled = (root / name for name in LENGTHS)
    pair = ('--student', STUDENT, '--teacher', TEACHER, '--method', METHOD)
    for work_dir, flags in (
        (teacher, lambda: (TEACHER,)),
        (alone, lambda: (STUDENT,)),
        (distilled, lambda: (*pair, '--teacher-checkpoint', _last_checkpoint(teacher))),
    ):
        options = [*options_for(work_dir.name), *args.cfg_options]
        # A demo that was interrupted goes on.
        training = ('train', *flags(), '--work-dir', work_dir, '--resume')
        if status := _run(*training, '--cfg-options', *options):
            return status
    configs = {
        'teacher': teacher / Path(TEACHER).name,
        'alone': alone / Path(STUDENT).name,
        'distilled': distilled / f'{paired_name(STUDENT, TEACHER, METHOD)}.py',
    }
    student = distilled / 'export' / 'student.pth'
    exporting = ('export', configs['distilled'], _last_checkpoint(distilled), '--out', student)
    if status := _run(*exporting):
        return status
    networks = [
        Trained('student alone', alone, 'mIoU', configs['alone'], _last_checkpoint(alone)),
        Trained(
            'student distilled', distilled, 'student/mIoU', student.with_suffix('.py'), student
        ),
        Trained('teacher', teacher, 'mIoU', configs['teacher'], _last_checkpoint(teacher)),
    ]
    log_only('WARNING')
    models = [_load(trained) for trained in networks]
    show(closing_table(networks, models))
    print(f'Side by side: {draw_side_by_side(networks, models, root / "demo.png")}')
    print(f'The distilled student, for plain MMSegmentation: {student}, its config beside it')
    return 0


def options_for(name: str) -> list[str]:
    """Overrides that bring a training of the demo to its length, as a command takes them."""
    from mmseg_adm.config import options_for_length, read_config

    length = LENGTHS[name]
    options = options_for_length(read_config(TEACHER if name == 'teacher' else STUDENT), length)
    # A look in the middle and one at the end.
    options['train_cfg.val_interval'] = length // 2
    return [f'{key}={value}' for key, value in options.items()]


def _last_checkpoint(work_dir: Path) -> Path:
    return Path((work_dir / 'last_checkpoint').read_text())


def _run(*command: object) -> int:
    """Run a command as a user would, and show it; returns its exit status."""
    words = [str(word) for word in command]
    print(f'\n$ mmseg-adm {shlex.join(words)}', flush=True)
    return subprocess.run([sys.executable, '-m', 'mmseg_adm', *words], check=False).returncode


def closing_table(networks: list[Trained], models: list[Any]) -> Table:
    """What each network knows, how long it learned, and what it costs where it is used."""
    from rich.table import Table

    from mmseg_adm.benchmark.results import collect
    from mmseg_adm.models.flops import count_flops, seconds_per_image

    table = Table(title='A student alone, the same student distilled, and their teacher')
    for name in ('', 'mIoU', 'iterations', 'seconds', 'parameters', 'GFLOPs', 'ms an image'):
        table.add_column(name, justify='right' if name else 'left')
    for trained, model in zip(networks, models, strict=True):
        facts = collect(trained.work_dir)
        last = facts['evaluations'][-1]
        flops = count_flops(model, SIZE)
        table.add_row(
            trained.name,
            f'{last[trained.metric]:.1f}',
            str(last['step']),
            f'{last["step"] * facts["seconds per iteration"]:.0f}',
            f'{sum(each.numel() for each in model.parameters()) / 1e6:.2f} M',
            f'{flops / 1e9:.2f}' if flops else '',
            f'{1e3 * seconds_per_image(model, SIZE):.0f}',
        )
    return table


def draw_side_by_side(networks: list[Trained], models: list[Any], target: Path) -> Path:
    """What each network makes of the first image of the validation split."""
    import cv2
    from mmseg.apis import inference_model
    from mmseg.registry import DATASETS

    from mmseg_adm.engine.panel import draw_panel
    from mmseg_adm.writing import write_bytes

    dataset = DATASETS.build(models[0].cfg.val_dataloader.dataset)
    files = dataset.get_data_info(0)
    image: Any = cv2.imread(files['img_path'])
    labels: Any = cv2.imread(files['seg_map_path'], cv2.IMREAD_UNCHANGED)
    panel = draw_panel(
        image=image[..., ::-1],
        labels=labels,
        predictions={
            trained.name: inference_model(model, image).pred_sem_seg.data[0].cpu().numpy()
            for trained, model in zip(networks, models, strict=True)
        },
        weights={},
        classes=dataset.metainfo['classes'],
        palette=dataset.metainfo['palette'],
        difference=False,
    )
    write_bytes(target, cv2.imencode('.png', panel[..., ::-1])[1].tobytes())
    return target


def _load(trained: Trained) -> Any:
    """The network on this machine's CPU: what is told of its cost is told of that."""
    from mmseg.apis import init_model

    # MMEngine prints where it loads from.
    with contextlib.redirect_stdout(io.StringIO()):
        return init_model(str(trained.config), str(trained.weights), device='cpu')
