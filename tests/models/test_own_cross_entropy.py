"""ADM's cross entropies beside those of mmseg's own decode heads."""

import pytest
import torch
import torch.nn.functional as F
from factory import CLASSES, distiller_config, segmentor
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.testing import assert_close

from mmseg_adm.models.own_cross_entropy import OwnCrossEntropy
from mmseg_adm.models.step import DistillationStep
from mmseg_adm.models.taps import FeatureTap, decode_head_of

WEIGHTS = [0.5, 1.0, 2.5, 0.25, 1.5]
OTHER_WEIGHTS = [3.0, 0.1, 0.1, 2.0, 0.1]
PLAIN = dict(type='CrossEntropyLoss')
LOSSES = {
    'all pixels': PLAIN,
    'labeled pixels': dict(PLAIN, avg_non_ignore=True),
    'class weights': dict(PLAIN, class_weight=WEIGHTS),
    'class weights, all pixels': dict(PLAIN, class_weight=WEIGHTS, reduction='none'),
    'sum': dict(PLAIN, reduction='sum'),
    'a share of a sum of losses': dict(PLAIN, loss_weight=0.4),
    'weighted Tversky before': [dict(type='TverskyLoss', class_weight=OTHER_WEIGHTS), PLAIN],
    'weighted Tversky behind': [PLAIN, dict(type='TverskyLoss', class_weight=OTHER_WEIGHTS)],
    'weighted Lovasz before': [
        dict(type='LovaszLoss', class_weight=OTHER_WEIGHTS, reduction='none'),
        dict(PLAIN, avg_non_ignore=True),
    ],
    'Dice before': [dict(type='DiceLoss'), dict(PLAIN, class_weight=WEIGHTS)],
    'binary before': [
        dict(PLAIN, use_sigmoid=True, avg_non_ignore=True, loss_name='loss_bce'),
        PLAIN,
    ],
}  # fmt: skip
SAMPLERS = {
    'no sampler': None,
    'OHEM by probability': dict(type='OHEMPixelSampler', thresh=0.3, min_kept=200),
    'OHEM by rank': dict(type='OHEMPixelSampler', min_kept=700),
}


def network_with(**options):
    """A segmentor whose decode head has these options."""
    config = segmentor(4)
    config['decode_head'] |= options
    return MODELS.build(config)


def labels_of(ignore_index=255, size=(33, 49)):
    labels = torch.randint(CLASSES, (2, *size))
    if ignore_index is not None:
        labels[torch.rand(labels.shape) < 0.3] = ignore_index
    return labels


class Case:
    """A head, its logits and labels, and what its own cross entropy makes of each pixel."""

    def __init__(self, network, labels, member='teacher'):
        self.head, self.labels = decode_head_of(network), labels
        self.logits = (2 * torch.randn(2, CLASSES, 5, 7)).requires_grad_()
        self.weight = torch.rand(2, 4, 6)
        self.own = OwnCrossEntropy(member, network)
        self.step = DistillationStep({member: {'logits': FeatureTap(network, 'logits')}}, labels,
                                     255)  # fmt: skip

    def loss_of_the_head(self):
        """Its own cross entropy as mmseg computes it."""
        samples = [SegDataSample(gt_sem_seg=PixelData(data=each[None])) for each in self.labels]
        return self.head.loss_by_feat(self.logits, samples)['loss_ce'].mean()

    def by_hand(self, class_weight=None):
        """Each pixel's cross entropy, what it is multiplied with, and the weight of ours."""
        size, head = self.labels.shape[-2:], self.head
        logits = F.interpolate(self.logits, size, mode='bilinear', align_corners=head.align_corners)
        counted = self.labels != head.ignore_index
        each = F.cross_entropy(
            logits, self.labels, ignore_index=head.ignore_index, reduction='none'
        )
        factor = counted * torch.tensor(class_weight or [1.0] * CLASSES)[self.labels * counted]
        if head.sampler is not None:
            factor = factor * head.sampler.sample(logits, self.labels[:, None])
            assert 0 < factor.count_nonzero() < counted.sum()
        weight = F.interpolate(self.weight[:, None], size, mode='bilinear', align_corners=False)
        return each, factor, weight[:, 0]


def class_weight_of(loss):
    """Of the softmax cross entropy, wherever it stands."""
    each = loss if isinstance(loss, list) else [loss]
    (own,) = [loss for loss in each if loss['type'] == 'CrossEntropyLoss'
              and not loss.get('use_sigmoid')]  # fmt: skip
    return own.get('class_weight')


# Every loss with a plain head, every sampler with single losses.
SETTINGS = [(loss, 'no sampler', False) for loss in LOSSES] + [
    (loss, sampler, True)
    for loss in ('all pixels', 'labeled pixels', 'class weights', 'sum')
    for sampler in SAMPLERS
]


@pytest.mark.parametrize(('loss', 'sampler', 'align_corners'), SETTINGS)
def test_reweighting_and_the_own_loss_are_the_own_loss_with_other_weights(
    loss, sampler, align_corners
):
    share, loss = 0.4, LOSSES[loss]
    network = network_with(loss_decode=loss, sampler=SAMPLERS[sampler], align_corners=align_corners)
    case = Case(network, labels_of())
    each, factor, weight = case.by_hand(class_weight_of(loss))
    own = case.loss_of_the_head()
    mean = (weight * factor).sum() / factor.sum()
    scale = (own / (factor * each).sum()).detach()
    expected = scale * ((1 - share + share * weight / mean) * factor * each).sum()
    term = share * case.own.reweighted(case.step, case.logits, case.weight)
    assert_close(own + term, expected)
    gradients = [torch.autograd.grad(value, case.logits)[0] for value in (own + term, expected)]
    assert_close(*gradients, rtol=1e-5, atol=1e-6 * gradients[1].abs().max().item())
    assert term.abs() > 1e-4 * own


@pytest.mark.parametrize(('loss', 'sampler', 'align_corners'), SETTINGS)
def test_weighting_is_the_mean_over_the_pixels_that_the_own_loss_counts(
    loss, sampler, align_corners
):
    loss = LOSSES[loss]
    network = network_with(loss_decode=loss, sampler=SAMPLERS[sampler], align_corners=align_corners)
    case = Case(network, labels_of())
    each, factor, weight = case.by_hand(class_weight_of(loss))
    found = case.own.weighted(case.step, case.logits, case.weight)
    expected = (weight * factor * each).sum() / (weight * factor).sum()
    assert_close(found, expected)
    assert_close(*(torch.autograd.grad(value, case.logits)[0] for value in (found, expected)))
    found = case.own.weighted(case.step, case.logits)
    assert_close(found, (factor * each).sum() / factor.sum())


def test_classes_count_alike_if_asked():
    network = network_with(loss_decode=LOSSES['class weights'])
    case = Case(network, labels_of())
    case.own = OwnCrossEntropy('teacher', network, weigh_classes=False)
    each, factor, weight = case.by_hand()
    found = case.own.weighted(case.step, case.logits, case.weight)
    assert_close(found, (weight * factor * each).sum() / (weight * factor).sum())


@pytest.mark.parametrize('ignore_index', [2, 0, 254, -100])
def test_each_member_ignores_what_its_own_head_ignores(ignore_index):
    network = network_with(ignore_index=ignore_index, loss_decode=LOSSES['class weights'])
    case = Case(network, labels_of(ignore_index))
    each, factor, weight = case.by_hand(WEIGHTS)
    expected = (weight * factor * each).sum() / (weight * factor).sum()
    assert_close(case.own.weighted(case.step, case.logits, case.weight), expected)
    counted = case.labels != ignore_index
    assert counted.sum() < counted.numel()
    # Labels that another member ignores, and that are no class here, are nothing to learn.
    foreign = DistillationStep(case.step._taps, case.labels.where(counted, 255), 255)
    if ignore_index not in range(CLASSES):
        assert_close(case.own.weighted(foreign, case.logits, case.weight), expected)
    assert foreign.valid(case.labels[:, None]).sum() == counted.sum()


@pytest.mark.parametrize('sampler', ['OHEM by probability', 'OHEM by rank'])
def test_a_sampler_meets_no_labels_that_another_member_ignores(sampler):
    network = network_with(ignore_index=254, sampler=SAMPLERS[sampler])
    case = Case(network, labels_of(254))
    expected = case.own.reweighted(case.step, case.logits, case.weight)
    foreign = DistillationStep(case.step._taps, case.labels.where(case.labels != 254, 255), 255)
    assert_close(case.own.reweighted(foreign, case.logits, case.weight), expected)


def test_of_a_cascade_the_last_head_counts():
    config = segmentor(4)
    first = dict(config['decode_head'], type='FCNHead', num_convs=1, concat_input=False)
    del first['pool_scales']
    last = dict(type='OCRHead', in_channels=32, in_index=3, channels=8, ocr_channels=4,
                num_classes=CLASSES, norm_cfg=dict(type='BN'), align_corners=True,
                loss_decode=LOSSES['class weights'])  # fmt: skip
    first['loss_decode'] = [dict(type='DiceLoss')]
    config |= dict(type='CascadeEncoderDecoder', num_stages=2, decode_head=[first, last])
    case = Case(MODELS.build(config), labels_of())
    each, factor, weight = case.by_hand(WEIGHTS)
    assert case.head.align_corners
    found = case.own.weighted(case.step, case.logits, case.weight)
    assert_close(found, (weight * factor * each).sum() / (weight * factor).sum())


@pytest.mark.parametrize('loss', ['all pixels', 'labeled pixels', 'class weights', 'sum'])
def test_halves_of_a_batch_on_two_processes_are_the_whole(monkeypatch, loss):
    network = network_with(loss_decode=LOSSES[loss])
    whole = Case(network, labels_of())
    whole.labels[0, :20] = 255  # so that one half has more to count than the other
    sums = []

    def terms(case, rows):
        step = DistillationStep(whole.step._taps, whole.labels[rows], 255)
        logits, weight = case.logits[rows], case.weight[rows]
        return (case.own.reweighted(step, logits, weight), case.own.weighted(step, logits, weight))

    expected = terms(whole, slice(None))
    # First hear what each process would send, then let both have the mean of it.
    with monkeypatch.context() as patch:
        patch.setattr(
            DistillationStep, 'reduce_mean', staticmethod(lambda total: sums.append(total) or total)
        )
        for half in (0, 1):
            terms(whole, slice(half, half + 1))
    means = 2 * [(first + second) / 2 for first, second in zip(sums[:2], sums[2:], strict=True)]
    monkeypatch.setattr(DistillationStep, 'reduce_mean', staticmethod(lambda total: means.pop(0)))
    halves = [terms(whole, slice(half, half + 1)) for half in (0, 1)]
    reweighted, weighted = zip(*halves, strict=True)
    # What changes in the own loss is divided as that one is: by each process's own pixels.
    own = [1, 1]
    if loss in ('labeled pixels', 'class weights'):
        own = [whole.own._labeled(whole.labels[half : half + 1]).sum() for half in (0, 1)]
        assert own[0] < 0.8 * own[1]
    changed = sum(term * share for term, share in zip(reweighted, own, strict=True))
    found = changed / (1 if loss == 'sum' else sum(own)), sum(weighted) / 2
    for found, term in zip(found, expected, strict=True):  # noqa: B020
        # A sum over a thousand pixels that nearly cancel.
        assert_close(found, term, rtol=5e-5, atol=1e-5)


WITHOUT = {
    'binary': (dict(PLAIN, use_sigmoid=True), 'CrossEntropyLoss'),
    'Dice': (dict(type='DiceLoss'), 'DiceLoss'),
    'focal': (dict(type='FocalLoss'), 'FocalLoss'),
    'Lovasz and Tversky': (
        [dict(type='LovaszLoss', reduction='none'), dict(type='TverskyLoss')],
        'LovaszLoss, TverskyLoss',
    ),
}


@pytest.mark.parametrize('kind', WITHOUT)
@pytest.mark.parametrize(
    'options',
    [
        dict(divergence='weighting'),
        dict(divergence='reweighting'),
        dict(divergence='modulation'),
        dict(consensus='reweighting', divergence='repulsion'),
        dict(consensus='modulation', divergence='repulsion'),
    ],
    ids=str,
)
def test_without_a_softmax_cross_entropy_there_is_nothing_to_weigh(kind, options):
    side = 'consensus' if 'consensus' in options else 'divergence'
    member = 'student' if side == 'consensus' else 'teacher'
    loss, names = WITHOUT[kind]
    members = dict(student=segmentor(4), teacher=segmentor(8))
    members[member]['decode_head']['loss_decode'] = loss
    method = dict(type='mmseg_adm.ADM', **options)
    with pytest.raises(ValueError) as error:
        MODELS.build(distiller_config(dict(adm=method), members=members))
    assert (
        f"{side}={options[side]!r}: the PSPHead of '{member}' has no softmax cross entropy to "
        f'weigh, it trains with {names}: add a CrossEntropyLoss without use_sigmoid to its '
        f'loss_decode, or set {side} to one of '
    ) in str(error.value)
    # The way out.
    instead = dict(consensus='channelwise') if side == 'consensus' else dict(divergence='repulsion')
    MODELS.build(distiller_config(dict(adm=method | instead), members=members))


def test_reweighting_by_nothing_changes_nothing():
    case = Case(network_with(loss_decode=PLAIN), labels_of())
    found = case.own.reweighted(case.step, case.logits, torch.zeros(2, 4, 6))
    assert found == 0
    assert torch.autograd.grad(found, case.logits)[0].eq(0).all()


def test_reweighting_keeps_the_weights_of_classes():
    method = dict(type='mmseg_adm.ADM', divergence='reweighting', class_weight=False)
    with pytest.raises(ValueError, match='leave class_weight=True'):
        MODELS.build(distiller_config(dict(adm=method)))


def test_nothing_of_it_is_saved_or_trained():
    own = OwnCrossEntropy('teacher', network_with(loss_decode=LOSSES['class weights']))
    assert not own.state_dict()
    assert not list(own.parameters())
    assert own.class_weight.tolist() == WEIGHTS
