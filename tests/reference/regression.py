from .basics import everywhere, positions


def feature_error(student, teacher, valid=None):
    """mean_valid 1/C sum_c (s_c - sg t_c)^2."""
    student, teacher = student.double(), teacher.detach().double()
    counted = positions(everywhere(student) if valid is None else valid)
    errors = [
        (s - t) ** 2
        for b, i, j in counted
        for s, t in zip(student[b, :, i, j], teacher[b, :, i, j], strict=True)
    ]
    return sum(errors) / len(errors)
