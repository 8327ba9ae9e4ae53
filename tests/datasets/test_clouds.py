"""Clouds of points: where on a shape they are drawn, and that they fill the unit ball."""

import numpy as np
import pytest

from issgd_cli.datasets.clouds import POINTS, in_unit_ball, mesh_of, of_mesh, of_text, of_voxels

# Two triangles, one three times as large as the other, in planes of their own.
MESH = b"OFF\n6 2 0\n0 0 0\n2 0 0\n0 3 0\n0 0 5\n1 0 5\n0 2 5\n3 0 1 2\n3 3 4 5\n"


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_clouds_are_centred_and_their_farthest_point_is_at_1() -> None:
    points = random().normal(3, 7, (50, 3))
    found = in_unit_ball(points)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    assert np.linalg.norm(found, axis=1).max() == pytest.approx(1)
    apart = [np.linalg.norm(cloud[1:] - cloud[:-1], axis=1) for cloud in (points, found)]
    np.testing.assert_allclose(apart[0] / apart[0][0], apart[1] / apart[1][0], rtol=1e-4)


@pytest.mark.parametrize("points", [np.ones((4, 3)), np.full((4, 3), np.nan), np.array([[0.0] * 3, [np.inf] * 3])])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_no_ball_is_made_of_a_single_point_or_of_what_is_not_finite(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="all the same, or not finite"):
        in_unit_ball(points)


@pytest.mark.parametrize("content", [MESH, MESH.replace(b"OFF\n", b"OFF")])
def test_points_of_a_mesh_are_uniform_over_its_area(content: bytes) -> None:
    cloud = of_mesh(mesh_of(content), random())
    assert cloud.shape == (POINTS, 3)
    assert cloud.dtype == np.float32
    low = cloud[:, 2] < cloud[:, 2].mean()
    assert low.mean() == pytest.approx(3 / 4, abs=0.05)
    assert len(np.unique(np.round(cloud[:, 2], 5))) == 2  # all of them in the two planes
    corner, far = cloud[low].min(0)[:2], cloud[low].max(0)[:2]
    x, y = ((cloud[low, :2] - corner) / (far - corner)).T
    assert (x + y <= 1.1).all()
    assert (x.mean(), y.mean()) == pytest.approx((1 / 3, 1 / 3), abs=0.04)
    assert not np.array_equal(of_mesh(mesh_of(content), np.random.default_rng(1)), cloud)


@pytest.mark.parametrize(
    "content",
    [
        b"PLY",
        b"OFF",
        b"OFF\n6 2",
        MESH[:-4],
        MESH.replace(b"3 3 4 5", b"4 3 4 5"),
        MESH.replace(b"3 3 4 5", b"3 3 4 6"),
        MESH.replace(b"3 3 4 5", b"3 3 4 -1"),
        MESH.replace(b"2 0 0", b"x 0 0"),
        MESH.replace(b"6 2 0", b"0 2 0"),
        MESH.replace(b"6 2 0", b"999999999999 2 0"),
    ],
)
def test_what_is_no_mesh_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        mesh_of(content)


def test_a_mesh_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="no surface"):
        of_mesh(mesh_of(b"OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n"), random())


def test_points_of_voxels_lie_in_those_of_the_surface() -> None:
    solid = np.zeros((9, 9, 9), bool)
    solid[2:7, 2:7, 2:7] = True  # a cube of 5: its middle ones, 3 x 3 x 3, are inside
    cloud = of_voxels(solid, random())
    assert cloud.shape == (POINTS, 3)
    assert cloud.dtype == np.float32
    low, high = cloud.min(0), cloud.max(0)
    places = 5 * (cloud - (low + high) / 2) / (high - low)  # in voxels, from the middle of the cube
    assert (np.abs(places).max(1) > 1.45).all()
    assert np.abs(places.mean(0)).max() < 0.3
    # One that fills everything has a surface, too: beyond the border there is nothing.
    assert of_voxels(np.ones((3, 3, 3), bool), random()).shape == (POINTS, 3)
    with pytest.raises(ValueError, match="no surface"):
        of_voxels(np.zeros((3, 3, 3), bool), random())


def test_lines_of_points_are_read_without_their_normals() -> None:
    points = random().normal(size=(POINTS, 6))
    lines = [",".join(f"{number:.6f}" for number in row).encode() for row in points]
    np.testing.assert_allclose(of_text(lines), in_unit_ball(points[:, :3]), atol=1e-5)
    for wrong in (lines[1:], [*lines[1:], b"1,2"], [*lines[1:], b"1,x,2"], [*lines[1:], b"1,nan,2"], [b""] * POINTS):
        with pytest.raises(ValueError, match=r".+"), np.errstate(invalid="ignore"):
            of_text(wrong)
