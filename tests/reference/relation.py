import math

from .basics import cosine, everywhere, positions


def nodes(maps, grid, valid):
    """By image and cell of the grid: the highest valid value of each channel, None without."""
    height, width = maps.shape[-2:]
    found = {}
    for b in range(len(maps)):
        for cell in range(grid[0] * grid[1]):
            i, j = cell // grid[1], cell % grid[1]
            counted = [
                (row, column)
                for row in range(i * height // grid[0], math.ceil((i + 1) * height / grid[0]))
                for column in range(j * width // grid[1], math.ceil((j + 1) * width / grid[1]))
                if bool(valid[b, row, column])
            ]
            pooled = [max(plane[p] for p in counted) for plane in maps[b] if counted]
            found[b, cell] = pooled or None
    return found


def pairwise_affinity(student, teacher, grid=(2, 2), valid=None):
    """mean_{b,i,j} (cos(s_i, s_j) - sg cos(t_i, t_j))^2 over the nodes i, j of an image."""
    valid = everywhere(student) if valid is None else valid
    own = nodes(student.double(), grid, valid)
    other = nodes(teacher.detach().double(), grid, valid)
    cells = range(grid[0] * grid[1])
    errors = [
        (cosine(own[b, i], own[b, j]) - cosine(other[b, i], other[b, j])) ** 2
        for b in range(len(student))
        for i in cells
        for j in cells
        if own[b, i] and own[b, j]
    ]
    return sum(errors) / len(errors)


def class_similarity(maps, labels, position):
    """M_p = cos(f_p, mu), mu the mean of the positions of p's image with p's label."""
    b, i, j = position
    same = [p for p in positions(labels == labels[position]) if p[0] == b]
    mean = sum(maps[b, :, row, column] for _, row, column in same) / len(same)
    return cosine(maps[b, :, i, j], mean)


def intra_class_variation(student, teacher, labels, ignore_index=255):
    """mean_valid (M^s_p - sg M^t_p)^2."""
    student, teacher = student.double(), teacher.detach().double()
    counted = positions(labels != ignore_index)
    pairs = [[class_similarity(maps, labels, p) for maps in (student, teacher)] for p in counted]
    return sum((own - other) ** 2 for own, other in pairs) / len(pairs)
