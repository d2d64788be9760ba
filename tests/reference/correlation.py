from .basics import pearson, probabilities


def inter_class_correlation(student_logits, teacher_logits, tau=1.0, valid=None):
    """tau^2 mean_valid (1 - rho_p), rho_p the correlation of the K classes at p."""
    student = probabilities(student_logits, tau, valid)
    teacher = probabilities(teacher_logits.detach(), tau, valid)
    distances = [1 - pearson(own, other) for own, other in zip(student, teacher, strict=True)]
    return tau**2 * sum(distances) / len(distances)


def intra_class_correlation(student_logits, teacher_logits, tau=1.0, valid=None):
    """tau^2 mean_k (1 - rho_k), rho_k the correlation of all valid positions of the batch."""
    student = zip(*probabilities(student_logits, tau, valid), strict=True)
    teacher = zip(*probabilities(teacher_logits.detach(), tau, valid), strict=True)
    distances = [1 - pearson(own, other) for own, other in zip(student, teacher, strict=True)]
    return tau**2 * sum(distances) / len(distances)
