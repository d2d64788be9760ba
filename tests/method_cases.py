"""One row a method: what the tests of all methods are driven by."""

from __future__ import annotations

from itertools import product, zip_longest
from typing import NamedTuple

METHOD = 'method'
PEERS = ('leader', 'peer1', 'peer2')


class Term(NamedTuple):
    """One loss of a method.

    ``updates`` names the members that it trains, and ``METHOD`` for the method's own modules. A
    ``divergence`` is zero, with zero gradient, for identical members. ``projects``: there is
    such a term only where the members' widths differ. ``falls``: by which share a short
    training of this term alone must lower it.
    """

    updates: tuple[str, ...]
    divergence: bool = False
    projects: bool = False
    falls: float = 0.15


class Variant(NamedTuple):
    """One way to configure a method.

    ``members`` are a ``'pair'`` of student and teacher of different widths, a pair with a
    ``'bridge'`` on a frozen teacher, or ``'peers'`` of one architecture. A variant that is
    ``combined`` has no term that another one has not alone.
    """

    method: str
    name: str
    options: dict
    terms: dict[str, Term]
    frozen_teacher: bool = True
    combined: bool = False
    members: str = 'pair'

    @property
    def config(self) -> dict:
        return dict(type=f'mmseg_adm.{self.method}', **self.options)

    @property
    def student(self) -> str:
        """The member that is deployed."""
        return PEERS[0] if self.members == 'peers' else 'student'

    def networks(self, student: dict, teacher: dict, checkpoint: str | None = None) -> dict:
        """Member configs; with a checkpoint the teacher is frozen."""
        if self.members == 'peers':
            return dict.fromkeys(PEERS, student)
        if checkpoint is not None:
            teacher = dict(teacher, frozen=True, checkpoint=checkpoint)
        bridge = dict(bridge=dict(type='mmseg_adm.TeacherBridge'))
        return dict(student=student, teacher=teacher) | (bridge if self.members == 'bridge' else {})

    def __str__(self) -> str:
        return f'{self.method}-{self.name}'


def adm(consensus: str | None, divergence: str | None, at: str) -> Variant:
    terms = {}
    if at == 'features':
        terms['loss_projection'] = Term((METHOD,), projects=True)
    if consensus:
        divergence_of_both = consensus in ('alignment', 'imitation', 'channelwise')
        terms['loss_consensus'] = Term(('student',), divergence=divergence_of_both)
    if divergence:
        terms['loss_divergence'] = Term(('teacher',))
    return Variant(
        'ADM',
        f'{consensus}-{divergence}-{at}',
        dict(consensus=consensus, divergence=divergence, at=at),
        terms,
        frozen_teacher=divergence is None,
        combined=consensus is not None and divergence is not None,
    )


def offline(method: str, term: str, projected: bool = False, **options) -> Variant:
    """A student that learns one divergence from a teacher, frozen or not."""
    name = '-'.join(f'{option}{value}' for option, value in options.items()) or 'default'
    updates = ('student', METHOD) if projected else ('student',)
    return Variant(method, name, options, {term: Term(updates, divergence=True)})


def online(method: str, **options) -> Variant:
    """Student and teacher that learn from each other."""
    name = '-'.join(f'{option}{value}' for option, value in options.items()) or 'default'
    terms = {f'loss_{name}': Term((name,), divergence=True) for name in ('student', 'teacher')}
    return Variant(method, name, options, terms, frozen_teacher=False)


DIST = Variant(
    'DIST',
    'default',
    {},
    {name: Term(('student',), divergence=True) for name in ('loss_inter', 'loss_intra')},
)
MGD = Variant('MGD', 'default', {}, {'loss_generation': Term(('student', METHOD))})
SOKD = Variant(
    'SOKD',
    'default',
    {},
    {
        'loss_student': Term(('student',), divergence=True),
        'loss_bridge_teacher': Term(('bridge',), divergence=True),
        'loss_bridge_student': Term(('bridge',), divergence=True),
    },
    members='bridge',
)
FFSD = Variant(
    'FFSD',
    'default',
    dict(stages=('backbone.layer2', 'backbone.layer1')),
    {
        'loss_fusion': Term((METHOD,)),
        'loss_peer1': Term(('peer1',), divergence=True),
        'loss_peer2': Term(('peer2',), divergence=True),
        # A map of unit length cannot come near a target that is as long as the features.
        'loss_diversity': Term(('peer2',), falls=0.01),
        'loss_self_distillation': Term((METHOD,)),
        'loss_leader': Term(('leader',)),
        'loss_attention': Term(('leader', METHOD)),
    },
    members='peers',
)

# The sides do not know of each other: each reading alone at one point, in pairs at the other.
ADM_CONSENSUS = ('alignment', 'modulation', 'imitation', 'channelwise', 'reweighting')
ADM_DIVERGENCE = ('weighting', 'modulation', 'repulsion', 'reweighting')
ADM_READINGS = [
    *product(ADM_CONSENSUS, (None,), ('features',)),
    *product((None,), ADM_DIVERGENCE, ('features',)),
    *((*pair, 'logits') for pair in zip_longest(ADM_CONSENSUS, ADM_DIVERGENCE)),
]

METHODS = {
    'ADM': [adm(*reading) for reading in ADM_READINGS],
    'AT': [offline('AT', 'loss_attention'), offline('AT', 'loss_attention', at='backbone.layer2')],
    'CWD': [
        offline('CWD', 'loss_cwd'),
        offline('CWD', 'loss_cwd', tau=4),
        offline('CWD', 'loss_cwd', projected=True, at='features'),
        offline('CWD', 'loss_cwd', projected=True, at='backbone.layer2'),
    ],
    'DIST': [DIST],
    'DML': [online('DML', tau=1), online('DML', tau=2)],
    'FFSD': [FFSD],
    'FitNet': [
        offline('FitNet', 'loss_hint', projected=True),
        offline('FitNet', 'loss_hint', at='logits'),
    ],
    'IFVD': [
        offline('IFVD', 'loss_variation'),
        offline('IFVD', 'loss_variation', at='backbone.layer2'),
    ],
    'KD': [offline('KD', 'loss_kl', tau=1), offline('KD', 'loss_kl', tau=4)],
    'KDCL': [online('KDCL', ensemble=name) for name in ('naive', 'min_logit', 'mean')],
    'MGD': [MGD],
    'SKD': [
        offline('SKD', 'loss_pairwise', weight=1.0),
        offline('SKD', 'loss_pairwise', grid=(2, 3)),
    ],
    'SOKD': [SOKD],
    'SwitOKD': [online('SwitOKD'), online('SwitOKD', tau=2)],
}

VARIANTS = [variant for variants in METHODS.values() for variant in variants]
PAIRS = [variant for variant in VARIANTS if variant.members == 'pair']
