import inspect
import math

import pytest
import torch
from factory import distiller_config, losses_of, quick_in, raw_batch
from host_waits import Waits
from method_cases import METHOD, METHODS, PAIRS, VARIANTS
from method_models import blocks, build, network, receivers, terms_of, weights_of
from mmengine.registry import MODELS
from torch.testing import assert_close

from mmseg_adm.models import methods
from mmseg_adm.models.methods import DistillationMethod, adm

for_each_variant = pytest.mark.parametrize('variant', VARIANTS, ids=str)
for_each_pair = pytest.mark.parametrize('variant', PAIRS, ids=str)
for_each_method = pytest.mark.parametrize('name', METHODS)


# ------------------------------------------------------------------ what every method must do


def test_every_method_has_a_row():
    exported = {name: getattr(methods, name) for name in methods.__all__}
    registered = {
        name
        for name, value in exported.items()
        if isinstance(value, type)
        and issubclass(value, DistillationMethod)
        and value not in (DistillationMethod, methods.TeacherStudentMethod)
    }
    assert registered == set(METHODS)
    assert all(METHODS.values())


def test_every_reading_of_adm_has_a_variant_at_each_point():
    for at in ('features', 'logits'):
        chosen = [v.options for v in METHODS['ADM'] if v.options['at'] == at]
        assert {options['consensus'] for options in chosen} >= set(adm.CONSENSUS) - {None}
        assert {options['divergence'] for options in chosen} == set(adm.DIVERGENCE)


@for_each_variant
def test_each_term_trains_those_it_should_and_nobody_else(variant):
    model = build(variant)
    terms = terms_of(model)
    assert terms.keys() == variant.terms.keys()
    reached = {name: receivers(model, loss) for name, loss in terms.items()}
    assert reached == {name: set(term.updates) for name, term in variant.terms.items()}
    declared = {name for term in variant.terms.values() for name in term.updates} - {METHOD}
    assert set(model.methods['method'].updates()) == declared


@for_each_pair
def test_a_frozen_teacher_teaches_or_is_refused(variant):
    teacher = network(8, frozen=True, checkpoint=weights_of(network(8)))
    if not variant.frozen_teacher:
        with pytest.raises(ValueError, match="trains 'teacher', which is frozen"):
            build(variant, teacher=teacher)
        return
    model = build(variant, teacher=teacher)
    for name, loss in terms_of(model).items():
        assert receivers(model, loss) == set(variant.terms[name].updates)


@for_each_variant
def test_divergences_of_identical_members_are_zero(variant):
    model = build(variant, teacher=network(4))
    weights = torch.load(weights_of(network(4)))['state_dict']
    # Where features are dead, equal logits would correlate with nothing.
    weights['decode_head.conv_seg.bias'].normal_(std=0.1)
    for name in model.member_names:
        own = model.network(name).state_dict()
        model.network(name).load_state_dict({key: weights[key] for key in own})
    # A frozen teacher normalizes by running statistics: its bridge and its student must too.
    model.train(not model.frozen)
    terms = terms_of(model)
    assert terms.keys() == {name for name, term in variant.terms.items() if not term.projects}
    parameters = list(model.members.parameters())
    for name, loss in terms.items():
        if variant.terms[name].divergence:
            assert_close(loss, torch.zeros(()), rtol=0, atol=1e-6)
            gradients = torch.autograd.grad(
                loss, parameters, retain_graph=True, materialize_grads=True
            )
            assert max(gradient.abs().amax() for gradient in gradients) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ('variant', 'term'),
    [
        pytest.param(variant, term, id=f'{variant}-{term}')
        for variant in VARIANTS
        if not variant.combined
        for term in variant.terms
    ],
)
def test_each_term_alone_can_be_learnt(variant, term):
    model = build(variant)
    data = model.data_preprocessor(blocks(), True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    values = []
    for _ in range(20):
        loss = terms_of(model, data)[term]
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert max(values[-3:]) < values[0] - variant.terms[term].falls * abs(values[0])


@for_each_variant
def test_a_batch_without_labels_gives_finite_zeros(variant):
    model = build(variant)
    batch = raw_batch()
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data.fill_(255)
    losses = losses_of(model, batch)
    assert all(value.isfinite().all() for value in losses.values())
    assert all(losses[f'method.{term}'] == 0 for term in variant.terms)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    assert trained
    assert all(parameter.grad.isfinite().all() for parameter in trained)


@for_each_variant
def test_no_method_waits_for_the_device(variant):
    model = build(variant)
    method, waits = model.methods['method'], Waits()
    forward = method.forward

    def watched(step):
        with waits:
            return forward(step)

    method.forward = watched
    terms_of(model)
    assert waits.count == 0


@for_each_variant
def test_losses_under_autocast_are_close(variant):
    model = build(variant)
    full = terms_of(model)
    if variant.method == 'IFVD':
        # What bfloat16 does to the networks can move its differences of cosines by several per
        # cent: what it computes itself is compared on the same maps.
        method = model.methods['method']
        forward = method.forward

        def watched(step):
            with torch.autocast('cpu', enabled=False):
                full.update(forward(step))
            return forward(step)

        method.forward = watched
    unlike = dict(full)
    with torch.autocast('cpu', torch.bfloat16):
        terms = terms_of(model)
    assert terms.keys() == full.keys()
    for name, loss in terms.items():
        assert loss.dtype == torch.float32
        assert loss != unlike[name] or loss == 0, 'nothing ran in bfloat16'
        assert_close(loss, full[name], rtol=0.01, atol=3e-3)
        assert receivers(model, loss) == set(variant.terms[name].updates)


def test_under_autocast_all_modules_of_ffsd_learn():
    # Casts that autocast has kept from a pass without gradient would have none.
    model = build(next(variant for variant in VARIANTS if variant.method == 'FFSD'))
    with torch.autocast('cpu', torch.bfloat16):
        terms = terms_of(model)
    sum(terms.values()).backward()
    parameters = dict(model.methods['method'].named_parameters())
    assert parameters
    assert not [name for name, each in parameters.items() if each.grad is None]


@pytest.mark.parametrize(
    'strides', quick_in([((1, 2), (1, 1)), ((1, 1), (1, 2))], ((1, 2), (1, 1))), ids=str
)
@for_each_variant
def test_maps_of_different_size_are_brought_together(variant, strides):
    student, teacher = strides
    model = build(variant, student=network(4, student), teacher=network(8, teacher))
    for name, loss in terms_of(model).items():
        assert loss.isfinite()
        assert receivers(model, loss) == set(variant.terms[name].updates)


@for_each_method
def test_heads_of_several_kinds_go_together(name):
    """A cascade teaches a transformer's head, which reads several maps."""
    teacher = network(8, type='CascadeEncoderDecoder', num_stages=2)
    common = {key: value for key, value in teacher['decode_head'].items() if key != 'pool_scales'}
    teacher['decode_head'] = [
        dict(common, type='FCNHead', num_convs=1, concat_input=False),
        dict(common, type='OCRHead', ocr_channels=4),
    ]
    student = network(4)
    student['decode_head'].update(
        type='SegformerHead', in_channels=[4, 8], in_index=[0, 1], norm_cfg=dict(type='BN')
    )
    del student['decode_head']['pool_scales']
    variant = METHODS[name][0]
    model = build(variant, student=student, teacher=teacher)
    for term, loss in terms_of(model).items():
        assert receivers(model, loss) == set(variant.terms[term].updates)


@pytest.mark.parametrize('other', sorted({variant.method for variant in PAIRS}))
def test_methods_do_not_change_what_others_read(other):
    first = dict(type='mmseg_adm.ADM', consensus='modulation', divergence='modulation')
    second = dict(type=f'mmseg_adm.{other}')
    members = dict(student=network(4), teacher=network(4))
    values = []
    for pair in (dict(first=first, second=second), dict(second=second, first=first)):
        torch.manual_seed(0)
        model = MODELS.build(distiller_config(pair, members=members))
        model.pauses_members = True
        losses = losses_of(model)
        values.append({key: losses[key] for key in sorted(losses) if key.startswith('second')})
    assert_close(*values)


@pytest.mark.parametrize('other', ['DML', 'KDCL', 'SwitOKD'])
def test_adm_plugs_into(other):
    """Side by side both have the losses that each has alone, and one step trains everybody."""
    configs = dict(other=dict(type=f'mmseg_adm.{other}'), adm=dict(type='mmseg_adm.ADM'))
    members = dict(student=network(4), teacher=network(8))

    def train(chosen):
        torch.manual_seed(0)
        model = MODELS.build(distiller_config(chosen, members=members))
        model.pauses_members = True
        model.methods.load_state_dict(
            {key: torch.full_like(value, 0.1) for key, value in model.methods.state_dict().items()}
        )
        losses = losses_of(model)
        model.parse_losses(losses)[0].backward()
        return model, {key: value.detach() for key, value in losses.items()}

    model, together = train(configs)
    _, first = train(dict(other=configs['other']))
    _, second = train(dict(adm=configs['adm']))
    assert_close(together, first | second)
    assert all(parameter.grad is not None for parameter in model.parameters())


# ---------------------------------------------------------------------------- wrong values

WRONG = [
    ('KD', dict(tau=1e-30), 'tau must be from 0.01 to 100, got 1e-30: papers have 1 to 20'),
    ('CWD', dict(tau=1e30), 'tau must be from 0.01 to 100, got 1e'),
    ('ADM', dict(class_weight='yes'), "class_weight must be True or False, got 'yes'"),
    ('KD', dict(tua=2), r"no option 'tua'\. Did you mean 'tau'\? Its options: student, teacher"),
    ('ADM', dict(consensus_wieght=2), "Did you mean 'consensus_weight'"),
    ('ADM', dict(consensus='foo'), "consensus must be one of 'alignment', .*None, got 'foo'"),
    ('ADM', dict(divergence='foo'), "divergence must be one of 'weighting', .*None, got 'foo'"),
    ('ADM', dict(target='teacher', consensus=None), "target='teacher' is whom the student learns"),
    ('ADM', dict(target='student'), "'student' cannot teach itself: name another teacher and"),
    ('ADM', dict(target='teacher', teacher='student'), "'student' cannot teach itself: name anot"),
    ('ADM', dict(at='pixels'), "at must be one of 'features', 'logits', got 'pixels'"),
    ('ADM', dict(consensus=None, divergence=None), 'both None: nothing would be learnt'),
    ('ADM', dict(consensus_weight=-1), r'consensus_weight must be a finite number >= 0, got -1'),
    ('ADM', dict(divergence_weight=math.nan), 'divergence_weight must be a finite .* got nan'),
    ('CWD', dict(weight=math.inf), 'weight must be a finite number >= 0, got inf'),
    ('DML', dict(weight=-0.5), 'weight must be a finite number >= 0, got -0.5'),
    ('KD', dict(weight='1'), "weight must be a finite number >= 0, got '1'"),
    ('CWD', dict(tau=0), 'tau must be greater than 0'),
    ('DML', dict(tau=0.0), 'tau must be greater than 0'),
    ('KD', dict(tau=-1), 'tau must be a finite number >= 0, got -1'),
    ('DML', dict(members=['student']), r"members must be 2 or more .* \['student'\]"),
    ('KDCL', dict(members=['student']), r"members must be 2 or more .* \['student'\]"),
    ('KDCL', dict(members='student'), "members must be 2 or more different names, got 'student'"),
    ('FFSD', dict(members=['peer1']), r"members must be 2 or more .* \['peer1'\]"),
    ('FFSD', dict(leader='peer1'), "leader='peer1' is one of the members"),
    ('FFSD', {}, "'leader' is not a member: student, teacher. FFSD needs a leader and two or more"),
    ('FFSD', dict(stages=()), 'stages must be 1 or more different names'),
    ('FFSD', dict(stages=list('abcde')), 'stages must name 1 to 4 modules'),
    ('FFSD', dict(fusion_weight=-1), 'fusion_weight must be a finite number >= 0, got -1'),
    ('FFSD', dict(tau=0), 'tau must be greater than 0'),
    ('SOKD', {}, "'bridge' is not a member: student, teacher. SOKD needs a frozen teacher with a"),
    ('SOKD', dict(teacher_weight=math.nan), 'teacher_weight must be a finite .* got nan'),
    ('SOKD', dict(bridge='student'), 'student, bridge and teacher must be 3 or more'),
    ('SOKD', dict(bridge='teacher', teacher='tutor'), "'tutor' is not a member"),
    ('FFSD', dict(stages=None), 'stages must be 1 or more different names, got None'),
    ('FFSD', dict(stages='backbone.layer1'), 'stages must be 1 or more different names'),
    ('FFSD', dict(stages=['backbone.layer1'] * 2), 'stages must be 1 or more different names'),
    ('KDCL', dict(members=None), 'members must be 2 or more different names, got None'),
    ('SKD', dict(grid=None), 'grid must be two whole numbers > 0, rows and columns, got None'),
    ('SKD', dict(grid=(True, 2)), 'grid must be two whole numbers > 0'),
    ('AT', dict(at=None), "at must be 'features', 'logits' or a module path, got None"),
    ('MGD', dict(at=['features']), "at must be 'features', 'logits' or a module path"),
    ('CWD', dict(at='decode_head'), "the tap 'decode_head' captured nothing"),
    ('KD', dict(weight=True), 'weight must be a finite number >= 0, got True'),
    ('KD', dict(tau=10**400), 'too large'),
    ('SwitOKD', dict(student_weight=-2), 'student_weight must be a finite number >= 0, got -2'),
    ('SwitOKD', dict(tau=-1), 'tau must be a finite number >= 0, got -1'),
    ('KDCL', dict(ensemble='best'), "ensemble must be one of 'naive', .*'mean', got 'best'"),
    ('SKD', dict(grid=(2, 0)), r'grid must be two whole numbers > 0, rows and columns, got'),
    ('SKD', dict(grid=(64, 128)), r'grid=\(64, 128\) has 8192 nodes.* at most 1024'),
    ('MGD', dict(mask_ratio=1), 'mask_ratio must be below 1'),
    ('MGD', dict(mask_ratio=-0.1), 'mask_ratio must be a finite number >= 0, got -0.1'),
    ('DIST', dict(inter_weight=math.inf), 'inter_weight must be a finite number >= 0, got inf'),
    *((name, dict(weight=-1), 'weight must be a finite number >= 0, got -1')
      for name in ('AT', 'KDCL', 'SOKD')),
    ('AT', dict(at='backbone.layer9'), r"no point 'backbone\.layer9' .*Nearest: backbone\.layer"),
    ('DML', dict(members=['student', 'student']), '2 or more different names'),
    ('DML', dict(members=['student', 'peer']), "'peer' is not a member: student, teacher"),
    ('ADM', dict(teacher='tutor'), "'tutor' is not a member: student, teacher"),
    ('KD', dict(student='pupil'), "'pupil' is not a member: student, teacher"),
    ('CWD', dict(teacher='tutor'), "'tutor' is not a member: student, teacher"),
    ('CWD', dict(at='backbone.layer9'), r"no point 'backbone\.layer9' .*Nearest: backbone\.layer"),
    ('CWD', dict(at='backbone'), "tap 'backbone' reads a ResNetV1c that returns tuple"),
]  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    WRONG,
    ids=[
        f'{name}-{next(iter(options), "")}-{index}'
        for index, (name, options, _) in enumerate(WRONG)
    ],
)
def test_wrong_values_are_refused_under_the_methods_name(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(dict(type=f'mmseg_adm.{name}', **options))
    assert str(caught.value).startswith(f"method 'method' ({name})")


@pytest.mark.parametrize(
    'name',
    sorted(
        {
            v.method
            for v in PAIRS
            if 'teacher' in inspect.signature(getattr(methods, v.method)).parameters
        }
    ),
)
def test_a_member_cannot_teach_itself(name):
    with pytest.raises(ValueError, match='student'):
        build(dict(type=f'mmseg_adm.{name}', teacher='student'))


@pytest.mark.parametrize(
    ('options', 'change', 'message'),
    [
        ({}, dict(width=8), "'peer2' has .* and 'leader' "),
        ({}, dict(depth=34), "one architecture, but at backbone.layer1.2.* 'leader' None"),
        (dict(stages=('backbone.layer1', 'backbone.layer2')), {}, 'deepest to the shallowest'),
        (dict(stages=('backbone.layer5',)), {}, r"no point 'backbone\.layer5' to tap"),
        (dict(norm_cfg=dict(type='NoNorm')), {}, "norm_cfg names no .* 'NoNorm'"),
    ],
)
def test_ffsd_refuses_other_networks_and_stages(options, change, message):
    variant = METHODS['FFSD'][0]
    other = network(change.get('width', 4))
    other['backbone']['depth'] = change.get('depth', 18)
    members = variant.networks(network(4), None) | dict(peer2=other)
    config = variant._replace(options=variant.options | options).config
    with pytest.raises(ValueError, match=message) as caught:
        MODELS.build(distiller_config(dict(method=config), members=members, student='leader'))
    assert str(caught.value).startswith("method 'method' (FFSD)")


def test_sokd_needs_a_frozen_teacher():
    members = METHODS['SOKD'][0].networks(network(4), network(8))
    with pytest.raises(
        ValueError, match=r"'bridge'.*SOKD's bridge.*'teacher', which must be a froz"
    ):
        MODELS.build(distiller_config(dict(sokd=dict(type='mmseg_adm.SOKD')), members=members))


def test_a_point_that_yields_no_map_is_refused():
    members = {}
    for name, width in (('student', 4), ('teacher', 8)):
        members[name] = network(width)
        members[name]['decode_head'].update(in_channels=width, in_index=0)
        members[name]['backbone'] = dict(
            type='MixVisionTransformer', embed_dims=width, num_stages=1, num_layers=[1],
            num_heads=[1], patch_sizes=[7], strides=[4], sr_ratios=[4], out_indices=(0,),
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"'backbone\.layers\.0\.1\.0\.norm1'.*\(B, C, h, w\)"):
        build(dict(type='mmseg_adm.CWD', at='backbone.layers.0.1.0.norm1'), **members)


@pytest.mark.parametrize(
    ('name', 'advice'),
    [
        ('ADM', 'set divergence=None'),
        *((name, 'use mmseg_adm.KD') for name in ('DML', 'KDCL', 'SwitOKD')),
    ],
)
def test_a_frozen_learner_is_refused_with_a_way_out(name, advice):
    teacher = network(8, frozen=True, checkpoint=weights_of(network(8)))
    message = rf"method 'method' \({name}\): it trains 'teacher', which is frozen.*{advice}"
    with pytest.raises(ValueError, match=message):
        build(dict(type=f'mmseg_adm.{name}'), teacher=teacher)


# Terms that a method has no weight for.
UNWEIGHTED = {
    'ADM': {'loss_projection'},
    'FFSD': {'loss_fusion', 'loss_peer1', 'loss_peer2', 'loss_leader'},
}


@for_each_method
def test_weight_zero_silences_a_method(name):
    variant = METHODS[name][0]
    options = inspect.signature(getattr(methods, name)).parameters
    weights = [option for option in options
               if option.split('_')[-1] == 'weight' and option != 'class_weight']  # fmt: skip
    assert weights
    silent = variant._replace(options=variant.options | dict.fromkeys(weights, 0.0))
    model = build(silent)
    for term, loss in terms_of(model).items():
        if term not in UNWEIGHTED.get(name, ()):
            assert loss == 0
            assert receivers(model, loss) == set()
