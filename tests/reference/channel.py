import torch

from .basics import everywhere, kl, positions


def channel_wise_divergence(student, teacher, tau=1.0, valid=None, weight=None):
    """tau^2 / (B*K) * sum_{b,k} KL over the valid positions of image b, teacher || student.

    With weights both distributions are w_p exp(z_p / tau) over their sum.
    """
    student, teacher = student.double(), teacher.detach().double()
    valid = everywhere(student) if valid is None else valid
    if weight is None:
        weight = torch.ones_like(student[:, 0])
    valid = valid & (weight > 0)
    prior = torch.log(weight.double())
    batch, channels = student.shape[:2]
    total = 0
    for b in range(batch):
        counted = [(i, j) for image, i, j in positions(valid) if image == b]
        for k in range(channels):
            target_scores = [teacher[b, k, i, j] / tau + prior[b, i, j] for i, j in counted]
            scores = [student[b, k, i, j] / tau + prior[b, i, j] for i, j in counted]
            total = total + (kl(target_scores, scores) if counted else 0)
    return tau**2 * total / (batch * channels)
