"""What a member's checkpoint may hold: each kind as the code that writes it writes it."""

import copy

import pytest
import torch
from factory import build, demo_config, distiller_config, losses_of, segmentor
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.models.members import FrozenMember, build_member

pytestmark = pytest.mark.core

WIDTH = 4
EITHER = pytest.mark.parametrize('frozen', [True, False], ids=['frozen', 'trained'])


@pytest.fixture
def log(caplog):
    """What MMEngine's logger is given."""
    logger = MMLogger.get_instance('log', log_level='WARNING')
    logger.handlers[0].setLevel('ERROR')
    logger.setLevel('INFO')
    logger.addHandler(caplog.handler)
    return caplog


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint and return its path."""

    def write(weights, **others):
        torch.save({'state_dict': weights, **others}, tmp_path / 'file.pth')
        return str(tmp_path / 'file.pth')

    return write


def load(path, config=None, frozen=False, name='tutor'):
    """The network of a member that is loaded from ``path``."""
    config = copy.deepcopy(config or segmentor(WIDTH))
    member = build_member(name, dict(config, frozen=frozen, checkpoint=path))
    return member.network if isinstance(member, FrozenMember) else member


def refused(path, config=None, frozen=False, name='tutor'):
    """The lines of the refusal, which is short."""
    with pytest.raises(ValueError) as caught:
        load(path, config, frozen, name)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 8
    assert max(map(len, lines)) <= 600
    assert lines[0].startswith(f"the checkpoint of member '{name}', {path}, ")
    return [lines[0].replace(f"the checkpoint of member '{name}', {path}, ", ''), *lines[1:]]


def holds(network, weights):
    """Whether a network has exactly these weights."""
    own = network.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[key], weights[key]) for key in own)


# ------------------------------------------------------------------ wrapped and averaged


class OneProcess:
    """A process group of this process alone."""

    def __enter__(self):
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)

    def __exit__(self, *_):
        torch.distributed.destroy_process_group()


def distributed(network):
    with OneProcess():
        return DistributedDataParallel(network).state_dict()


WRAPPERS = {
    'distributed': (distributed, "without the prefix 'module.'"),
    'averaged by MMEngine': (
        lambda network: ExponentialMovingAverage(network).state_dict(),
        "averaged weights; without the prefix 'module.'",
    ),
    'averaged by PyTorch': (
        lambda network: AveragedModel(network).state_dict(),
        "averaged weights; without the prefix 'module.'",
    ),
    'averaged and distributed': (
        lambda network: ExponentialMovingAverage(nn.DataParallel(network)).state_dict(),
        "averaged weights; without the prefix 'module.'",
    ),
}


@EITHER
@pytest.mark.parametrize('kind', WRAPPERS)
def test_weights_of_a_wrapped_network(kind, frozen, save, log):
    wrap, note = WRAPPERS[kind]
    network = build(segmentor(WIDTH))
    wrapped = wrap(network)
    assert all(key.startswith('module.') or '.' not in key for key in wrapped)
    path = save(wrapped)
    assert holds(load(path, frozen=frozen), network.state_dict())
    assert log.messages[-1] == f"Loaded member 'tutor' from {path}: {note}"


def test_a_wrapped_network_must_fit_as_well(save):
    weights = distributed(build(segmentor(WIDTH)))
    del weights['module.decode_head.conv_seg.bias']
    assert refused(save(weights)) == [
        'does not fit EncoderDecoder:',
        '  1 missing: decode_head.conv_seg.bias',
    ]


@EITHER
@pytest.mark.parametrize('number', [float('nan'), float('inf')])
def test_weights_that_are_not_finite(number, frozen, save):
    weights = build(segmentor(WIDTH)).state_dict()
    weights['backbone.layer1.0.bn1.running_var'][0] = number
    (line,) = refused(save(weights), frozen=frozen)
    assert line.startswith(
        'holds weights that are not finite (NaN or infinite): backbone.layer1.0.b'
    )


@pytest.fixture(scope='module')
def averaged(city, tmp_path_factory):
    """A run with averaged weights: its config, its runner, and its checkpoint."""
    work_dir = tmp_path_factory.mktemp('averaged')
    config = demo_config(
        city, work_dir, iters=2, custom_hooks=[dict(type='EMAHook', momentum=0.3)],
        train_cfg__val_begin=1000,
    )  # fmt: skip
    runner = Runner.from_cfg(config)
    runner.train()
    return config, runner, str(work_dir / 'iter_2.pth')


@EITHER
@pytest.mark.parametrize('member', ['student', 'teacher'])
def test_the_averaged_weights_of_a_run(member, frozen, averaged, log):
    config, runner, path = averaged
    (hook,) = (hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
    network = load(path, config.model.members[member], frozen, name=member)
    average = hook.ema_model.module.members[member].state_dict()
    assert holds(network, average)
    assert not holds(runner.model.members[member], average)
    note = f"averaged weights; member '{member}' of a distillation"
    assert log.messages[-1] == f"Loaded member '{member}' from {path}: {note}"


def test_the_averaged_model_of_a_run(averaged, save):
    config, runner, path = averaged
    weights = read_checkpoint(path)['ema_state_dict']
    assert 'steps' in weights
    network = load(save(weights), config.model.members.student, name='student')
    assert holds(network, runner.model.members['student'].state_dict())


# --------------------------------------------------------------------- of a distillation


def distilled(save, **members):
    """The networks of a distiller, and its checkpoint."""
    model = build(distiller_config(members=members, student=next(iter(members))))
    return model.members, save(model.state_dict())


@EITHER
def test_the_only_member_that_fits_is_taken(frozen, save, log):
    members, path = distilled(save, student=segmentor(WIDTH), teacher=segmentor(2 * WIDTH))
    assert holds(load(path, frozen=frozen), members['student'].state_dict())
    note = "member 'student' of a distillation"
    assert log.messages[-1] == f"Loaded member 'tutor' from {path}: {note}"
    # Also if another one has the name.
    assert holds(load(path, name='teacher'), members['student'].state_dict())


def test_among_several_that_fit_the_one_of_the_name_is_taken(save, log):
    members, path = distilled(save, first=segmentor(WIDTH), second=segmentor(WIDTH))
    assert not holds(members['first'], members['second'].state_dict())
    for name, other in (('first', 'second'), ('second', 'first')):
        assert holds(load(path, name=name), members[name].state_dict())
        assert log.messages[-1].endswith(
            f"member '{name}' of a distillation ({other} would fit too)"
        )


def test_among_several_of_other_names_none_is_taken(save):
    _, path = distilled(save, first=segmentor(WIDTH), second=segmentor(WIDTH))
    assert refused(path) == [
        'comes from a distillation, and several members in it fit: first, second. Export the one '
        'that you mean (mmseg-adm export CONFIG CHECKPOINT --member first) and give the '
        'exported .pth'
    ]


def test_a_distillation_without_a_member_that_fits(save):
    _, path = distilled(save, student=segmentor(WIDTH), peer=segmentor(WIDTH, auxiliary=True))
    lines = refused(path, segmentor(2 * WIDTH), frozen=True)
    difference = (
        '126 of another shape: backbone.stem.0.weight: expected (4, 3, 3, 3), '
        'found (2, 3, 3, 3), and 125 more'
    )
    assert lines == [
        'comes from a distillation, and no member in it fits this EncoderDecoder:',
        f'  student: {difference}',
        f'  peer: {difference}',
        'Frozen members are never saved: give the file that theirs was loaded from',
    ]


def test_a_student_teaches_the_next_one(averaged, tmp_path):
    config, _, path = averaged
    tutor = dict(config.model.members.student, frozen=True, checkpoint=path)
    model = build(distiller_config(
        dict(kd=dict(type='mmseg_adm.KD', teacher='tutor')),
        members=dict(student=segmentor(WIDTH, classes=19), tutor=tutor),
    ))  # fmt: skip
    weights = read_checkpoint(path)['state_dict']
    prefix = 'members.student.'
    expected = {key[len(prefix) :]: value for key, value in weights.items() if prefix in key}
    assert holds(model.network('tutor'), expected)
    assert losses_of(model)['kd.loss_kl'] > 0


# ------------------------------------------------------------------------ backbones alone


class Classifier(nn.Module):
    """A classification network in the layout of MMPretrain."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Module()
        self.head.fc = nn.Linear(backbone.feat_dim, 7)


def backbone_of(config, **options):
    """A backbone of other random weights than those of a member."""
    torch.manual_seed(3)
    return MMSEG_MODELS.build(config['backbone'] | options)


def plain_resnet():
    """A segmentor whose backbone has the names of torchvision's ResNet."""
    config = segmentor(WIDTH)
    config['backbone']['type'] = 'ResNet'
    return config


def torchvision_weights(backbone):
    """As torchvision saves a ResNet."""
    return (
        backbone.state_dict() | nn.ModuleDict({'fc': nn.Linear(backbone.feat_dim, 7)}).state_dict()
    )


def of_a_segmentor(backbone):
    return {f'backbone.{key}': value for key, value in backbone.state_dict().items()}


BACKBONES = {
    'of a segmentor': (of_a_segmentor, ''),
    'of torchvision': (torchvision_weights, '; left out: fc'),
    'of MMPretrain': (lambda backbone: Classifier(backbone).state_dict(), '; left out: head'),
}


@pytest.mark.parametrize('kind', BACKBONES)
def test_a_trained_member_starts_from_a_backbone(kind, save, log):
    weights_of, note = BACKBONES[kind]
    config = plain_resnet()
    backbone = backbone_of(config)
    path = save(weights_of(backbone))
    fresh = build(config).state_dict()
    network = load(path, config)
    message = f"Loaded member 'tutor' from {path}: its backbone alone, all else starts untrained"
    assert log.messages[-1] == message + note
    assert holds(network.backbone, backbone.state_dict())

    torch.manual_seed(0)
    before = network.decode_head.conv_seg.weight.clone()
    network.init_weights()
    assert holds(network.backbone, backbone.state_dict())
    weight = network.decode_head.conv_seg.weight.detach()
    assert not torch.equal(weight, before), 'the head was not initialized'
    # mmseg draws it narrower than PyTorch does.
    expected = fresh['decode_head.conv_seg.weight'].std().item()
    assert weight.std().item() == pytest.approx(expected, rel=0.5)
    assert before.std().item() > 5 * expected


def test_a_backbone_survives_the_initialization_of_the_distiller(save):
    config = plain_resnet()
    backbone = backbone_of(config)
    student = config | dict(checkpoint=save(torchvision_weights(backbone)))
    model = build(distiller_config(members=dict(student=student, teacher=segmentor(WIDTH))))
    assert holds(model.members['student'].backbone, backbone.state_dict())


@pytest.mark.parametrize('kind', BACKBONES)
def test_a_frozen_member_needs_more_than_a_backbone(kind, save):
    config = plain_resnet()
    path = save(BACKBONES[kind][0](backbone_of(config)))
    assert refused(path, config, frozen=True) == [
        'holds a backbone without a decode head: a frozen member with an untrained head would '
        'teach noise. Give the checkpoint of a trained segmentor, or train the member: '
        'model.members.tutor.frozen=False'
    ]


ADVICE = (
    'It holds a backbone alone. model.members.tutor.backbone.init_cfg='
    "dict(type='Pretrained', checkpoint=...) loads what fits"
)


@pytest.mark.parametrize('kind', BACKBONES)
def test_a_backbone_must_be_complete(kind, save):
    config = plain_resnet()
    weights = BACKBONES[kind][0](backbone_of(config))
    removed = next(key for key in weights if key.endswith('layer4.1.conv1.weight'))
    del weights[removed]
    assert refused(save(weights), config) == [
        'does not fit ResNet:',
        '  1 missing: layer4.1.conv1.weight',
        ADVICE,
    ]


@pytest.mark.parametrize('kind', BACKBONES)
def test_a_deeper_backbone_is_refused(kind, save):
    config = plain_resnet()
    weights = BACKBONES[kind][0](backbone_of(config, depth=34))
    lines = refused(save(weights), config)
    assert lines[0] == 'does not fit ResNet:'
    assert lines[1].startswith('  96 unexpected: layer1.2.conv1.weight, ')
    assert lines[2:] == [ADVICE]


def test_another_stem_is_refused(save):
    path = save(torchvision_weights(backbone_of(plain_resnet())))
    lines = refused(path, segmentor(WIDTH))
    assert lines[0] == 'does not fit ResNetV1c:'
    assert lines[1].startswith('  15 missing: stem.0.weight, ')
    assert lines[2:] == [ADVICE]


def test_an_initialization_of_the_whole_would_overwrite_a_backbone(save):
    config = plain_resnet()
    path = save(torchvision_weights(backbone_of(config)))
    config['init_cfg'] = dict(type='Normal', layer='Conv2d')
    assert refused(path, config) == [
        "holds a backbone alone, and the segmentor's own init_cfg would overwrite it: remove "
        'model.members.tutor.init_cfg'
    ]


# ------------------------------------------------------------------------ auxiliary heads


def weights_with(auxiliary, **options):
    return build(segmentor(WIDTH, auxiliary=auxiliary, **options), seed=1).state_dict()


def without_auxiliary(weights):
    return {key: value for key, value in weights.items() if 'auxiliary_head' not in key}


@pytest.mark.parametrize(
    ('in_file', 'in_config'), [(True, False), (False, True), (True, True)], ids=str
)
def test_the_auxiliary_head_of_a_frozen_member_does_not_matter(in_file, in_config, save, log):
    weights = weights_with(in_file)
    if in_file and in_config:
        weights['auxiliary_head.conv_seg.bias'] = torch.zeros(9)
    path = save(weights)
    network = load(path, segmentor(WIDTH, auxiliary=in_config), frozen=True)
    own = without_auxiliary(network.state_dict())
    assert own.keys() == without_auxiliary(weights).keys()
    assert all(torch.equal(own[key], weights[key]) for key in own)
    assert log.messages[-1] == f"Loaded member 'tutor' from {path}: without its auxiliary head"


def test_a_trained_member_leaves_an_auxiliary_head_out_that_the_config_lacks(save, log):
    weights = weights_with(True)
    path = save(weights)
    assert holds(load(path), without_auxiliary(weights))
    note = 'left out: auxiliary_head, which the config lacks'
    assert log.messages[-1] == f"Loaded member 'tutor' from {path}: {note}"


def test_a_trained_member_does_not_start_with_an_untrained_auxiliary_head(save):
    lines = refused(save(weights_with(False)), segmentor(WIDTH, auxiliary=True))
    assert lines[0] == 'does not fit EncoderDecoder:'
    assert lines[1].startswith('  7 missing: auxiliary_head.conv_seg.weight, ')
    assert lines[2:] == [
        'Only the auxiliary head differs: model.members.tutor.auxiliary_head=None trains without '
        'one'
    ]


def test_the_advice_for_a_missing_auxiliary_head_helps(save):
    weights = weights_with(False)
    config = segmentor(WIDTH, auxiliary=True) | dict(auxiliary_head=None)
    assert holds(load(save(weights), config), weights)


# -------------------------------------------------------------------------------- others


@EITHER
def test_other_classes_are_told_first(frozen, save):
    path = save(weights_with(True, classes=19))
    lines = refused(path, segmentor(WIDTH, classes=11, auxiliary=True), frozen)
    assert lines[:2] == [
        'does not fit EncoderDecoder:',
        '  19 classes in the file, 11 in the config',
    ]
    assert len(lines) == 3
    assert 'decode_head.conv_seg.bias: expected (11,), found (19,)' in lines[2]


@EITHER
def test_classes_of_a_cascade_are_told(frozen, save):
    def cascade(classes):
        config = segmentor(WIDTH, classes=classes)
        head = config['decode_head']
        second = dict(
            type='OCRHead', in_channels=8 * WIDTH, in_index=3, channels=8, ocr_channels=8,
            num_classes=classes, norm_cfg=head['norm_cfg'], loss_decode=head['loss_decode'],
        )  # fmt: skip
        return config | dict(type='CascadeEncoderDecoder', num_stages=2, decode_head=[head, second])

    path = save(build(cascade(7)).state_dict())
    assert '  7 classes in the file, 5 in the config' in refused(path, cascade(5), frozen)
    load(path, cascade(7), frozen)


@EITHER
def test_weights_under_other_names_are_told_shortly(frozen, save):
    weights = {f'net.{key}': value for key, value in weights_with(False).items()}
    lines = refused(save(weights), frozen=frozen)
    assert lines[0] == 'does not fit EncoderDecoder:'
    assert lines[1].startswith('  127 missing: backbone.stem.0.weight, ')
    assert lines[2].startswith('  152 unexpected: net.backbone.stem.0.weight, ')


@EITHER
def test_a_file_without_weights_is_refused(frozen, save):
    path = save({'epoch': 3})
    with pytest.raises(
        ValueError, match='holds no state dict: a dict of tensors by name'
    ) as caught:
        load(path, None, frozen, 'tutor')
    assert str(caught.value).startswith(f"member 'tutor': {path} holds")


def test_a_bridge_goes_on_from_a_teacher_of_a_distillation(save):
    members, path = distilled(save, student=segmentor(WIDTH), teacher=segmentor(2 * WIDTH))
    config = distiller_config(
        dict(sokd=dict(type='mmseg_adm.SOKD')),
        members=dict(
            student=segmentor(WIDTH),
            teacher=segmentor(2 * WIDTH, auxiliary=True, frozen=True, checkpoint=path),
            bridge=dict(type='mmseg_adm.TeacherBridge', init='teacher'),
        ),
    )
    bridge = MODELS.build(config).members['bridge']
    own = bridge.state_dict()
    assert own
    assert all(torch.equal(own[key], members['teacher'].state_dict()[key]) for key in own)


@pytest.mark.parametrize('auxiliary', [False, True])
def test_a_classifier_for_other_classes_starts_anew_where_that_is_wanted(auxiliary, save, log):
    found = build(segmentor(WIDTH, classes=7, auxiliary=auxiliary)).state_dict()
    config = dict(segmentor(WIDTH, auxiliary=auxiliary), checkpoint=save(found))
    with pytest.raises(ValueError, match='7 classes in the file, 5 in the config'):
        build_member('tutor', copy.deepcopy(config))
    torch.manual_seed(3)
    network = build_member('tutor', copy.deepcopy(dict(config, new_classifier=True)))
    own = network.state_dict()
    fresh = {key for key in own if 'conv_seg' in key}
    assert len(fresh) == (4 if auxiliary else 2)
    assert all(torch.equal(own[key], found[key]) for key in own.keys() - fresh)
    # As mmseg draws it: N(0, 0.01), no bias.
    assert own['decode_head.conv_seg.weight'].std().item() == pytest.approx(0.01, rel=0.3)
    assert own['decode_head.conv_seg.bias'].eq(0).all()
    assert '7 classes in the file, 5 in the config: the classifier starts untrained' in log.text
    before = copy.deepcopy(own)
    network.init_weights()
    assert holds(network, before), 'what is loaded must not be drawn again'


def test_a_new_classifier_excuses_nothing_else(save):
    found = build(segmentor(2 * WIDTH, classes=7)).state_dict()
    config = dict(segmentor(WIDTH), checkpoint=save(found), new_classifier=True)
    with pytest.raises(ValueError, match=r'backbone\.stem'):
        build_member('tutor', config)
    found = build(segmentor(WIDTH)).state_dict()
    config = dict(segmentor(WIDTH), checkpoint=save(found), new_classifier=True)
    assert holds(build_member('tutor', copy.deepcopy(config)), found)
    with pytest.raises(ValueError, match='untrained classifier would teach noise'):
        build_member('tutor', dict(config, frozen=True))
