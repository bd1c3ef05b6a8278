"""Gaping cracks: what is bridged, against SciPy's closing, on drawn scenes, and in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from benchmarks import accuracy_connected
from scipy import ndimage

import cbdetach
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.config import Segment
from cbdetach.segment import bridge_cracks, bridge_halo

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]
ONE: Spacing = (1.0, 1.0, 1.0)


def bridged(labels: Array, void: Array | None = None, *, width_um: float, spacing: Spacing = ONE) -> Array:
    result = labels.copy()
    bridge_cracks(result, labels == 0 if void is None else void, spacing=spacing, width_um=width_um)
    return result


def slit_block(width: int, depth: int = 12) -> tuple[Array, Array]:
    """A block with a slit of some voxels along x, open at its top, and where the slit is."""
    labels = np.zeros((28, 28, 30), np.int32)
    labels[4:24, 4:24, 4:26] = 1
    slit = np.zeros(labels.shape, bool)
    slit[4 : 4 + depth, 4:24, 14 : 14 + width] = True
    labels[slit] = 0
    return labels, slit


def rough_bodies(seed: int, shape: tuple[int, ...] = (30, 32, 34)) -> Array:
    """Three particles of any form, one in the hollows of the other: smoothed noise above a level, shared by another."""
    rng = np.random.default_rng(seed)
    noise, share = (ndimage.gaussian_filter(rng.normal(size=shape), s) for s in (1.5, 3.0))
    owner = 1 + np.digitize(share, np.quantile(share, (1 / 3, 2 / 3)))
    return np.where(noise > 0.5 * noise.std(), owner, 0).astype(np.int32)


# ---- closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 4, 5])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slits_up_to_the_width_are_filled_and_wider_ones_are_not(width: int, axis: int) -> None:
    labels, slit = slit_block(width)
    labels, slit = np.moveaxis(labels, 2, axis), np.moveaxis(slit, 2, axis)
    found = bridged(labels, width_um=4.0)
    inner = ndimage.binary_erosion(slit | (labels > 0), np.ones((7, 7, 7))) & slit  # a ball gets a little way in
    assert inner.any()
    assert (found[inner] == (1 if width <= 4 else 0)).all()
    assert (found[labels > 0] == labels[labels > 0]).all()
    if width > 4:
        np.testing.assert_array_equal(found, labels)


def test_widths_are_lengths() -> None:
    """A slit of four voxels of 0.2 um is bridged by 0.8 um, not by 0.5 um; across longer voxels likewise."""
    labels, slit = slit_block(4)
    for spacing in ((0.2, 0.2, 0.2), (0.4, 0.1, 0.2)):
        assert (bridged(labels, width_um=0.8, spacing=spacing)[slit] > 0).mean() > 0.7
        np.testing.assert_array_equal(bridged(labels, width_um=0.5, spacing=spacing), labels)


def test_convex_particles_and_shallow_hollows_stay_as_they_are() -> None:
    z, y, x = np.indices((40, 40, 60)) - 19.5
    labels = ((z**2 + y**2 + (x + 6) ** 2 <= 144) * 1 + (z**2 + y**2 + (x - 19) ** 2 <= 121) * 2).astype(np.int32)
    assert sorted(np.unique(labels)) == [0, 1, 2]  # the balls leave a gap of two voxels
    np.testing.assert_array_equal(bridged(labels, width_um=6.0), labels)
    shallow, _ = slit_block(3, depth=2)
    np.testing.assert_array_equal(bridged(shallow, width_um=4.0), shallow)
    np.testing.assert_array_equal(bridged(slit_block(3)[0], width_um=0.0), slit_block(3)[0])


def test_carbon_binder_in_a_crack_stays_outside() -> None:
    labels, slit = slit_block(3)
    void = labels == 0
    void[4:9] &= ~slit[4:9]
    found = bridged(labels, void, width_um=4.0)
    assert (found[4:9][slit[4:9]] == 0).all()
    assert (found[9:15][slit[9:15]] == 1).mean() > 0.7


# ---- brute force, and another library --------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [ONE, (0.5, 0.8, 1.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_against_scipy(spacing: Spacing, seed: int) -> None:
    """Closing by `scipy.ndimage`, particle by particle, and hollows told by their depth one by one."""
    labels = rough_bodies(seed)
    void = np.random.default_rng(seed).random(labels.shape) < 0.9
    width, radius = 3.0, 1.5 + min(spacing) / 2
    reach = [int(radius / s) for s in spacing]
    offsets = np.meshgrid(*(np.arange(-n, n + 1) * s for n, s in zip(reach, spacing, strict=True)), indexing="ij")
    ball = sum(o**2 for o in offsets) <= radius**2 + 1e-9
    claims = np.zeros(labels.shape, int)
    owner = np.zeros_like(labels)
    for label in range(1, labels.max() + 1):
        padded = np.pad(labels == label, 6)
        closed = ndimage.binary_closing(padded, ball)[6:-6, 6:-6, 6:-6] & void & (labels == 0)
        claims += closed
        owner[closed] = label
    new = claims == 1
    expected = np.where(new, owner, labels)
    surface = np.zeros(labels.shape, bool)
    for axis in range(3):
        a, b = np.moveaxis(surface, axis, 0), np.moveaxis(expected, axis, 0)
        apart = b[1:] != b[:-1]
        a[1:] |= apart
        a[:-1] |= apart
    depth = ndimage.distance_transform_edt(~surface, sampling=spacing) + min(spacing) / 2
    for label in range(1, labels.max() + 1):
        pieces, n = ndimage.label((expected == label) & void, np.ones((3, 3, 3)))
        for piece in range(1, n + 1):
            if depth[pieces == piece].max() <= radius * (1 + 1e-6):
                expected[(pieces == piece) & new] = 0
    assert (claims > 1).any()
    assert (expected != labels).any()
    np.testing.assert_array_equal(bridged(labels, void, width_um=width, spacing=spacing), expected)


# ---- what must not matter --------------------------------------------------------------------------------------------


def test_neither_axes_nor_numbers_matter() -> None:
    labels = rough_bodies(2)
    found = bridged(labels, width_um=3.0)
    for turn in ((1, 2, 0), (2, 1, 0)):
        np.testing.assert_array_equal(bridged(labels.transpose(turn), width_um=3.0), found.transpose(turn))
    other = np.array([0, 3, 1, 2], np.int32)
    np.testing.assert_array_equal(bridged(other[labels], width_um=3.0), other[found])


def test_a_window_with_its_halo_is_the_whole() -> None:
    labels = np.concatenate([np.pad(slit_block(w, d)[0], ((0, 2), (0, 0), (0, 0))) * n for n, w, d in
                             ((1, 3, 5), (2, 2, 8), (3, 4, 6))])  # fmt: skip
    whole = bridged(labels, width_um=3.0)
    assert (whole != labels).any()
    halo = bridge_halo(3.0, ONE)
    for z0 in range(0, len(labels), 15):
        w0, w1 = max(0, z0 - halo), min(len(labels), z0 + 15 + halo)
        part = bridged(labels[w0:w1], width_um=3.0)
        np.testing.assert_array_equal(part[z0 - w0 : z0 - w0 + 15], whole[z0 : z0 + 15])
    assert bridge_halo(0.0, ONE) == 0


# ---- in a run --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segmenter", ["watershed", "watershed2d"])
def test_bridge_um_is_an_option_of_a_run(segmenter: str, tmp_path: Path) -> None:
    """A ball with a slit of 1.5 um half through: damage of its particle if it is bridged, else outside."""
    z, y, x = np.indices((32, 32, 32)) - 15.5
    ball = z**2 + y**2 + x**2 <= 13**2
    slit = (np.abs(x) < 1.6) & (y < 0)
    phases = np.where(ball & ~slit, ACTIVE, np.where(z > 13, CBD, VOID)).astype(np.uint8)
    volume, cracks = [], []
    for bridge_um in (None, 2.5):
        wanted = {} if bridge_um is None else {"bridge_um": bridge_um}
        config = {"segment": {"close_um": 0.2, **wanted}, "report": {"gallery": 0}}
        with cbdetach.run(
            out=tmp_path / f"{bridge_um}",
            phases=phases,
            phase_values={"void": VOID, "cbd": CBD, "active": ACTIVE},
            voxel_size=0.5,
            segmenter=segmenter,
            slab=12,
            config=config,
        ) as run:
            assert len(run.table) == 1
            volume.append(float(run.table["volume_um3"].iloc[0]))
            cracks.append(float(run.table["crack_fraction"].iloc[0] + run.table["pore_fraction"].iloc[0]))
    assert volume[1] > 1.05 * volume[0]
    assert cracks[1] == pytest.approx((ball & slit).sum() / ball.sum(), rel=0.25)
    assert cracks[0] < 0.02


def test_no_crack_is_bridged_by_default() -> None:
    """docs/connected.md and docs/damage.md have the measurements."""
    assert Segment().bridge_um == 0


@pytest.mark.parametrize("leads", [True, False])
def test_what_the_measurement_behind_the_default_compares(leads: bool) -> None:
    """A cube on carbon/binder: a part of it is attached, which counts as connected where it leads to the side z0."""
    labels = np.zeros((24, 24, 24), np.int32)
    labels[8:16, 8:16, 8:16] = 1
    phases = np.where(labels > 0, ACTIVE, VOID).astype(np.uint8)
    phases[0 if leads else 4 : 8, 8:16, 8:16] = CBD
    plain, by_faces, by_corners = accuracy_connected.fractions(labels, phases, np.array([1]), ONE)[:, 0]
    assert plain == pytest.approx(5 / 6, abs=0.05)
    assert by_faces == by_corners == pytest.approx(plain if leads else 1.0)
