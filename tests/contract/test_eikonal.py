"""Contract of `travel_time` and `trace_paths`, the same for every backend."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numba
import numpy as np
import pytest
import skfmm
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from tests.contract.backends import backend_fixture

import voxkernels as vk
from voxkernels import eikonal
from voxkernels.eikonal import batches, cpu, cpu_large, reference, spare

ops = backend_fixture("eikonal")

STARTS = ("surface", "faces", "centres")
CROSS = ndimage.generate_binary_structure(3, 1)


# ---- scenes -------------------------------------------------------------------------------------------------------


def nothing(domain: np.ndarray) -> np.ndarray:
    return np.zeros(domain.shape, bool)


def point_in_box(n: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Domain, source in its middle, distances."""
    domain = np.ones((n, n, n), bool)
    sources = nothing(domain)
    sources[n // 2, n // 2, n // 2] = True
    return domain, sources, np.linalg.norm(np.indices(domain.shape) - n // 2, axis=0)


def rough_scene(seed: int = 0, n: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Two touching labels with walls and holes, sources on their surface and inside."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(n, n + 1, n - 1)), 1.5)
    labels = (field > np.quantile(field, 0.4)) * (1 + (np.indices(field.shape)[2] > n // 2))
    other = ndimage.gaussian_filter(rng.normal(size=field.shape), 1.2)
    sources = ((other > np.quantile(other, 0.8)) & (labels == 0)) | (rng.random(field.shape) < 0.003)
    return labels.astype(np.int32), sources


def capped_ball(radius: float, normal, cap: float, centre) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A digitised ball whose outside is a source where its coordinate along `normal` exceeds cap * radius.

    Returns domain, sources and the distance from every voxel of the domain to the smooth cap: the ball is convex.
    """
    m = int(radius) + 4
    x = np.indices((2 * m + 1,) * 3) - m - np.reshape(centre, (3, 1, 1, 1))
    r = np.linalg.norm(x, axis=0)
    t = np.tensordot(np.asarray(normal) / np.linalg.norm(normal), x, 1)
    domain = r <= radius
    r, across, sources = r[domain], np.sqrt(np.maximum(r * r - t * t, 0)[domain]), ~domain & (t > cap * radius)
    t = t[domain]
    rim = np.hypot(t - cap * radius, across - radius * np.sqrt(1 - cap * cap))
    return domain, sources, np.where(t >= cap * r, radius - r, rim)


def capped_balls(radii=(12, 20, 26, 40), caps=(-0.5, 0.0, 0.5), seed: int = 0):
    """Balls of several sizes, caps and orientations (along an axis, along a diagonal, two at random), off the grid."""
    rng = np.random.default_rng(seed)
    for radius in radii:
        for cap in caps:
            for normal in ((1, 0, 0), (0, 1, 1), *rng.normal(size=(2, 3))):
                yield capped_ball(radius, normal, cap, rng.uniform(-0.5, 0.5, 3))


def assert_same(a: np.ndarray, b: np.ndarray, atol: float = 1e-5) -> None:
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_allclose(np.nan_to_num(a, nan=-1), np.nan_to_num(b, nan=-1), rtol=0, atol=atol)


# ---- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("order", [1, 2])
def test_flat_face_is_exactly_half_a_voxel_away_at_its_rim_too(ops: ModuleType, start: str, order: int) -> None:
    domain = np.zeros((8, 9, 9), bool)
    domain[3:] = True
    sources = nothing(domain)
    sources[1:3, 2:7, 2:7] = True  # a patch on the face, void beside it
    for spacing in ((1, 1, 1), (3, 1, 2)):
        T = ops.travel_time(domain, sources, start=start, order=order, spacing=spacing)
        assert (T[3, 2:7, 2:7] == 0.5 * spacing[0]).all()
        assert (T[3][~sources[2]] > 0.5 * spacing[0]).all()
        np.testing.assert_allclose(T[3:, 4, 4], spacing[0] * (np.arange(5) + 0.5), rtol=0.03)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thin_sources_are_exactly_half_a_voxel_away(ops: ModuleType, start: str, axis: int) -> None:
    domain = np.ones((7, 7, 7), bool)
    domain[3, 2:5, 2:5] = False  # a plate one voxel thick inside the domain, all of it source
    T = ops.travel_time(np.moveaxis(domain, 0, axis), np.moveaxis(~domain, 0, axis), start=start)
    T = np.moveaxis(T, axis, 0)
    assert (T[[2, 4], 2:5, 2:5] == 0.5).all()
    assert (T[3, [1, 5], 2:5] == 0.5).all()
    domain = np.ones((4, 7, 7), bool)
    domain[0] = False
    row, dot, film = nothing(domain), nothing(domain), nothing(domain)
    row[0, 3, 1:6], dot[0, 3, 3], film[0] = True, True, True
    for sources in (row, dot, film):
        T = ops.travel_time(domain, sources, start=start)
        assert (T[1][sources[0]] == 0.5).all()
        assert (T[1][~sources[0]] > 0.5).all()


def test_point_source_is_euclidean(ops: ModuleType) -> None:
    domain, sources, distance = point_in_box(15 if ops is not reference else 9)
    T = ops.travel_time(domain, sources)
    assert T.dtype == np.float32
    assert T[sources] == 0
    assert np.abs(T - distance).max() < 0.25
    assert np.abs(ops.travel_time(domain, sources, order=1) - distance).max() < 1.2
    coarse = ops.travel_time(domain, sources, order=1, start="centres")
    assert (coarse >= distance - 1e-5).all()
    assert np.abs(coarse - distance).mean() > 2 * np.abs(T - distance).mean()  # what the start is for


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.5, 1, 0.5)])
def test_slanted_plane_is_flat(ops: ModuleType, spacing: tuple[float, float, float]) -> None:
    n = 14 if ops is not reference else 9
    height = np.tensordot([0.6, 0.48, 0.64], np.indices((n, n, n)) - n / 2, 1) + 0.2
    covector = np.array([0.6, 0.48, 0.64]) / spacing
    truth = height / np.linalg.norm(covector)
    T = ops.travel_time(height > 0, height <= 0, spacing=spacing)
    inner = (slice(3, -3),) * 3
    error = (T - truth)[inner][(height > 0)[inner]]
    assert np.abs(error).max() < 0.45 * max(spacing)
    assert np.sqrt(np.mean(error**2)) < 0.15 * max(spacing)


def test_spherical_shell() -> None:
    x = np.indices((41, 41, 41)) - 20
    r = np.linalg.norm(x, axis=0)
    domain = (r > 6.3) & (r < 18)
    T = vk.travel_time(domain, r <= 6.3)
    error = (T - (r - 6.3))[domain]
    assert np.sqrt(np.mean(error**2)) < 0.25
    assert np.abs(error).max() < 0.8


def test_two_speeds_refract(ops: ModuleType) -> None:
    domain = np.ones((6, 4, 12), bool)
    sources = nothing(domain)
    sources[:, :, 0] = True
    speed = np.where(np.arange(12) < 6, 2.0, 0.5) * np.ones(domain.shape)
    T = ops.travel_time(domain, sources, speed=speed, order=1, start="centres")
    expected = np.concatenate([np.arange(6) / 2, 2.5 + (np.arange(6) + 1) / 0.5])
    np.testing.assert_allclose(T, np.broadcast_to(expected, T.shape), rtol=1e-6)  # the time of a voxel is its own
    half_way = np.concatenate([np.arange(6) / 2, 3.75 + np.arange(6) / 0.5])  # the speed changes between voxels
    T = ops.travel_time(domain, sources, speed=speed)
    np.testing.assert_allclose(T, np.broadcast_to(half_way, T.shape), atol=0.3)


def test_speed_scales_time(ops: ModuleType) -> None:
    labels, sources = rough_scene()
    T = ops.travel_time(labels, sources)
    assert_same(ops.travel_time(labels, sources, speed=4), T / 4, atol=1e-6)
    assert_same(ops.travel_time(labels, sources, speed=np.full(labels.shape, 4.0)), T / 4, atol=1e-6)
    assert_same(ops.travel_time(labels, sources, speed=np.ones(labels.shape, np.int16)), T, atol=1e-6)


def ball_errors(balls) -> tuple[float, np.ndarray]:
    """Root mean square over all balls, and the worst error of each."""
    errors = [vk.travel_time(domain, sources)[domain] - truth for domain, sources, truth in balls]
    return np.sqrt(np.mean([np.mean(e**2) for e in errors])), np.array([np.abs(e).max() for e in errors])


def test_capped_balls_against_smooth_geometry() -> None:
    """Measured: rms 0.147, worst 0.999 voxel; on balls of other seeds, radii and caps rms 0.145 to 0.165, worst 1.31.

    benchmarks/bench_eikonal.py has scikit-fmm's.
    """
    rms, worst = ball_errors(capped_balls())
    assert rms <= 0.16
    assert np.quantile(worst, 0.9) <= 0.9
    assert worst.max() <= 1.0


def test_small_caps_against_smooth_geometry() -> None:
    """Measured: rms 0.24, worst 1.08 voxel.

    The source may end anywhere in the last voxel: where it ends half-way, already, rms 0.21 and worst 0.67.
    """
    rms, worst = ball_errors(capped_balls((12, 20, 26, 40), (0.8,)))
    assert rms <= 0.25
    assert worst.max() <= 1.2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flat_face_is_exact_below_an_overhanging_source(axis: int) -> None:
    """A flat face is exact at its rim below an overhanging source, too."""
    domain = np.zeros((11, 13, 13), bool)
    domain[6:] = True
    sources = nothing(domain)
    sources[5, 4:9, 4:9], sources[3:5, 2:11, 2:11] = True, True
    T = np.moveaxis(vk.travel_time(np.moveaxis(domain, 0, axis), np.moveaxis(sources, 0, axis)), axis, 0)
    assert (T[6][sources[5]] == 0.5).all()
    assert (T[6][~sources[5]] > 0.5).all()


def test_order_two_and_surface_are_what_makes_balls_accurate() -> None:
    domain, sources, truth = capped_ball(20, (0.3, 1, 0.5), 0.0, (0.2, -0.1, 0.4))
    rms = {
        (start, order): np.sqrt(
            np.mean((vk.travel_time(domain, sources, start=start, order=order)[domain] - truth) ** 2)
        )
        for start in STARTS
        for order in (1, 2)
    }
    assert rms["surface", 2] < 0.2
    assert rms["surface", 2] == min(rms.values())
    assert rms["faces", 2] > 2 * rms["surface", 2]  # protruding voxels win


# ---- other libraries ------------------------------------------------------------------------------------------------


def fast_marching(
    domain: np.ndarray, zero: np.ndarray, order: int, dx: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> np.ndarray:
    phi = np.ma.MaskedArray(np.where(zero, 0.0, 1.0), ~domain)
    return np.ma.filled(skfmm.travel_time(phi, np.ones(domain.shape), dx=list(dx), order=order), np.nan)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.7)])
def test_order_one_equals_scikit_fmm(ops: ModuleType, spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(3)
    domain = ndimage.gaussian_filter(rng.normal(size=(12, 13, 11)), 1) > -0.15
    domain = ndimage.label(domain)[0] == 1
    sources = domain & (rng.random(domain.shape) < 0.004)
    T = ops.travel_time(domain, sources, order=1, start="centres", spacing=spacing)
    np.testing.assert_allclose(T[domain], fast_marching(domain, sources, 1, spacing)[domain], atol=1e-4)


def test_no_path_is_shorter_than_the_distance_transform() -> None:
    domain = np.ones((20, 21, 22), bool)
    domain[:2] = False
    sources = nothing(domain)
    sources[1, 3:9, 4:12] = True
    lower = ndimage.distance_transform_edt(~sources) - np.sqrt(0.75)
    for start in STARTS:
        T = vk.travel_time(domain, sources, start=start)
        assert (T[domain] >= 0.99 * lower[domain] - 0.05).all()
    wall = domain.copy()
    wall[10, :18] = False
    assert (vk.travel_time(wall, sources)[wall] >= vk.travel_time(domain, sources)[wall] - 0.02).all()


# ---- the equation, and the reference --------------------------------------------------------------------------------


def residual(T: np.ndarray, domain: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Sum of ((T - earlier neighbour) / h)^2 - 1."""
    padded = np.pad(np.where(domain, T, np.inf), 1, constant_values=np.inf)
    total = np.zeros(T.shape)
    for axis, h in enumerate(spacing):
        near = [np.roll(padded, s, axis)[1:-1, 1:-1, 1:-1] for s in (-1, 1)]
        with np.errstate(invalid="ignore"):
            total += np.maximum((T - np.minimum(*near)) / h, 0) ** 2
    return total - 1


def test_order_one_solves_the_upwind_equation(ops: ModuleType) -> None:
    labels, sources = rough_scene(4)
    domain = labels == 1
    T = ops.travel_time(domain, sources, order=1, start="centres", spacing=(1, 2, 0.5))
    touching = sources | ndimage.binary_dilation(sources & ~domain, CROSS)
    free = domain & np.isfinite(T) & ~touching
    assert np.abs(residual(T, domain, (1, 2, 0.5))[free]).max() < 1e-4


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("start", STARTS)
def test_equals_the_reference(start: str, order: int) -> None:
    for seed, spacing in ((0, (1.0, 1.0, 1.0)), (1, (2.0, 1.0, 0.7))):
        labels, sources = rough_scene(seed)
        for speed in (None, np.where(np.indices(labels.shape)[1] > 5, 2.0, 0.7)):
            options = {"spacing": spacing, "speed": speed, "start": start, "order": order}
            assert_same(vk.travel_time(labels, sources, **options), reference.travel_time(labels, sources, **options))


@given(st.integers(0, 10_000), st.tuples(*[st.integers(1, 6)] * 3), st.sampled_from(STARTS), st.sampled_from([1, 2]))
def test_equals_the_reference_on_noise(seed: int, shape: tuple[int, int, int], start: str, order: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, shape).astype(np.uint16)
    sources = rng.random(shape) < 0.3
    a = vk.travel_time(labels, sources, start=start, order=order)
    assert_same(a, reference.travel_time(labels, sources, start=start, order=order))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("start", STARTS)
def test_every_device_finds_the_same_times(ops: ModuleType, start: str, order: int) -> None:
    """Volumes of several tiles with labels, walls, holes and sources everywhere; the reference is compared above."""
    if ops in (reference, vk.eikonal):
        pytest.skip("compared with itself, or elsewhere")
    for n, spacing, interfaces, latest in ((18, (1, 1, 1), False, np.inf), (10, (2, 1, 0.7), True, 6.0)):
        labels, sources = rough_scene(n, n)
        rough = np.random.default_rng(n).uniform(0.5, 2.0, labels.shape)
        for speed in (None, rough, np.round(rough)):
            options = {"start": start, "order": order, "spacing": spacing, "speed": speed}
            options |= {"interfaces": interfaces, "max_time": latest}
            found, expected = (module.travel_time(labels, sources, **options) for module in (ops, vk))
            np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
            np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
            there = np.isfinite(expected)
            apart = np.abs(found[there] - expected[there])
            assert (apart <= np.maximum(1e-3 * min(spacing), 1e-5 * expected[there])).all()


def test_rounding_does_not_choose(ops: ModuleType) -> None:
    """Ties: a second voxel behind the first that is as early; a rim that lies as far along one axis as along the other.

    Where nothing decides between such equals, devices that round in different ways differ by 0.06 and 0.12 voxel.
    """
    random = np.random.default_rng(3)
    place = np.indices((30, 30, 30))
    labels = np.zeros((30, 30, 30), np.int32)
    for ball in range(1, 5):
        middle, radius = random.uniform(5, 25, 3), random.uniform(5, 10)
        away = np.linalg.norm(place.T - middle, axis=-1).T
        labels[(away < radius) & (labels == 0)] = ball
    sources = (ndimage.gaussian_filter(random.normal(size=labels.shape), 2) > 0) & (labels == 0)
    if ops not in (reference, vk.eikonal):
        found, expected = (module.travel_time(labels, sources, start="centres") for module in (ops, vk))
        assert_same(found, expected)
    random = np.random.default_rng(20)
    shape = tuple(random.integers(5, 10, 3))
    domain, sources = random.random(shape) < random.uniform(0.6, 0.95), random.random(shape) < 0.02
    assert_same(ops.travel_time(domain, sources), reference.travel_time(domain, sources))


# ---- no step is too long --------------------------------------------------------------------------------------------


def longest_step(
    T: np.ndarray, labels: np.ndarray, spacing: tuple[float, ...], speed: np.ndarray | float = 1.0
) -> float:
    """The longest step from a reached voxel to one of its label beside it, in the time that a step takes there."""
    pace, longest = np.broadcast_to(speed, T.shape), 0.0
    for axis, h in enumerate(spacing):
        for side in (slice(None), slice(None, None, -1)):
            late, early, own, other, v = (np.moveaxis(a, axis, 0)[side] for a in (T, T, labels, labels, pace))
            late, early, own, other, v = late[1:], early[:-1], own[1:], other[:-1], v[1:]
            there = (own == other) & (own > 0) & np.isfinite(early)
            longest = max(longest, float(((late[there] - early[there]) * v[there] / h).max(initial=0.0)))
    return longest


def holes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A small block full of holes, and a few sources."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(3, 9, 3))
    return random.random(shape) < random.uniform(0.5, 0.95), random.random(shape) < 0.03


@pytest.mark.parametrize("most", [cpu.LARGE, 0])
@pytest.mark.parametrize(
    ("seed", "start", "spacing", "was"),
    [
        (438, "surface", (2, 1, 0.7), 1.62),
        (1976, "surface", (2, 1, 0.7), 1.49),
        (2248, "faces", (2, 1, 0.7), 1.71),
        (2344, "surface", (1, 1, 1), 1.37),
    ],
)
def test_no_step_is_too_long(
    monkeypatch: pytest.MonkeyPatch,
    ops: ModuleType,
    seed: int,
    start: str,
    spacing: tuple[float, float, float],
    was: float,
    most: int,
) -> None:
    """Order 2 works in the order of order 1: a voxel that comes out earlier than a neighbour then had no say there.

    `was` : how long the longest step is when nothing is done about it.
    """
    if most == 0 and ops is not vk.eikonal:
        pytest.skip("only the processors have two ways")
    monkeypatch.setattr(cpu, "LARGE", most)
    monkeypatch.setattr(cpu_large, "TILE", 1)
    domain, sources = holes(seed)
    options = {"start": start, "spacing": spacing}
    expected = reference.travel_time(domain, sources, **options)
    for rim in range(4 if ops is not reference else 1):  # other voxels lie where blocks and tiles end
        labels, beside = np.pad(domain, rim), np.pad(sources, rim)
        T = ops.travel_time(labels, beside, **options)
        assert longest_step(T, labels, spacing) <= 1 + 1e-4 < was
        assert_same(T, np.pad(expected, rim, constant_values=np.nan))
        latest = float(np.median(T[np.isfinite(T)]))
        cut = ops.travel_time(labels, beside, **options, max_time=latest)
        np.testing.assert_array_equal(cut, np.where(latest < T, np.float32(np.inf), T))


@given(
    seed=st.integers(0, 10_000),
    start=st.sampled_from(STARTS),
    order=st.sampled_from([1, 2]),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (2.0, 1.0, 0.7), (0.3, 0.5, 0.4)]),
    speed=st.sampled_from([1.0, 4.0, "field"]),
)
def test_no_step_is_too_long_anywhere(
    ops: ModuleType, seed: int, start: str, order: int, spacing: tuple[float, float, float], speed: float | str
) -> None:
    """Within a label. Where the speed varies, order 1 takes a step by the voxel's own, order 2 by the lowest."""
    random = np.random.default_rng(seed)
    domain, sources = holes(seed)
    labels = domain * random.integers(1, 3, (1, 1, domain.shape[2]))
    pace = random.choice([0.5, 1.0, 2.0], domain.shape) if speed == "field" else speed
    T = ops.travel_time(labels, sources, start=start, order=order, spacing=spacing, speed=pace)
    slowest = pace if order == 1 else np.min(pace)
    assert longest_step(T, labels, spacing, slowest) <= 1 + (1e-4 if speed != "field" else 2e-4)


@pytest.mark.parametrize(
    ("seed", "start", "was"), [(1190, "faces", 1.62), (2232, "surface", 1.52), (2087, "surface", 1.44)]
)
def test_no_step_is_too_long_where_the_speed_varies(ops: ModuleType, seed: int, start: str, was: float) -> None:
    """Here, too, a step takes no longer than the slowest one, of speed 1."""
    domain, sources = holes(seed)
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(3, 9, 3))
    random.random(shape), random.uniform(), random.random(shape)  # that `holes` has drawn
    speed, spacing = random.choice([1.0, 2.0], shape), (2.0, 1.0, 0.7)
    options = {"start": start, "spacing": spacing, "speed": speed}
    T = ops.travel_time(domain, sources, **options)
    assert longest_step(T, domain, spacing) <= 1 + 2e-4 < was
    assert_same(T, reference.travel_time(domain, sources, **options))


def test_the_second_difference_makes_up_for_a_change_of_speed(ops: ModuleType) -> None:
    """The step across a change from slow to fast is a sixth too short, those behind it are longer than a fast step."""
    domain = np.ones((5, 4, 12), bool)
    sources = nothing(domain)
    sources[:, :, 0] = True
    speed = np.where(np.arange(12) < 6, 0.5, 2.0) * np.ones(domain.shape)
    T = ops.travel_time(domain, sources, speed=speed)
    exact = np.concatenate([np.arange(6) / 0.5, 11.25 + np.arange(6) / 2])
    np.testing.assert_allclose(T[..., -1], exact[-1], atol=0.01)
    assert (np.diff(T[2, 2, 6:]) > 0.5).all()


# ---- metamorphic ----------------------------------------------------------------------------------------------------


def test_twice_the_spacing_is_twice_the_time(ops: ModuleType) -> None:
    labels, sources = rough_scene(5)
    for start in STARTS:
        T = ops.travel_time(labels, sources, spacing=(1, 2, 0.5), start=start)
        np.testing.assert_array_equal(ops.travel_time(labels, sources, spacing=(2, 4, 1), start=start), 2 * T)


@pytest.mark.parametrize("order", [1, 2])
def test_flips_and_transposes(ops: ModuleType, order: int) -> None:
    labels, sources = rough_scene(6)
    T = ops.travel_time(labels, sources, spacing=(1, 2, 0.5), order=order)
    for axis in range(3):
        flipped = ops.travel_time(np.flip(labels, axis), np.flip(sources, axis), spacing=(1, 2, 0.5), order=order)
        assert_same(np.flip(flipped, axis), T)
    turned = ops.travel_time(labels.T, sources.T, spacing=(0.5, 2, 1), order=order)
    assert_same(turned.T, T)


def test_union_of_sources_is_the_earlier_of_both(ops: ModuleType) -> None:
    domain = np.ones((5, 6, 15), bool)
    left, right = nothing(domain), nothing(domain)
    left[2, 3, 1] = right[3, 1, 13] = True
    a, b, both = (ops.travel_time(domain, s, order=1) for s in (left, right, left | right))
    earlier = np.minimum(a, b)
    assert (both <= earlier).all()  # where the fronts meet, an update may use both
    far = np.abs(a - b) > 3
    np.testing.assert_array_equal(both[far], earlier[far])
    assert (earlier - both).max() < 0.7


def test_more_sources_and_more_domain_are_never_later() -> None:
    labels, sources = rough_scene(7, 20)
    T = vk.travel_time(labels, sources, order=1, start="faces")
    more = sources | (np.random.default_rng(0).random(labels.shape) < 0.01)
    assert (vk.travel_time(labels, more, order=1, start="faces")[labels > 0] <= T[labels > 0]).all()
    wide = vk.travel_time(labels > 0, sources, order=1, start="faces")
    assert (wide[labels > 0] <= T[labels > 0]).all()
    assert (wide[labels > 0] < T[labels > 0]).any()


def test_labels_are_barriers(ops: ModuleType) -> None:
    labels = np.ones((4, 5, 8), np.uint32)
    labels[:, :, 4:] = 2**32 - 1
    sources = nothing(labels)
    sources[1, 1, 1] = True
    T = ops.travel_time(labels, sources)
    assert np.isinf(T[:, :, 4:]).all()
    assert np.isfinite(T[:, :, :4]).all()
    np.testing.assert_array_equal(T[:, :, :4], ops.travel_time(labels == 1, sources)[:, :, :4])
    assert np.isfinite(ops.travel_time(labels > 0, sources)).all()
    both = sources.copy()
    both[2, 2, 6] = True
    T = ops.travel_time(labels, both)
    for value in (1, 2**32 - 1):
        part = labels == value
        np.testing.assert_array_equal(T[part], ops.travel_time(part, both & part)[part])
    renumbered = np.where(labels == 1, 70_000, 3).astype(np.int64)
    np.testing.assert_array_equal(ops.travel_time(renumbered, both), T)
    np.testing.assert_array_equal(ops.travel_time(renumbered + 2**40, both), T)


# ---- worst cases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
def test_diagonal_corridor_of_one_voxel(ops: ModuleType, order: int) -> None:
    n = 7
    domain = np.zeros((3, n, n), bool)
    for i in range(n):
        domain[1, i, i] = True
        domain[1, i, min(i + 1, n - 1)] = True
    sources = nothing(domain)
    sources[1, 0, 0] = True
    T = ops.travel_time(domain, sources, order=order, start="centres")
    assert np.isfinite(T[domain]).all()
    assert T[1, n - 1, n - 1] == pytest.approx(2 * (n - 1)) if order == 1 else T[1, n - 1, n - 1] <= 2 * (n - 1)
    assert T[1, n - 1, n - 1] >= np.sqrt(2) * (n - 1)
    domain[1, range(n - 1), range(1, n)] = False  # 26-connected only: no way
    assert np.isinf(ops.travel_time(domain, sources, order=order)[1, 1:, 1:][domain[1, 1:, 1:]]).all()


def test_checkerboard_connects_nothing(ops: ModuleType) -> None:
    domain = np.indices((5, 6, 7)).sum(axis=0) % 2 == 0
    sources = nothing(domain)
    sources[0, 0, 0] = sources[2, 3, 2] = True  # one inside, one outside
    T = ops.travel_time(domain, sources)
    assert T[0, 0, 0] == 0
    reached = np.argwhere(np.isfinite(T)).tolist()
    assert sorted(reached) == sorted([[0, 0, 0], [1, 3, 2], [3, 3, 2], [2, 2, 2], [2, 4, 2], [2, 3, 1], [2, 3, 3]])
    assert (T[np.isfinite(T)][1:] == 0.5).all()


@pytest.mark.parametrize("order", [1, 2])
def test_labyrinth(ops: ModuleType, order: int) -> None:
    domain = np.ones((1, 9, 12), bool)
    for row in (1, 3, 5, 7):
        domain[0, row, slice(0, 11) if row % 4 == 1 else slice(1, 12)] = False
    sources = nothing(domain)
    sources[0, 0, 0] = True
    T = ops.travel_time(domain, sources, order=order, start="centres")
    end = 5 * 11 + 4 * 2
    assert 0.9 * end <= T[0, 8, 11] <= end
    assert T[0, 8, 11] == T.max(initial=0, where=domain)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("most", [cpu.LARGE, 500])
def test_a_long_way(monkeypatch: pytest.MonkeyPatch, ops: ModuleType, order: int, most: int) -> None:
    """Corridors to and fro, 340 steps in all, in one piece and in tiles: what is far waits for what is near."""
    monkeypatch.setattr(cpu, "LARGE", most)
    monkeypatch.setattr(cpu_large, "TILE", 3)
    domain = np.ones((2, 26, 40), bool)
    for n, row in enumerate(range(2, 26, 3)):
        domain[:, row, slice(0, 38) if n % 2 == 0 else slice(2, 40)] = False
    sources = nothing(domain)
    sources[0, 0, 0] = True
    T = ops.travel_time(domain, sources, order=order)
    assert 300 < T[1, 25, 39] < 360
    expected = reference.travel_time(domain, sources, order=order)  # in 64 bits; 340 additions in 32 bits are not
    np.testing.assert_allclose(T, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("order", [1, 2])
def test_speed_contrast_of_a_million(ops: ModuleType, order: int) -> None:
    rng = np.random.default_rng(2)
    domain = np.ones((6, 7, 8), bool)
    sources = nothing(domain)
    sources[0, 0, 0] = True
    speed = np.where(rng.random(domain.shape) < 0.5, 1e-3, 1e3)
    T = ops.travel_time(domain, sources, speed=speed, order=order)
    assert np.isfinite(T).all()
    assert (T >= 0).all()
    first = ops.travel_time(domain, sources, speed=speed, order=1)
    assert (2 * first + 1e-3 >= T).all()
    assert (first / 1.5 - 1e-3 <= T).all()


def test_small_shapes(ops: ModuleType) -> None:
    for shape in ((1, 1, 1), (1, 1, 7), (7, 1, 1), (1, 7, 1), (2, 1, 5)):
        domain = np.ones(shape, bool)
        T = ops.travel_time(domain, domain)
        assert (T == 0).all()
        sources = nothing(domain)
        sources[0, 0, 0] = True
        T = ops.travel_time(domain, sources)
        if max(shape) == sum(shape) - 2:
            np.testing.assert_allclose(T.ravel(), np.arange(max(shape)), rtol=1e-6)
        domain[0, 0, 0] = False
        T = ops.travel_time(domain, sources)
        if max(shape) == sum(shape) - 2:
            np.testing.assert_allclose(T.ravel()[1:], np.arange(max(shape) - 1) + 0.5, rtol=1e-6)
        assert np.isnan(T[0, 0, 0])


def test_empty(ops: ModuleType) -> None:
    domain = np.ones((3, 4, 5), bool)
    assert np.isinf(ops.travel_time(domain, nothing(domain))).all()
    assert np.isnan(ops.travel_time(~domain, domain)).all()
    for shape in ((0, 4, 5), (3, 0, 5), (0, 0, 0)):
        assert ops.travel_time(np.ones(shape, bool), np.ones(shape, bool)).shape == shape


def test_a_straight_line_does_not_pass_a_wall(ops: ModuleType) -> None:
    domain = np.ones((4, 7, 7), bool)
    domain[:, 3, 1:] = False  # a thin wall, open at x = 0
    sources = nothing(domain)
    sources[1, 2, 5] = True
    for order in (1, 2):
        T = ops.travel_time(domain, sources, order=order)
        assert T[1, 4, 5] > 10
        assert T[1, 1, 5] == 1


# ---- options, inputs, output -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
def test_max_time_cuts_off_and_changes_nothing_else(ops: ModuleType, order: int) -> None:
    labels, sources = rough_scene(8)
    for start in STARTS if ops is not reference else ("surface",):
        T = ops.travel_time(labels, sources, order=order, start=start)
        for latest in (0.0, 0.5, 2.2):
            cut = ops.travel_time(labels, sources, order=order, start=start, max_time=latest)
            np.testing.assert_array_equal(cut, np.where(latest < T, np.float32(np.inf), T))


def test_layouts_and_byte_orders(ops: ModuleType) -> None:
    labels, sources = rough_scene(9)
    speed = np.random.default_rng(0).uniform(1, 2, labels.shape)
    T = ops.travel_time(labels, sources, speed=speed)
    wide, wide_sources = np.zeros((8, 18, 7), np.int32), np.zeros((8, 18, 7), bool)
    wide[:, ::2], wide_sources[:, ::2] = labels, sources
    for domain, source, pace in (
        (np.asfortranarray(labels), np.asfortranarray(sources), np.asfortranarray(speed)),
        (wide[:, ::2], wide_sources[:, ::2], speed.astype(">f8")),
        (labels.astype(">i2"), sources.astype(np.uint8), speed.astype(np.float32)),
        (labels.astype(np.uint8), sources.astype(">i4"), speed),
        (labels.astype(np.uint64), sources, speed),
    ):
        np.testing.assert_array_equal(ops.travel_time(domain, source, speed=pace), T)
    for array in (labels, sources, speed):
        array.flags.writeable = False
    np.testing.assert_array_equal(ops.travel_time(labels, sources, speed=speed), T)


def test_inputs_are_left_alone(ops: ModuleType) -> None:
    labels, sources = rough_scene(1)
    speed = np.random.default_rng(0).uniform(1, 2, labels.shape).astype(np.float32)
    copies = labels.copy(), sources.copy(), speed.copy()
    T = ops.travel_time(labels, sources, speed=speed)
    kept = T.copy()
    ops.trace_paths(T, np.argwhere(np.isfinite(T))[:3], domain=labels)
    for array, copy in zip((labels, sources, speed, T), (*copies, kept), strict=True):
        np.testing.assert_array_equal(array, copy)


def test_out_is_filled_and_returned(ops: ModuleType) -> None:
    labels, sources = rough_scene(2)
    out = np.full(labels.shape, -7, np.float32)
    assert ops.travel_time(labels, sources, out=out) is out
    np.testing.assert_array_equal(out, ops.travel_time(labels, sources))


def test_threads_change_no_bit() -> None:
    labels, sources = rough_scene(0, 40)
    results = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            results.append(vk.travel_time(labels, sources).tobytes())
        finally:
            numba.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("options", [{"order": 1}, {}, {"spacing": (2, 1, 0.7)}, {"max_time": 5.0}, {"speed": True}])
def test_a_component_that_threads_share(monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    """Above `cpu.LARGE`, a component is solved in tiles, all threads on one; tiles are made small here.

    The order of work is another one than for a small component, which may show in the last bits of order 1; it does not
    depend on the number of threads.
    """
    labels, sources = rough_scene(3, 44)
    if options.get("speed"):
        options = {"speed": np.random.default_rng(0).uniform(0.5, 2, labels.shape)}
    alone = vk.travel_time(labels, sources, **options)
    monkeypatch.setattr(cpu, "LARGE", 500)
    monkeypatch.setattr(cpu_large, "TILE", 3)
    monkeypatch.setattr(eikonal, "SMALL", 0)
    shared = [vk.travel_time(labels, sources, **options)]
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        shared.append(vk.travel_time(labels, sources, **options))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(shared[0], shared[1])
    np.testing.assert_allclose(shared[0], alone, rtol=1e-6)
    corner = np.zeros((13, 30, 17), bool)
    corner[0, 0, 0] = True  # the domain reaches every border of the volume
    to_all = vk.travel_time(np.ones(corner.shape, bool), corner, spacing=options.get("spacing", (1, 1, 1)))
    assert np.isfinite(to_all).all()


@pytest.mark.parametrize("limit", [eikonal.INDEX_LIMIT, 3])
@pytest.mark.parametrize("width", [1, 2, 63, 64, 65, 66, 128, 129, 200])
def test_runs_and_their_components(monkeypatch: pytest.MonkeyPatch, width: int, limit: int) -> None:
    """The runs of the domain, painted with the numbers of their components, are what SciPy labels."""
    monkeypatch.setattr(eikonal, "INDEX_LIMIT", limit)
    monkeypatch.setattr(eikonal, "SLAB", 1)
    monkeypatch.setattr(eikonal, "PLACE_LIMIT", min(limit, eikonal.PLACE_LIMIT))
    monkeypatch.setattr(batches, "LEAST", min(limit, batches.LEAST))
    monkeypatch.setattr(batches, "VOXELS", 8)
    rng = np.random.default_rng(width)
    for share in (0.0, 0.3, 0.7, 1.0):
        domain = rng.random((7, 5, width)) < share
        many, runs, _ = eikonal.split(domain, lambda f, *items: list(map(f, *items)), 2)
        first, left, right, number = runs
        painted = np.zeros((35, width), np.int64)
        for row in range(35):
            for n in range(first[row], first[row + 1]):
                painted[row, left[n] : right[n]] = number[n]
        expected, count = ndimage.label(domain)
        assert many == count
        np.testing.assert_array_equal(painted.reshape(domain.shape), expected)
        in_hand = batches.Batches(domain.shape, runs, count)
        assert [before for before, *_ in in_hand] == list(range(0, max(count, 1), in_hand.size))
        boxes = np.concatenate([boxes for _, boxes, *_ in in_hand])
        found = [tuple(slice(*box[2 * axis : 2 * axis + 2].tolist()) for axis in range(3)) for box in boxes]
        assert found == ndimage.find_objects(expected)
        assert boxes[:, 6].tolist() == np.bincount(expected.ravel(), minlength=count + 1)[1:].tolist()
    labels = np.repeat([[[3, 3, 5, 5, 0, 5]]], 2, axis=1)
    assert eikonal.split(labels, lambda f, *items: list(map(f, *items)), 1)[0] == 3


def test_components_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many components are in hand at a time, the times are the same bits; two of them are large here."""
    monkeypatch.setattr(cpu, "LARGE", 500)
    rng = np.random.default_rng(3)
    domain = rng.random((12, 20, 40)) < 0.35
    domain[:, 9] = domain[:, 11] = False
    domain[:, :9, :20] = domain[:, 12:, 20:] = True
    sources = ~domain & (rng.random(domain.shape) < 0.1)
    T = vk.travel_time(domain, sources)
    monkeypatch.setattr(batches, "LEAST", 5)
    monkeypatch.setattr(batches, "VOXELS", domain.size)
    np.testing.assert_array_equal(vk.travel_time(domain, sources), T)


def test_spare_room() -> None:
    """Pieces lie in the array, beside one another, as long as there is room; what is too large lies elsewhere."""
    array = np.empty((10, 16), np.float32)[1:]
    room = spare.Spare(array)
    large, some, more = room.take(200, np.uint64), room.take(5, np.uint64), room.take(50, np.float32)
    rest = [room.take(1, np.uint8) for _ in range(9)]
    assert [each.size for each in (large, some, more)] == [200, 5, 50]
    assert [np.shares_memory(array, each) for each in (large, some, more)] == [False, True, True]
    assert not np.shares_memory(array, rest[-1])
    assert all(each.ctypes.data % spare.LINE == 0 for each in (some, more))
    pieces = [some, more, *rest]
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(pieces, 2))
    assert np.shares_memory(spare.Spare(array[:0]).take(0, np.uint8), array) is False


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_threads_share_calls(workers: int) -> None:
    """Results come in the order of the calls, whoever makes them; an error of any of them arrives."""
    with ThreadPoolExecutor(workers) as threads:
        powers = eikonal.in_threads(threads, workers, pow, range(9), [2] * 9)
        assert powers == [n * n for n in range(9)]
        assert eikonal.in_threads(threads, workers, pow, [], []) == []
        for wrong in (0, 8):
            with pytest.raises(ZeroDivisionError):
                eikonal.in_threads(threads, workers, divmod, [1] * 9, [n - wrong for n in range(9)])


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("work", [[], [5], [0, 0, 0], [9, 1, 1, 1], [1] * 1000, [1000, *([1] * 300)]])
def test_shares_of_components(work: list[int], workers: int) -> None:
    """Every component is in one share; no share after the first component is above a quarter of a worker's rest."""
    cuts = np.array(eikonal.queue_of(np.array(work, np.int64), workers))
    assert cuts[0] == 0
    assert cuts[-1] == len(work)
    assert (np.diff(cuts) > 0).all()
    total = np.append(0, np.cumsum(work))
    for first, last in itertools.pairwise(cuts):
        most = max((total[-1] - total[first]) // (4 * workers), total[-1] // (64 * workers), 1)
        assert total[last - 1] - total[first] < most


def test_runs_longer_than_a_word_and_slabs_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Components are found by runs of up to 64 voxels a word, in slabs: a snake through all rows is one of them."""
    monkeypatch.setattr(eikonal, "SMALL", 0)
    domain = np.zeros((9, 5, 140), bool)
    domain[::2, ::2] = True
    for z in range(9):
        domain[z, 1::4, -1] = domain[z, 3::4, 0] = z % 2 == 0
    domain[1::2, 0, 70] = True
    sources = nothing(domain)
    sources[0, 0, 0] = True
    T = vk.travel_time(domain, sources, order=1)
    assert np.isfinite(T[domain]).all()
    labels = ndimage.label(domain)[0]
    assert labels.max() == 1
    cut = domain.copy()
    cut[5, 0, 70] = False
    T = vk.travel_time(cut, sources, order=1)
    assert np.isfinite(T[:5][cut[:5]]).all()
    assert np.isinf(T[6:][cut[6:]]).all()


GOOD = np.ones((2, 3, 4), bool)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"domain": GOOD.tolist()}, TypeError, r"domain: must be a (NumPy|CuPy) array"),
        ({"domain": GOOD[0]}, ValueError, r"domain: must be \(Z, Y, X\)"),
        ({"domain": GOOD.astype(float)}, TypeError, r"domain: must be of an integer type"),
        ({"domain": -GOOD.astype(np.int8)}, ValueError, r"domain: must not hold negative values"),
        ({"domain": np.full((2, 3, 4), 2**63, np.uint64)}, ValueError, r"domain: must be below 2\*\*63; got 9223"),
        ({"sources": GOOD.astype(np.uint8) * 2}, TypeError, r"sources: must be bool"),
        ({"sources": GOOD[:1]}, ValueError, r"sources: must have the shape of domain"),
        ({"spacing": (1, 1)}, ValueError, r"spacing: must be three positive"),
        ({"order": 3}, ValueError, r"order: must be one of 1, 2; got 3"),
        ({"start": "edges"}, ValueError, r"start: must be one of 'surface', 'faces', 'centres'; got 'edges'"),
        ({"speed": 0}, ValueError, r"speed: must be a positive number or a positive \(Z, Y, X\) array; got 0"),
        ({"speed": "fast"}, ValueError, r"speed: must be a positive number or"),
        ({"speed": np.zeros((2, 3, 4))}, ValueError, r"speed: must be positive and finite inside the domain"),
        ({"speed": np.full((2, 3, 4), np.nan)}, ValueError, r"speed: must be positive and finite inside the domain"),
        ({"speed": np.ones((2, 3, 5))}, ValueError, r"speed: must have the shape of domain"),
        ({"speed": np.ones((2, 3, 4), complex)}, TypeError, r"speed: must be real numbers"),
        ({"max_time": -1}, ValueError, r"max_time: must be a number of 0 or more, or inf; got -1"),
        ({"max_time": np.nan}, ValueError, r"max_time: must be a number of 0 or more"),
        ({"out": np.empty((2, 3, 4))}, TypeError, r"out: must be a float32 array"),
        ({"out": np.empty((2, 3, 5), np.float32)}, ValueError, r"out: must have the shape of domain"),
        ({"out": np.empty((4, 3, 2), np.float32).T}, ValueError, r"out: must be writable and in C order"),
    ],
)
def test_bad_input(ops: ModuleType, change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.travel_time(**{"domain": GOOD, "sources": GOOD, **change})


def test_out_must_not_be_an_input(ops: ModuleType) -> None:
    speed = np.ones((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match=r"out: must not share memory with speed"):
        ops.travel_time(GOOD, GOOD, speed=speed, out=speed)


# ---- paths ----------------------------------------------------------------------------------------------------------


def lengths(paths: list[np.ndarray], spacing=(1, 1, 1)) -> np.ndarray:
    return np.array([np.linalg.norm(np.diff(p, axis=0) * spacing, axis=1).sum() for p in paths])


def assert_inside(paths: list[np.ndarray], domain: np.ndarray) -> None:
    for p in paths:
        along = np.concatenate([p[:-1] + (p[1:] - p[:-1]) * f for f in (0, 0.25, 0.5, 0.75)] + [p[-1:]])
        assert domain[tuple(np.floor(along + 0.5).astype(int).T)].all()


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 1, 0.5)])
def test_paths_to_a_point_are_straight(ops: ModuleType, spacing: tuple[float, float, float]) -> None:
    domain, sources, _ = point_in_box(21)
    T = vk.travel_time(domain, sources, spacing=spacing)
    starts = np.random.default_rng(0).integers(0, 21, (20, 3))
    paths = ops.trace_paths(T, starts, spacing=spacing)
    assert len(paths) == 20
    for start, path in zip(starts, paths, strict=True):
        assert path.dtype == np.float64
        assert path.shape[1] == 3
        np.testing.assert_array_equal(path[0], start)
        assert np.abs(path[-1] - 10).max() < 0.51
    direct = np.linalg.norm((starts - 10) * np.array(spacing), axis=1)
    np.testing.assert_allclose(lengths(paths, spacing), direct, rtol=0.03, atol=1.3 if ops is reference else 0.4)


@pytest.mark.parametrize("cap", [0.0, 0.8])
def test_paths_are_as_long_as_the_time_at_their_start(ops: ModuleType, cap: float) -> None:
    domain, sources, _ = capped_ball(16, (1, 0.3, 0.5), cap, (0, 0, 0))
    T = vk.travel_time(domain, sources)
    inside = np.argwhere(np.isfinite(T))
    starts = np.random.default_rng(0).permutation(inside)[: 400 if ops is not reference else 25]
    paths = ops.trace_paths(T, starts)
    assert_inside(paths, domain)
    at_start = T[tuple(starts.T)]
    excess = lengths(paths) - at_start
    assert abs(excess.mean()) < (0.6 if ops is reference else 0.3)  # the reference goes from voxel to voxel
    assert np.mean(np.abs(excess) < (1.2 if ops is reference else 0.5) + 0.03 * at_start) >= 0.95
    assert max(T[tuple(np.floor(p[-1] + 0.5).astype(int))] for p in paths) < 1.8


def test_paths_go_round_walls(ops: ModuleType) -> None:
    domain = np.ones((20, 18, 18), bool)
    domain[6, :14], domain[12, 4:] = False, False
    sources = nothing(domain)
    sources[0, 3, 9] = True
    T = vk.travel_time(domain, sources)
    starts = np.argwhere(np.isfinite(T))[:: 400 if ops is reference else 37]
    paths = ops.trace_paths(T, starts)
    assert_inside(paths, domain)
    at_start = T[tuple(starts.T)]
    excess = lengths(paths) - at_start
    assert (np.abs(excess) < 0.5 + 0.1 * at_start).all()
    assert abs(excess.mean()) < 0.04 * at_start.mean()


def test_paths_end_in_any_scene(ops: ModuleType) -> None:
    domain = np.random.default_rng(0).random((14, 14, 14)) > 0.35
    sources = nothing(domain)
    sources[:2] = True
    T = vk.travel_time(domain, sources)
    starts = np.argwhere(np.isfinite(T))[:: 60 if ops is reference else 5]
    paths = ops.trace_paths(T, starts, max_steps=2000)
    assert_inside(paths, domain)
    assert all(T[tuple(np.floor(p[-1] + 0.5).astype(int))] <= 1.5 for p in paths)


def test_paths_stay_in_their_label(ops: ModuleType) -> None:
    labels = np.ones((3, 5, 12), np.int32)
    labels[:, 2:] = 2
    sources = nothing(labels)
    sources[:, :2, 0] = sources[:, 2:, 11] = True
    T = vk.travel_time(labels, sources)
    (kept,) = ops.trace_paths(T, [(1, 1, 9)], domain=labels)
    assert np.abs(kept[-1, 2] - 0) < 0.6
    assert lengths([kept])[0] == pytest.approx(T[1, 1, 9], abs=0.5)
    (free,) = ops.trace_paths(T, [(1, 1, 9)])
    assert free[-1, 2] > 9


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 1, 0.7)])
def test_paths_have_the_same_bits_on_every_device(ops: ModuleType, spacing: tuple[float, float, float]) -> None:
    if ops is reference:
        pytest.skip("the reference goes from voxel to voxel")
    labels, sources = rough_scene(3, 10)
    T = vk.travel_time(labels, sources, spacing=spacing)
    rng = np.random.default_rng(0)
    starts = np.argwhere(np.isfinite(T)) + rng.uniform(-0.49, 0.49, (np.isfinite(T).sum(), 3))
    for domain in (labels, labels.astype(np.int64) << 40, None):
        paths = ops.trace_paths(T, starts, spacing=spacing, domain=domain)
        for path, expected in zip(paths, vk.trace_paths(T, starts, spacing=spacing, domain=domain), strict=True):
            np.testing.assert_array_equal(path, expected)


def test_path_options(ops: ModuleType) -> None:
    domain, sources, _ = point_in_box(11)
    T = vk.travel_time(domain, sources)
    assert ops.trace_paths(T, []) == []
    assert ops.trace_paths(T, np.empty((0, 3))) == []
    (path,) = ops.trace_paths(T, [(5.2, 4.9, 5.0)])
    np.testing.assert_array_equal(path[0], (5.2, 4.9, 5.0))
    if ops is not reference:  # the reference has no step
        fine, coarse = (len(ops.trace_paths(T, [(0, 1, 2)], step=s)[0]) for s in (np.float32(0.1), 1))
        assert fine > 5 * coarse
    start = np.array([(0, 1, 2)])
    with pytest.raises(
        ValueError, match=r"max_steps: must be enough for every path; got 1, too few from \[0.0, 1.0, 2.0\]"
    ):
        ops.trace_paths(T, start, max_steps=1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"T": [[[0.0]]]}, TypeError, r"T: must be a NumPy array"),
        ({"starts": [(0, 0)]}, ValueError, r"starts: must be \(N, 3\) numbers"),
        ({"starts": "corner"}, ValueError, r"starts: must be \(N, 3\) numbers"),
        ({"starts": [(0, 0, 1), (0, np.nan, 0)]}, ValueError, r"starts: must be finite; got \[0.0, nan, 0.0\]"),
        ({"starts": [(0, 0, 9)]}, ValueError, r"starts: must lie inside the volume of shape \(1, 1, 4\)"),
        ({"starts": [(0, 0, 2)]}, ValueError, r"starts: must lie inside the domain; got \[0.0, 0.0, 2.0\]"),
        ({"starts": [(0, 0, 3)]}, ValueError, r"starts: must be reached by the front"),
        ({"spacing": (1, 1, -1)}, ValueError, r"spacing: must be three positive"),
        ({"domain": np.ones((1, 1, 5), int)}, ValueError, r"domain: must have the shape of T"),
        ({"domain": np.full((1, 1, 4), 2**63, np.uint64)}, ValueError, r"domain: must be below 2\*\*63"),
        ({"step": 0}, ValueError, r"step: must be above 0 and at most 1; got 0"),
        ({"step": "long"}, ValueError, r"step: must be above 0"),
        ({"step": True}, ValueError, r"step: must be above 0"),
        ({"max_steps": 0}, ValueError, r"max_steps: must be a positive whole number; got 0"),
        ({"max_steps": 2.5}, ValueError, r"max_steps: must be a positive whole number; got 2.5"),
    ],
)
def test_bad_path_input(ops: ModuleType, change: dict, error: type[Exception], message: str) -> None:
    T = np.array([[[0.0, 1.0, np.nan, np.inf]]], np.float32)
    with pytest.raises(error, match=message):
        ops.trace_paths(**{"T": T, "starts": [(0, 0, 1)], **change})


@pytest.mark.parametrize("start", STARTS)
def test_interfaces_are_sources_of_both_labels(ops: ModuleType, start: str) -> None:
    """Two touching slabs: with `interfaces`, each is as if the other were a source outside; else nothing arrives."""
    labels = np.ones((6, 5, 5), np.int32)
    labels[3:] = 2
    nothing = np.zeros(labels.shape, bool)
    assert np.isinf(ops.travel_time(labels, nothing, start=start)).all()
    found = ops.travel_time(labels, nothing, start=start, interfaces=True)
    np.testing.assert_allclose(found[:, 2, 2], [2.5, 1.5, 0.5, 0.5, 1.5, 2.5], atol=1e-5)
    alone = ops.travel_time(labels == 1, labels == 2, start=start)
    np.testing.assert_array_equal(found[:3], alone[:3])


@given(scene=st.integers(0, 2**32 - 1), start=st.sampled_from(STARTS), order=st.sampled_from([1, 2]))
def test_interfaces_agree_with_one_piece_at_a_time(scene: int, start: str, order: int) -> None:
    rng = np.random.default_rng(scene)
    coarse = rng.integers(0, 3, (2, 3, 2)).astype(np.int32)
    labels = np.repeat(np.repeat(np.repeat(coarse, 3, 0), 2, 1), 3, 2)
    sources = rng.random(labels.shape) < 0.15
    options = {"start": start, "order": order, "interfaces": True}
    found, slow = (module.travel_time(labels, sources, **options) for module in (vk, reference))
    np.testing.assert_allclose(found, slow, atol=2e-5)
