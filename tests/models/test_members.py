import copy
import hashlib
from pathlib import Path

import pytest
import torch
from factory import (
    build,
    distiller_config,
    losses_of,
    raw_batch,
    save_segmentor,
    segmentor,
)
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import nn
from torch.testing import assert_close

from mmseg_adm.models.members import FrozenMember, build_member

pytestmark = pytest.mark.core

WIDTH = 4


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Of a network whose normalization has statistics of its own."""
    path = tmp_path_factory.mktemp('members') / 'teacher.pth'
    save_segmentor(path, segmentor(WIDTH, auxiliary=True))
    saved = torch.load(path)
    for key, value in saved['state_dict'].items():
        if key.endswith('running_var'):
            value.uniform_(0.5, 2)
        elif key.endswith(('running_mean', 'bias')):
            value.normal_(std=0.1)
    torch.save(saved, path)
    return str(path)


def frozen(checkpoint, **options):
    return segmentor(
        WIDTH, auxiliary=True, dropout=0.5, frozen=True, checkpoint=checkpoint, **options
    )


def offline(checkpoint, methods=None, seed=0, **options):
    """A distiller with a frozen teacher."""
    methods = dict(kd=dict(type='mmseg_adm.KD')) if methods is None else methods
    members = dict(student=segmentor(WIDTH), teacher=frozen(checkpoint))
    torch.manual_seed(seed)
    return MODELS.build(distiller_config(methods, members=members, **options))


def changed(checkpoint, path, change):
    """A copy of the checkpoint with another state dict."""
    saved = torch.load(checkpoint)
    saved['state_dict'] = change(saved['state_dict'])
    torch.save(saved, path)
    return str(path)


def digest(network):
    """Hash of all weights and buffers, names included."""
    result = hashlib.sha256()
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        result.update(name.encode())
        result.update(value.detach().cpu().numpy().tobytes())
    return result.hexdigest()


def record(module, calls):
    module.register_forward_hook(lambda module, inputs, output: calls.append(output))
    return calls


def train_step(model, optimizer, seed=0):
    model.train()
    return model.train_step(raw_batch(seed=seed), OptimWrapper(optimizer))


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize('empty', [{}, dict(checkpoint=None), dict(checkpoint='')], ids=str)
def test_a_frozen_member_needs_a_checkpoint(empty):
    message = r"member 'tutor' is frozen and has no checkpoint.*model\.members\.tutor\.checkpoint"
    with pytest.raises(ValueError, match=message):
        build_member('tutor', segmentor(WIDTH, frozen=True, **empty))


@pytest.mark.parametrize('is_frozen', [True, False])
@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (
            lambda weights: {k: v for k, v in weights.items() if 'layer4.1.conv1' not in k},
            ['  1 missing: backbone.layer4.1.conv1.weight'],
        ),
        (
            lambda weights: weights | {'neck.weight': torch.zeros(1), 'neck.bias': torch.zeros(1)},
            ['  2 unexpected: neck.weight, neck.bias'],
        ),
        (
            lambda weights: weights | {'decode_head.bottleneck.bn.weight': torch.zeros(9)},
            ['  1 of another shape: decode_head.bottleneck.bn.weight: expected (8,), found (9,)'],
        ),
        (
            lambda weights: {f'student.{key}': value for key, value in weights.items()},
            [r'missing: backbone.stem.0.weight', r'unexpected: student.backbone.stem.0.weight'],
        ),
    ],
    ids=['missing', 'unexpected', 'another shape', 'another prefix'],
)
def test_weights_must_fit_exactly(checkpoint, tmp_path, change, expected, is_frozen):
    path = changed(checkpoint, tmp_path / 'other.pth', change)
    config = segmentor(WIDTH, auxiliary=True, frozen=is_frozen, checkpoint=path)
    with pytest.raises(ValueError, match='does not fit EncoderDecoder:') as caught:
        build_member('tutor', config)
    message = str(caught.value)
    assert f"the checkpoint of member 'tutor', {path}," in message
    assert len(message.splitlines()) == 1 + len(expected)
    assert all(line in message for line in expected)


def test_a_wholly_different_network_is_told_shortly(checkpoint):
    config = segmentor(2 * WIDTH, norm='GN', checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r'and \d+ more') as caught:
        build_member('tutor', config)
    message = str(caught.value)
    assert len(message.splitlines()) <= 10
    assert len(message) < 2000
    assert 'backbone.stem.0.weight: expected (4, 3, 3, 3), found (2, 3, 3, 3)' in message


def test_a_checkpoint_of_other_classes_is_refused(tmp_path):
    path = save_segmentor(tmp_path / 'seven.pth', segmentor(WIDTH, classes=7))
    message = r'decode_head\.conv_seg\.weight: expected \(5, 8, 1, 1\), found \(7, 8, 1, 1\)'
    with pytest.raises(ValueError, match=message):
        build_member('tutor', segmentor(WIDTH, checkpoint=path))


@pytest.mark.parametrize(
    'size',
    [
        0,
        2_000,
        20_000,
        0.5,
        0.99,
    ],
)  # fmt: skip
def test_a_truncated_checkpoint_is_refused(checkpoint, tmp_path, size):
    path = tmp_path / 'truncated.pth'
    data = Path(checkpoint).read_bytes()
    path.write_bytes(data[: size if isinstance(size, int) else int(size * len(data))])
    said = ' is damaged or truncated' if size else r': it is empty \(0 bytes\)'
    with pytest.raises(ValueError, match=rf'truncated\.pth{said}') as caught:
        build_member('tutor', frozen(str(path)))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / 'notes.pth'
    path.write_text('not weights')
    with pytest.raises(ValueError, match=r'notes\.pth.*is no PyTorch checkpoint'):
        build_member('tutor', frozen(str(path)))


@pytest.mark.parametrize('folder', [True, False])
def test_a_missing_checkpoint_is_named(tmp_path, folder):
    path = tmp_path if folder else tmp_path / 'absent.pth'
    said = f'{path} is a folder: name a checkpoint' if folder else f'checkpoint not found: {path}'
    with pytest.raises(FileNotFoundError, match=said):
        build_member('tutor', frozen(str(path)))


def test_checkpointed_blocks_are_refused():
    config = segmentor(WIDTH)
    config['backbone']['with_cp'] = True
    with pytest.raises(ValueError, match=r"member 'peer': backbone.* has with_cp=True"):
        build_member('peer', config)


def test_a_one_channel_head_is_refused():
    config = segmentor(WIDTH, classes=2)
    config['decode_head'].update(
        out_channels=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)
    )
    with pytest.raises(ValueError, match=r"member 'peer': it predicts one channel.*out_channels=2"):
        build_member('peer', config)


def test_a_head_without_classifier_is_refused_under_the_members_name():
    config = segmentor(WIDTH)
    config['decode_head'] = dict(
        type='SegmenterMaskTransformerHead', in_channels=8 * WIDTH, channels=8, num_classes=5,
        in_index=3, num_layers=1, num_heads=1, embed_dims=8, dropout_ratio=0.0,
        loss_decode=dict(type='CrossEntropyLoss'),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"member 'peer'.*SegmenterMaskTransformerHead"):
        build_member('peer', config)


def test_an_unknown_option_is_refused_under_the_members_name():
    with pytest.raises(ValueError, match=r"member 'peer'.*frozn"):
        build_member('peer', segmentor(WIDTH, frozn=True))


# ------------------------------------------------------------------------------- loading


@pytest.mark.parametrize('bare', [True, False])
def test_weights_are_those_of_the_checkpoint(checkpoint, tmp_path, bare):
    weights = torch.load(checkpoint)['state_dict']
    path = tmp_path / 'weights.pth'
    torch.save(weights if bare else {'state_dict': weights, 'meta': {'iter': 3}}, path)
    member = build_member('peer', segmentor(WIDTH, auxiliary=True, checkpoint=str(path)))
    assert isinstance(member, nn.Module)
    assert_close(dict(member.state_dict()), dict(weights), rtol=0, atol=0)


def test_a_counter_that_old_checkpoints_lack_may_be_missing(checkpoint, tmp_path):
    def change(weights):
        return {key: value for key, value in weights.items() if 'num_batches_tracked' not in key}

    path = changed(checkpoint, tmp_path / 'old.pth', change)
    member = build_member('peer', frozen(path))
    assert digest(member.network) == digest(build_member('peer', frozen(checkpoint)).network)


def test_a_loaded_member_is_not_initialized_again(checkpoint):
    members = dict(
        student=segmentor(WIDTH, auxiliary=True, checkpoint=checkpoint), peer=segmentor(WIDTH)
    )
    torch.manual_seed(0)
    model = MODELS.build(distiller_config(members=members))
    before = digest(model.members['peer'])
    model.init_weights()
    weights = torch.load(checkpoint)['state_dict']
    assert_close(dict(model.members['student'].state_dict()), dict(weights), rtol=0, atol=0)
    assert digest(model.members['peer']) != before


def test_the_config_is_left_as_it_was(checkpoint):
    config = distiller_config(
        dict(kd=dict(type='mmseg_adm.KD')),
        members=dict(student=segmentor(WIDTH), teacher=frozen(checkpoint)),
    )
    before = copy.deepcopy(config)
    MODELS.build(config)
    assert config == before


# ------------------------------------------------------------------------ frozen for good


def test_a_frozen_member_answers_in_training_as_it_was_validated(checkpoint):
    model = offline(checkpoint).train()
    outputs = record(model.network('teacher').decode_head.conv_seg, [])
    for _ in range(2):
        losses_of(model)
    plain = build(segmentor(WIDTH, auxiliary=True))
    plain.load_state_dict(torch.load(checkpoint)['state_dict'])
    inputs = model.data_preprocessor(raw_batch(), True)['inputs']
    with torch.no_grad():
        expected = plain.eval()(inputs)
    assert_close(outputs, [expected, expected], rtol=0, atol=0)
    assert not outputs[0].requires_grad


def test_a_frozen_member_never_changes(checkpoint):
    methods = dict(
        kd=dict(type='mmseg_adm.KD'),
        adm=dict(type='mmseg_adm.ADM', divergence=None),
        cwd=dict(type='mmseg_adm.CWD', at='backbone.layer3'),
    )
    model = offline(checkpoint, methods)
    before = digest(model.network('teacher')), digest(model.network('student'))
    assert before[0] == digest(build_member('teacher', frozen(checkpoint)).network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for seed in range(3):
        train_step(model, optimizer, seed)
    model.init_weights()
    assert digest(model.network('teacher')) == before[0]
    assert digest(model.network('student')) != before[1]
    assert all(
        p.grad is None and not p.requires_grad for p in model.network('teacher').parameters()
    )


def test_a_frozen_member_is_outside_the_module_tree(checkpoint):
    model = offline(checkpoint, {})
    alone = MODELS.build(distiller_config(members=dict(student=segmentor(WIDTH))))
    assert model.state_dict().keys() == alone.state_dict().keys()
    inside = {id(module) for module in model.modules()}
    assert not inside & {id(module) for module in model.network('teacher').modules()}
    held = {id(value) for value in (*model.parameters(), *model.buffers())}
    teacher = model.network('teacher')
    assert not held & {id(value) for value in (*teacher.parameters(), *teacher.buffers())}


def test_train_leaves_a_frozen_member_in_eval(checkpoint):
    model = offline(checkpoint)
    for mode in (True, False, True):
        model.train(mode)
        assert model.network('student').training is mode
        assert not any(module.training for module in model.network('teacher').modules())


@pytest.mark.parametrize('move', [lambda m: m.to(torch.float64), lambda m: m.double()])
def test_a_frozen_member_moves_with_the_model(checkpoint, move):
    model = offline(checkpoint)
    network = model.network('teacher')
    move(model)
    assert model.network('teacher') is network
    floating = [v for v in (*network.parameters(), *network.buffers()) if v.is_floating_point()]
    assert floating
    assert all(value.dtype == torch.float64 for value in floating)
    losses = losses_of(model)
    assert losses['student.decode.loss_ce'].dtype == torch.float64
    assert losses['kd.loss_kl'] > 0


def test_a_copy_shares_the_frozen_member(checkpoint):
    model = offline(checkpoint)
    losses_of(model)
    twin = copy.deepcopy(model)
    assert twin.frozen['teacher'] is model.frozen['teacher']
    assert twin.network('student') is not model.network('student')
    torch.manual_seed(0)
    first = losses_of(twin)
    torch.manual_seed(0)
    second = losses_of(model)
    assert first['kd.loss_kl'].requires_grad
    assert_close(first, second, rtol=0, atol=0)


def test_a_frozen_member_has_neither_losses_nor_an_auxiliary_head(checkpoint):
    model = offline(checkpoint)
    head, trunk = (
        record(getattr(model.network('teacher'), name), [])
        for name in ('auxiliary_head', 'backbone')
    )
    losses = losses_of(model)
    assert set(losses) == {'student.decode.loss_ce', 'student.decode.acc_seg', 'kd.loss_kl'}
    assert len(trunk) == 1
    assert not head


def test_a_frozen_member_is_run_once_for_all_its_readers(checkpoint):
    methods = dict(kd=dict(type='mmseg_adm.KD'), cwd=dict(type='mmseg_adm.CWD', at='features'))
    model = offline(checkpoint, methods)
    runs = record(model.network('teacher').backbone, [])
    losses_of(model)
    assert len(runs) == 1


def test_a_frozen_member_that_nobody_reads_is_not_run(checkpoint):
    methods = dict(
        kd=dict(type='mmseg_adm.KD'), cwd=dict(type='mmseg_adm.CWD', at='backbone.layer3')
    )
    model = offline(checkpoint, methods)
    runs = record(model.network('teacher').backbone, [])
    for strengths, expected in (((0, 0), 0), ((0, 0.5), 1), ((1, 0), 1)):
        runs.clear()
        for name, strength in zip(methods, strengths, strict=True):
            model.methods[name].strength = strength
        losses_of(model)
        assert len(runs) == expected
    model = offline(checkpoint, {})
    runs = record(model.network('teacher').backbone, [])
    losses_of(model)
    assert not runs


def test_a_frozen_student_still_predicts(checkpoint):
    model = offline(checkpoint, {}, student='teacher').eval()
    plain = build_member('plain', segmentor(WIDTH, auxiliary=True, checkpoint=checkpoint)).eval()
    assert model.member_names == ('teacher', 'student')
    with torch.no_grad():
        inputs = model.data_preprocessor(raw_batch(), False)['inputs']
        assert_close(model(inputs), plain(inputs), rtol=0, atol=0)


def test_the_hash_is_that_of_the_file(checkpoint, tmp_path):
    member = build_member('teacher', frozen(checkpoint))
    assert isinstance(member, FrozenMember)
    assert str(member.checkpoint) == checkpoint
    assert member.sha256 == hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    other = changed(checkpoint, tmp_path / 'other.pth', lambda w: {k: v + 1 for k, v in w.items()})
    assert build_member('teacher', frozen(other)).sha256 != member.sha256
