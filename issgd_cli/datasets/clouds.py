"""Clouds of points on the surface of a shape: drawn from a mesh or from voxels, centred and scaled to the unit ball."""

import numpy as np
from numpy.typing import NDArray

POINTS = 1024  # of a cloud, as of PointNet: Qi et al. 2017

Cloud = NDArray[np.float32]  # (POINTS, 3)
Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Vertices, (V, 3), and triangles, (F, 3), by their vertices' numbers."""


def in_unit_ball(points: NDArray[np.float64]) -> Cloud:
    """Points less their mean, the farthest at distance 1.

    Raises:
        ValueError: They are not finite, or all the same.
    """
    centred = points - points.mean(0)
    farthest = np.linalg.norm(centred, axis=1).max()
    if not 0 < farthest < np.inf:
        raise ValueError("its points are all the same, or not finite")
    found: Cloud = (centred / farthest).astype(np.float32)
    return found


def of_mesh(mesh: Mesh, random: np.random.Generator) -> Cloud:
    """Points uniform over the area of a mesh.

    Raises:
        ValueError: It has none.
    """
    vertices, triangles = mesh
    corners = vertices[triangles]  # (F, 3 corners, 3)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not 0 < areas.sum() < np.inf:
        raise ValueError("it has no surface")
    drawn = corners[random.choice(len(areas), POINTS, p=areas / areas.sum())]
    u, v = random.random((2, POINTS, 1))
    beyond = u + v > 1  # the other half of the parallelogram, folded back
    u, v = np.where(beyond, 1 - u, u), np.where(beyond, 1 - v, v)
    return in_unit_ball(drawn[:, 0] + u * (drawn[:, 1] - drawn[:, 0]) + v * (drawn[:, 2] - drawn[:, 0]))


def of_voxels(solid: NDArray[np.bool_], random: np.random.Generator) -> Cloud:
    """Points uniform within the voxels that have an empty neighbour, of those that touch by a face.

    Raises:
        ValueError: There are none.
    """
    padded = np.pad(solid, 1)
    inside = solid.copy()
    for axis in range(solid.ndim):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    surface = np.argwhere(solid & ~inside)
    if not len(surface):
        raise ValueError("it has no surface")
    return in_unit_ball(surface[random.integers(len(surface), size=POINTS)] + random.random((POINTS, 3)))


def mesh_of(content: bytes) -> Mesh:
    """What a file in the Object File Format holds; some of ModelNet's begin with OFF and the first number in one word.

    Raises:
        ValueError: It is none, or has other faces than triangles.
    """
    if not content.startswith(b"OFF"):
        raise ValueError("it does not begin with OFF")
    numbers = content[3:].split()
    vertices, faces = int(numbers[0]), int(numbers[1])
    first = 3 + 3 * vertices
    if vertices < 1 or faces < 1 or len(numbers) < first + 4 * faces:
        raise ValueError("it ends early, or has no faces")
    triangles = np.array(numbers[first : first + 4 * faces]).astype(np.int64).reshape(faces, 4)
    places = np.array(numbers[3:first]).astype(np.float64).reshape(vertices, 3)
    if (triangles[:, 0] != 3).any() or (triangles[:, 1:] < 0).any() or (triangles[:, 1:] >= vertices).any():
        raise ValueError("it has faces that are no triangles of its vertices")
    return places, triangles[:, 1:]


def of_text(lines: list[bytes]) -> Cloud:
    """Points of lines like `x,y,z,nx,ny,nz`; the normals are left out.

    Raises:
        ValueError: Other lines, or not POINTS of them.
    """
    if len(lines) != POINTS:
        raise ValueError(f"it has {len(lines)} points, not {POINTS}")
    rows = np.array([line.split(b",")[:3] for line in lines])
    if rows.shape != (POINTS, 3):
        raise ValueError("a line is no point")
    return in_unit_ball(rows.astype(np.float64))
