"""From two plain MMSegmentation configs to one that distils."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config, ConfigDict

from .imports import joined_imports
from .kinds import is_distillation_config, learning_rate_factor
from .members import own_preprocessor, with_size_of
from .monitored import monitor_members
from .names import read_config
from .optimizers import pair_optimizers
from .pretrained import check_not_dropped, drop_downloads
from .recipes import STUDENT, TEACHER, recipe_of, wants_trained_teacher
from .type_names import with_type_names

DATA_KEYS = (
    'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator',
    'tta_pipeline',
)  # fmt: skip
# What a Runner reads; the other names in a config are variables of its text.
RUNNER_KEYS = (
    *DATA_KEYS, 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'param_scheduler',
    'auto_scale_lr', 'default_hooks', 'custom_hooks', 'custom_imports', 'default_scope',
    'randomness', 'env_cfg', 'vis_backends', 'visualizer', 'log_processor', 'log_level',
    'tta_model', 'model_wrapper_cfg', 'sync_bn',
)  # fmt: skip


def pair(
    student: str | Path | Config,
    teacher: str | Path | Config,
    method: str | Mapping[str, Mapping],
    teacher_checkpoint: str | Path | None = None,
    dataset_from: str = STUDENT,
    pretrained: bool = True,
) -> Config:
    """One distillation config from the configs of two networks.

    Schedule, optimizer, hooks and, unless ``dataset_from`` says otherwise, data are those of
    the student's config. Where the teacher's optimizer or schedule differs, it keeps its own,
    stretched to the length of the student's; likewise how its images are normalized. A network
    whose config names weights in ``load_from`` starts from them. Data stream, validation and
    hooks of this package take the place of their namesakes, so that a resumed run is exact and
    all members are evaluated. The config has a file name, :func:`paired_name`, under which a
    Runner writes it into its work dir.

    Args:
        student: Config, path or name (``mmseg::...``) of the network that is deployed.
        teacher: Of the other one.
        method: One of :func:`~mmseg_adm.config.recipes`, set up as in
            ``configs/_base_/methods``; or methods by name, as in
            :class:`~mmseg_adm.models.KnowledgeDistiller`, with no frozen member.
        teacher_checkpoint: The teacher's weights. A method with a trained teacher (``'cwd'``,
            ``'adm-finetune'``) needs them; with others the teacher starts from them.
        dataset_from: ``'student'`` or ``'teacher'``.
        pretrained: With ``False``, every checkpoint that would have to be downloaded is dropped.

    Raises:
        FileNotFoundError: If a config is not there.
        ValueError: If a config or an option does not fit.
    """
    configs = {
        STUDENT: _network_config(STUDENT, student),
        TEACHER: _network_config(TEACHER, teacher),
    }
    if dataset_from not in configs:
        raise ValueError(f"dataset_from must be 'student' or 'teacher', got {dataset_from!r}")
    recipe = recipe_of(method)
    model = _model(configs, recipe, dataset_from)
    _start_teacher(model.members.teacher, method, recipe, teacher_checkpoint)
    settings = {key: configs[STUDENT][key] for key in RUNNER_KEYS if key in configs[STUDENT]}
    for key in DATA_KEYS:
        settings.pop(key, None)
        if key in configs[dataset_from]:
            settings[key] = configs[dataset_from][key]
    paired = Config(copy.deepcopy(dict(settings, model=model)))
    _join_needs(paired, configs)
    pair_optimizers(paired, configs, recipe)
    _stream(paired)
    _add_runtime(paired, recipe)
    if not pretrained:
        if learning_rate_factor(recipe, TEACHER) < 1:
            check_not_dropped(TEACHER, model.members.teacher.checkpoint)
        drop_downloads(paired)
    name = paired_name(_name_of(student, STUDENT), _name_of(teacher, TEACHER), method)
    # The text is what MMEngine would read from the file, which is not written yet.
    variables = {**configs[TEACHER].env_variables, **configs[STUDENT].env_variables}
    return Config(paired.to_dict(), f'# {name}\n', f'{name}.py', variables)


def paired_name(student: str | Path, teacher: str | Path, method: str | Mapping) -> str:
    """What a pair's config and work dir are called."""
    # Not Path.stem: names such as ce-1.0-dice-3.0 hold dots.
    names = (Path(name).name.removesuffix('.py') for name in (teacher, student))
    return '_'.join([method if isinstance(method, str) else '-'.join(method), *names])


def _name_of(source: str | Path | Config, role: str) -> str | Path:
    return (source.filename or role) if isinstance(source, Config) else source


def _network_config(role: str, source: str | Path | Config) -> Config:
    config = with_type_names(source) if isinstance(source, Config) else read_config(source)
    if not config.get('model'):
        raise ValueError(f'the config of the {role}, {config.filename}, has no model')
    if is_distillation_config(config):
        raise ValueError(
            f'the config of the {role}, {config.filename}, pairs networks already: train it as '
            'it is, or name the plain config of one network'
        )
    return config


def _model(configs: Mapping[str, Config], recipe: Config, dataset_from: str) -> ConfigDict:
    networks = {role: copy.deepcopy(config.model) for role, config in configs.items()}
    own = {role: _preprocessor(config) for role, config in configs.items()}
    for role, network in networks.items():
        network.pop('data_preprocessor', None)
        if configs[role].get('load_from'):
            network.checkpoint = configs[role].load_from
            # As MMEngine would: weights for other classes are left as they are drawn.
            network.new_classifier = True
        network.update(recipe.model.members[role])
    shared = with_size_of(own[STUDENT], own[dataset_from])
    if different := own_preprocessor(own[TEACHER], shared):
        networks[TEACHER].data_preprocessor = different
    return ConfigDict(
        type=recipe.model.type,
        data_preprocessor=shared,
        members={**recipe.model.members, **networks},
        # Sorted as they will be in the written config: the order decides on the first weights.
        methods=dict(sorted(recipe.model.methods.items())),
    )


def _preprocessor(config: Config) -> dict:
    # As the Runner takes it: where the model has none, from beside it.
    found = config.model.get('data_preprocessor') or config.get('data_preprocessor')
    if not found:
        raise ValueError(
            f'{config.filename} has no model.data_preprocessor: say how the network wants its '
            'images, as in model=dict(data_preprocessor=dict(type=..., mean=..., std=...))'
        )
    return copy.deepcopy(found)


def _start_teacher(
    teacher: ConfigDict, method: object, recipe: Config, checkpoint: str | Path | None
) -> None:
    """Name the weights that the teacher starts from, and refuse to do without where it must not."""
    if checkpoint:
        teacher.checkpoint = str(checkpoint)
    if checkpoint or wants_trained_teacher(recipe):
        teacher.pop('new_classifier', None)
    if wants_trained_teacher(recipe) and not teacher.get('checkpoint'):
        raise ValueError(
            f"'{method}' learns from a trained teacher: name its weights with teacher_checkpoint "
            '(--teacher-checkpoint)'
        )


def _join_needs(paired: Config, configs: Mapping[str, Config]) -> None:
    """Give the run what either network needs, also when the written config runs alone."""
    if any(config.get('find_unused_parameters') for config in configs.values()):
        paired.find_unused_parameters = True
    if kinds := [config.sync_bn for config in configs.values() if config.get('sync_bn')]:
        paired.sync_bn = kinds[0]
    if imports := joined_imports(configs.values()):
        paired.custom_imports = imports


def _stream(paired: Config) -> None:
    """Read the training set through the stream that a resumed run finds its place in.

    A sampler of one's own stays: what it draws, and why, is not known.
    """
    loader = paired.train_dataloader
    sampler = loader.get('sampler') or {}
    if sampler.get('type') not in ('InfiniteSampler', 'DefaultSampler'):
        return
    shuffle = sampler.get('shuffle', True)
    loader.sampler = dict(type='mmseg_adm.StreamSampler', shuffle=shuffle)
    loader.dataset = dict(type='mmseg_adm.StreamDataset', dataset=loader.dataset)


def _add_runtime(paired: Config, recipe: Config) -> None:
    """Set this package's hooks and loops, and what the student's config left out."""
    hooks = paired.setdefault('default_hooks', {})
    for name, hook in recipe.default_hooks.items():
        if str(hook.get('type', '')).startswith('mmseg_adm.'):
            hooks[name] = hook
    monitor_members(paired, STUDENT, TEACHER)
    for key in ('val_cfg', 'test_cfg'):
        if paired.get(key):
            precision = {'fp16': True} if paired[key].get('fp16') else {}
            paired[key] = {**recipe[key], **precision}
    for key in ('default_scope', 'randomness', 'env_cfg', 'log_processor', 'visualizer'):
        paired.setdefault(key, recipe[key])
    if paired.log_processor.get('type', 'LogProcessor') == 'LogProcessor':
        paired.log_processor.type = recipe.log_processor.type
