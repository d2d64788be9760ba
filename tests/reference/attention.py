import math

import torch

from .basics import everywhere, norm, positions


def attention(maps, valid=None):
    """A(F) = mean_c F_c^2 at the valid positions, one list an image."""
    rows = [[] for _ in maps]
    for b, i, j in positions(everywhere(maps) if valid is None else valid):
        rows[b].append(sum(x**2 for x in maps[b, :, i, j].double()) / maps.shape[1])
    return rows


def flattened(maps, valid=None):
    """All channels of the valid positions, one list an image."""
    rows = [[] for _ in maps]
    for b, i, j in positions(everywhere(maps) if valid is None else valid):
        rows[b] += maps[b, :, i, j]
    return rows


def unit_distance(student, teacher):
    """1/B sum_b |s_b/|s_b| - sg t_b/|t_b||^2, of one list of scalars an image."""
    total = 0
    for row, target in zip(student, teacher, strict=True):
        row, target = [s.double() for s in row], [t.detach().double() for t in target]
        lengths = norm(row), norm(target)
        for s, t in zip(row, target, strict=True):
            total = total + (s / lengths[0] - t / lengths[1]) ** 2
    return total / len(student)


def attention_transfer(student, teacher, valid=None):
    """1/B sum_b |A(s_b)/|A(s_b)| - sg A(t_b)/|A(t_b)||^2."""
    return unit_distance(attention(student, valid), attention(teacher, valid))


def shifted_attention(maps, valid=None):
    """n - a' above the (D/3)-th smallest a', else a'; F + n (target - a') / C.

    a' = a/n, n = |a| sqrt(64/D), D valid positions an image.
    """
    maps = maps.detach().double()
    valid = everywhere(maps) if valid is None else valid
    target, features = torch.zeros_like(maps[:, 0]), maps.clone()
    for b, row in enumerate(attention(maps, valid)):
        n = norm(row) * math.sqrt(64 / len(row)) if row else 0
        unit = [a / n for a in row]
        threshold = sorted(unit)[max(len(row) // 3, 1) - 1] if row else None
        counted = [p for p in positions(valid) if p[0] == b]
        for (_, i, j), a in zip(counted, unit, strict=True):
            target[b, i, j] = n - a if a > threshold else a
            features[b, :, i, j] += n * (target[b, i, j] - a) / maps.shape[1]
    return target.flatten(1), features


def diversity(student, target, valid=None):
    """mean_valid (A(F)/n - sg target)^2, n = |A(F)| sqrt(64/D)."""
    valid = everywhere(student) if valid is None else valid
    rows = attention(student, valid)
    units = [a / (norm(row) * math.sqrt(64 / len(row))) for row in rows for a in row]
    target = target.detach().double().reshape(valid.shape)
    errors = [(a - target[p]) ** 2 for a, p in zip(units, positions(valid), strict=True)]
    return sum(errors) / len(errors)
