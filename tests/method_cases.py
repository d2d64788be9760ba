"""One row a method: what the tests of all methods are driven by."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

METHOD = 'method'


class Term(NamedTuple):
    """One loss of a method.

    ``updates`` names the members that it trains, and ``METHOD`` for the method's own
    projection, which there is only where the members' widths differ. A ``divergence`` is zero,
    with zero gradient, for identical members.
    """

    updates: tuple[str, ...]
    divergence: bool = False


class Variant(NamedTuple):
    """One way to configure a method, for a student and a teacher of different widths.

    A variant that is ``combined`` has no term that another one has not alone.
    """

    method: str
    name: str
    options: dict
    terms: dict[str, Term]
    frozen_teacher: bool = True
    combined: bool = False

    @property
    def config(self) -> dict:
        return dict(type=f'mmseg_adm.{self.method}', **self.options)

    def __str__(self) -> str:
        return f'{self.method}-{self.name}'


def adm(consensus: str | None, divergence: str | None, at: str) -> Variant:
    terms = {}
    if at == 'features':
        terms['loss_projection'] = Term((METHOD,))
    if consensus:
        terms['loss_consensus'] = Term(('student',), divergence=consensus == 'alignment')
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


def cwd(at: str, updates: tuple[str, ...], **options) -> Variant:
    name = '-'.join([at, *(f'{option}{value}' for option, value in options.items())])
    terms = {'loss_cwd': Term(updates, divergence=True)}
    return Variant('CWD', name, dict(at=at, **options), terms)


def dml(tau: float) -> Variant:
    terms = {f'loss_{name}': Term((name,), divergence=True) for name in ('student', 'teacher')}
    return Variant('DML', f'tau{tau}', dict(tau=tau), terms, frozen_teacher=False)


def kd(tau: float) -> Variant:
    terms = {'loss_kl': Term(('student',), divergence=True)}
    return Variant('KD', f'tau{tau}', dict(tau=tau), terms)


ADM_READINGS = [
    (consensus, divergence, at)
    for consensus, divergence, at in product(
        ('alignment', 'modulation', None),
        ('weighting', 'modulation', 'repulsion', None),
        ('features', 'logits'),
    )
    if consensus or divergence
]

METHODS = {
    'ADM': [adm(*reading) for reading in ADM_READINGS],
    'CWD': [
        cwd('logits', ('student',)),
        cwd('logits', ('student',), tau=4),
        cwd('features', ('student', METHOD)),
        cwd('backbone.layer2', ('student', METHOD)),
    ],
    'DML': [dml(1), dml(2)],
    'KD': [kd(1), kd(4)],
}

VARIANTS = [variant for variants in METHODS.values() for variant in variants]
