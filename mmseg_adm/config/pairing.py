"""From two plain MMSegmentation configs to one that distils."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from .kinds import is_distillation_config
from .members import own_preprocessor, with_size_of
from .names import configs_of, joined_imports, read_config

STUDENT, TEACHER = 'student', 'teacher'
# A method is set up as in its config for Cityscapes.
RECIPE = '{}_pspnet_r101-d8_pspnet_r18-d8_4xb2-80k_cityscapes-512x1024'
DATA_KEYS = (
    'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator',
    'tta_pipeline',
)  # fmt: skip
# What a Runner reads; the other names in a config are variables of its text.
RUNNER_KEYS = (
    *DATA_KEYS, 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'param_scheduler',
    'auto_scale_lr', 'default_hooks', 'custom_hooks', 'custom_imports', 'default_scope',
    'randomness', 'env_cfg', 'vis_backends', 'visualizer', 'log_processor', 'log_level',
    'tta_model', 'model_wrapper_cfg',
)  # fmt: skip
# Of an optimiser wrapper: what members that take one step have in common.
SHARED_OPTIONS = ('type', 'accumulative_counts', 'loss_scale', 'dtype')


def recipes() -> tuple[str, ...]:
    """Names of the methods that two networks can be paired by."""
    pattern = RECIPE.format('*')
    suffix = RECIPE.format('')
    found = configs_of('mmseg_adm').glob(f'*/{pattern}.py')
    return tuple(sorted(path.stem.removesuffix(suffix) for path in found))


def pair(
    student: str | Path | Config,
    teacher: str | Path | Config,
    method: str | Mapping[str, Mapping] = 'adm',
    teacher_checkpoint: str | Path | None = None,
    dataset_from: str = STUDENT,
) -> Config:
    """One distillation config from the configs of two networks.

    Schedule, optimiser, hooks and, unless ``dataset_from`` says otherwise, data are those of
    the student's config. Where the teacher's optimiser or schedule differs, it keeps its own,
    stretched to the length of the student's; likewise how its images are normalised. A network
    whose config names weights in ``load_from`` starts from them. Data stream, validation and
    hooks of this package take the place of their namesakes, so that a resumed run is exact and
    all members are evaluated.

    Args:
        student: Config, path or name (``mmseg::...``) of the network that is deployed.
        teacher: Of the other one.
        method: One of :func:`recipes`, set up as in its config for Cityscapes; or methods by
            name, as in :class:`~mmseg_adm.models.KnowledgeDistiller`, with no frozen member.
        teacher_checkpoint: The teacher's weights. A method with a trained teacher (``'cwd'``,
            ``'adm-warm'``) needs them; with others the teacher starts from them.
        dataset_from: ``'student'`` or ``'teacher'``.

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
    if teacher_checkpoint:
        model.members.teacher.checkpoint = str(teacher_checkpoint)
    elif wants_trained_teacher(recipe) and not model.members.teacher.get('checkpoint'):
        raise ValueError(
            f"'{method}' learns from a trained teacher: name its weights with teacher_checkpoint "
            '(--teacher-checkpoint)'
        )
    settings = {key: configs[STUDENT][key] for key in RUNNER_KEYS if key in configs[STUDENT]}
    for key in DATA_KEYS:
        settings.pop(key, None)
        if key in configs[dataset_from]:
            settings[key] = configs[dataset_from][key]
    paired = Config(copy.deepcopy(dict(settings, model=model)))
    _join_needs(paired, configs)
    _separate_optimizers(paired, configs, recipe)
    _stream(paired)
    _add_runtime(paired, recipe)
    return paired


def wants_trained_teacher(config: Config) -> bool:
    """Whether the teacher of a distillation config has been trained before."""
    teacher = config.model.members.get(TEACHER)
    return isinstance(teacher, Mapping) and bool(teacher.get('checkpoint'))


def paired_name(student: str, teacher: str, method: str) -> str:
    """What a pair's config and work dir are called."""
    # Not Path.stem: names such as ce-1.0-dice-3.0 hold dots.
    names = (Path(name).name.removesuffix('.py') for name in (teacher, student))
    return '_'.join([method, *names])


def _network_config(role: str, source: str | Path | Config) -> Config:
    config = source if isinstance(source, Config) else read_config(source)
    if not config.get('model'):
        raise ValueError(f'the config of the {role}, {config.filename}, has no model')
    if is_distillation_config(config):
        raise ValueError(
            f'the config of the {role}, {config.filename}, pairs networks already: train it as '
            'it is, or name the plain config of one network'
        )
    return config


def recipe_of(method: str | Mapping[str, Mapping]) -> Config:
    """The config that a method is set up as, or one of methods of one's own.

    Raises:
        ValueError: If no method is called so.
    """
    if not isinstance(method, str):
        members: dict = dict(student=dict(), teacher=dict())
        return Config(dict(model=dict(members=members, methods=dict(method)), default_hooks={}))
    if method not in recipes():
        raise ValueError(
            f"method must be one of {', '.join(recipes())}; got '{method}'. Methods that train "
            'other than two networks, such as ffsd, have configs of their own'
        )
    return read_config(next(configs_of('mmseg_adm').glob(f'*/{RECIPE.format(method)}.py')))


def _model(configs: Mapping[str, Config], recipe: Config, dataset_from: str) -> ConfigDict:
    networks = {role: copy.deepcopy(config.model) for role, config in configs.items()}
    own = {role: _preprocessor(config) for role, config in configs.items()}
    for role, network in networks.items():
        network.pop('data_preprocessor', None)
        if configs[role].get('load_from'):
            network.checkpoint = configs[role].load_from
    shared = with_size_of(own[STUDENT], own[dataset_from])
    if different := own_preprocessor(own[TEACHER], shared):
        networks[TEACHER].data_preprocessor = different
    if recipe.model.members.teacher.get('frozen'):
        networks[TEACHER].frozen = True
    others = {name: member for name, member in recipe.model.members.items() if name not in networks}
    return ConfigDict(
        type='mmseg_adm.KnowledgeDistiller',
        data_preprocessor=shared,
        members={**networks, **others},
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


def _join_needs(paired: Config, configs: Mapping[str, Config]) -> None:
    """Give the run what either network needs, also when the written config runs alone."""
    if any(config.get('find_unused_parameters') for config in configs.values()):
        paired.find_unused_parameters = True
    if imports := joined_imports(configs.values()):
        paired.custom_imports = imports


def _separate_optimizers(paired: Config, configs: Mapping[str, Config], recipe: Config) -> None:
    """Give each member an optimiser and a schedule of its own, where one would not do."""
    frozen = recipe.model.members.teacher.get('frozen', False)
    for role, config in configs.items():
        if role == STUDENT or not frozen:
            for key in ('optim_wrapper', 'train_cfg'):
                if not config.get(key):
                    raise ValueError(f'the config of the {role}, {config.filename}, has no {key}')
    own, other = configs[STUDENT], configs[TEACHER]
    schedule = _schedule(own)
    wrappers = {STUDENT: own.optim_wrapper}
    schedules = {STUDENT: schedule, 'rest': schedule}
    if not frozen:
        wrappers[TEACHER] = _slowed(other.optim_wrapper, recipe)
        schedules[TEACHER] = _stretched(other, _iterations(other), _iterations(own))
    alike = all(wrapper == own.optim_wrapper for wrapper in wrappers.values()) and all(
        each == schedule for each in schedules.values()
    )
    # A constructor of layer-wise rates reads a plain segmentor, which is only the member.
    if alike and 'constructor' not in own.optim_wrapper:
        return
    groups: dict = {role: _group(wrapper) for role, wrapper in wrappers.items()}
    paired.optim_wrapper = dict(
        constructor='mmseg_adm.GroupOptimWrapperConstructor',
        **groups,
        rest=dict(optimizer=copy.deepcopy(own.optim_wrapper.optimizer)),
        **_shared_options(wrappers),
    )
    paired.param_scheduler = schedules


def _slowed(wrapper: ConfigDict, recipe: Config) -> ConfigDict:
    """The teacher's, with what a recipe does to the learning rate of a trained one."""
    paramwise = recipe.get('optim_wrapper', {}).get('paramwise_cfg') or {}
    factor = paramwise.get('custom_keys', {}).get('members.teacher', {}).get('lr_mult', 1)
    wrapper = copy.deepcopy(wrapper)
    if factor != 1:
        if 'lr' not in wrapper.optimizer:
            raise ValueError(
                f'a trained teacher goes on at {factor} of its learning rate, and the optimiser of '
                f'its config, {wrapper.optimizer.type}, has no lr: write it out'
            )
        wrapper.optimizer.lr *= factor
    return wrapper


def _group(wrapper: ConfigDict) -> dict:
    group = {key: value for key, value in wrapper.items() if key not in SHARED_OPTIONS}
    return copy.deepcopy(group)


def _shared_options(wrappers: Mapping[str, ConfigDict]) -> dict:
    """What holds for one step of all: accumulation is the student's, mixed precision anyone's."""
    options = {}
    if (counts := wrappers[STUDENT].get('accumulative_counts', 1)) > 1:
        options['accumulative_counts'] = counts
    amp = [role for role, each in wrappers.items() if each.get('type') == 'AmpOptimWrapper']
    if not amp:
        return options
    if len(amp) < len(wrappers):
        print_log(
            f'The config of the {amp[0]} trains in mixed precision, the other does not: both do '
            'now, because they take one step together',
            'current',
            level=30,
        )
    wrapper = wrappers[amp[0]]
    options['dtype'] = wrapper.get('dtype') or 'float16'
    scale = wrapper.get('loss_scale', 'dynamic')
    if scale != 'dynamic':
        options['loss_scale'] = scale if isinstance(scale, Mapping) else dict(init_scale=scale)
    return options


def _iterations(config: Config) -> int:
    iterations = config.train_cfg.get('max_iters')
    if not iterations:
        raise ValueError(
            f'{config.filename} trains by epochs; schedules are compared and stretched in '
            'iterations: give train_cfg.max_iters'
        )
    return iterations


def _schedule(config: Config) -> list:
    schedule = copy.deepcopy(config.get('param_scheduler') or [])
    return schedule if isinstance(schedule, list) else [schedule]


def _stretched(config: Config, iterations: int, target: int) -> list:
    """The schedule with what lasts to the end of one training lasting to that of another."""
    schedule = [part for part in _schedule(config) if part.get('begin', 0) < target]
    for part in schedule:
        if part.get('by_epoch', True):
            raise ValueError(
                f'{config.filename} schedules {part.type} by epochs: set by_epoch=False'
            )
        if part.get('end') is not None:
            # A warm-up keeps its length.
            part.end = target if part.end == iterations else min(part.end, target)
        if 'total_steps' in part and target != iterations:
            raise ValueError(
                f'{config.filename} schedules {part.type} over total_steps={part.total_steps}, '
                f'which cannot be stretched from {iterations} to {target} iterations: give it '
                f'train_cfg.max_iters={target} and total_steps to match'
            )
        # After a warm-up it is written either way.
        if part.get('T_max') in (iterations, iterations - part.get('begin', 0)):
            part.T_max += target - iterations
        if 'milestones' in part:
            part.milestones = [round(each * target / iterations) for each in part.milestones]
    return schedule


def _stream(paired: Config) -> None:
    """Read the training set through the stream that a resumed run finds its place in."""
    loader = paired.train_dataloader
    if loader.get('sampler', {}).get('type') != 'InfiniteSampler':
        return
    shuffle = loader.sampler.get('shuffle', True)
    loader.sampler = dict(type='mmseg_adm.StreamSampler', shuffle=shuffle)
    loader.dataset = dict(type='mmseg_adm.StreamDataset', dataset=loader.dataset)


def _add_runtime(paired: Config, recipe: Config) -> None:
    runtime = read_config('mmseg_adm::_base_/default_runtime.py')
    hooks = paired.setdefault('default_hooks', {})
    for name, hook in runtime.default_hooks.items():
        if str(hook.get('type', '')).startswith('mmseg_adm.'):
            hooks[name] = hook
    hooks.update(schedule=recipe.default_hooks.get('schedule') or hooks['schedule'])
    checkpoint = hooks.get('checkpoint')
    if checkpoint and checkpoint.get('save_best') not in (None, 'auto'):
        best = checkpoint.save_best
        names = [best] if isinstance(best, str) else best
        checkpoint.save_best = [f'{STUDENT}/{name}' for name in names]
    for hook in [*hooks.values(), *(paired.get('custom_hooks') or [])]:
        if hook and str(hook['type']).endswith('EarlyStoppingHook'):
            hook['monitor'] = f'{STUDENT}/{hook["monitor"]}'
    for key in ('val_cfg', 'test_cfg'):
        if paired.get(key):
            paired[key] = runtime[key]
    for key in ('default_scope', 'randomness', 'env_cfg', 'log_processor', 'visualizer'):
        paired.setdefault(key, runtime[key])
