import statistics

import torch

from .basics import cosine, everywhere, positions


def similarity_map(student, teacher):
    """S_p = <fs_p, ft_p> / (|fs_p| |ft_p|)."""
    student, teacher = student.double(), teacher.double()
    batch, _, height, width = student.shape
    rows = [
        cosine(student[b, :, i, j], teacher[b, :, i, j])
        for b in range(batch)
        for i in range(height)
        for j in range(width)
    ]
    return torch.stack(rows).reshape(batch, height, width)


def consensus_weight(similarity, contrast=None, valid=None):
    """c_p of each contrast, compared with the valid positions of the same image."""
    similarity = similarity.detach().double()
    weight = torch.zeros_like(similarity)
    for b, i, j in positions(torch.ones_like(similarity, dtype=torch.bool)):
        own = similarity[b, i, j].item()
        others = [
            value.item()
            for value, counts in zip(
                similarity[b].flatten(),
                torch.ones(similarity[b].numel()) if valid is None else valid[b].flatten(),
                strict=True,
            )
            if counts
        ]
        weight[b, i, j] = CONTRASTS[contrast](own, others)
    return weight


def _rank(own, others):
    return sum(0.5 * (other < own) + 0.5 * (other <= own) for other in others) / len(others)


def _within(value):
    return min(max(value, 0), 1)


CONTRASTS = {
    None: lambda own, others: _within(own),
    'center': lambda own, others: _within(0.5 + own - statistics.mean(others)),
    'standardize': lambda own, others: _within(
        0.5 + (own - statistics.mean(others)) / (4 * statistics.pstdev(others))
    ),
    'rank': _rank,
}


def consensus_alignment(student, teacher, valid=None):
    """sum_valid c_p (1 - cos(fs_p, sg ft_p)) / sum_valid c_p, c_p = sg max(S_p, 0)."""
    similarity = similarity_map(student, teacher.detach())
    numerator = denominator = 0
    for p in positions(everywhere(student) if valid is None else valid):
        weight = max(similarity[p].item(), 0)
        numerator = numerator + weight * (1 - similarity[p])
        denominator += weight
    return numerator / denominator


def divergence_repulsion(student, teacher, valid=None):
    """sum_valid d_p cos(sg fs_p, ft_p) / sum_valid d_p, d_p = sg (1 - max(S_p, 0))."""
    similarity = similarity_map(student.detach(), teacher)
    numerator = denominator = 0
    for p in positions(everywhere(student) if valid is None else valid):
        weight = 1 - max(similarity[p].item(), 0)
        numerator = numerator + weight * similarity[p]
        denominator += weight
    return numerator / denominator


def cosine_distance(student, teacher, valid=None):
    """mean_valid (1 - cos(fs_p, sg ft_p))."""
    similarity = similarity_map(student, teacher.detach())
    counted = positions(everywhere(student) if valid is None else valid)
    return sum(1 - similarity[p] for p in counted) / len(counted)
