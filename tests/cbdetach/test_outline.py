"""Smoothed outlines: volume and contact stay, roughness goes, neighbours are left alone; what it does to ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.diffusion import contact_sources, diffusion_lengths
from cbdetach.outline import REACH, smooth_outline

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]
UNIT: Spacing = (1.0, 1.0, 1.0)


def ball(radius: float, *, noise: float = 0.0, seed: int = 0, shift: float = 0.0) -> tuple[Array, Array, Array]:
    """Labels of a ball whose surface has moved by `noise` voxels in each voxel; distance and height from its centre."""
    half = int(radius) + REACH + 2
    z, y, x = np.meshgrid(*[np.arange(-half, half + 1) - shift] * 3, indexing="ij")
    r = np.sqrt(z**2 + y**2 + x**2)
    moved = np.random.default_rng(seed).normal(0, noise, r.shape) if noise else 0.0
    return (r <= radius + moved).astype(np.int32), r, z


def ratio(labels: Array, phases: Array, label: int = 1, spacing: Spacing = UNIT, **options: Any) -> float:
    ids = np.array([label])
    return float(diffusion_lengths(labels, phases, ids, ids, spacing=spacing, **options).columns["contact_ratio"][0])


def coated(labels: Array, coat: Array) -> Array:
    return np.where(labels > 0, ACTIVE, np.where(coat, CBD, VOID)).astype(np.uint8)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("radius", [3.0, 9.3])
def test_the_volume_stays(radius: float, noise: float) -> None:
    labels, _, _ = ball(radius, noise=noise, shift=0.2)
    smooth, _ = smooth_outline(labels, 1, labels < 0, spacing=UNIT)
    assert abs(np.count_nonzero(smooth) - np.count_nonzero(labels)) <= 6  # ties: a ball is symmetric under exchange


def test_it_is_the_level_set_of_the_blurred_indicator() -> None:
    """Brute force: every voxel's weights summed, and as many of the highest taken as there were."""
    labels = np.zeros((20, 18, 16), np.int32)
    labels[6:13, 6:11, 5:9] = 1
    labels[13:15, 7, 6] = labels[6, 8, 7] = 1
    labels[6, 8, 7] = 0
    smooth, _ = smooth_outline(labels, 1, labels < 0, spacing=UNIT)
    kernel = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    share = np.zeros(labels.shape)
    for i, j, k in np.argwhere(labels == 1):
        z, y, x = (np.abs(np.arange(n) - c) for n, c in zip(labels.shape, (i, j, k), strict=True))
        weights = (np.where(d <= 5, kernel[np.minimum(5 + d, 10)], 0) for d in (z, y, x))
        a, b, c = weights
        share += a[:, None, None] * b[:, None] * c
    inside, outside = share[smooth], share[~smooth]
    assert inside.min() > outside.max() - 1e-5
    assert np.count_nonzero(smooth) == pytest.approx(np.count_nonzero(labels), abs=2)
    assert not smooth[14, 7, 6]  # the needle goes
    assert smooth[6, 8, 7]  # the dent is filled


@pytest.mark.parametrize("shape", ["plane", "ball"])
def test_smooth_surfaces_stay_where_they_are(shape: str) -> None:
    """A half space moves nowhere; of a ball's voxels one in a hundred changes."""
    labels, _, _ = ball(12)
    if shape == "plane":
        labels = np.zeros((20, 12, 12), np.int32)
        labels[:11] = 1
    smooth, _ = smooth_outline(labels, 1, labels < 0, spacing=UNIT)
    changed = np.count_nonzero(smooth != (labels == 1))
    assert changed == 0 if shape == "plane" else changed < 0.01 * np.count_nonzero(labels)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_contact_moves_with_the_surface(noise: float) -> None:
    labels, _, z = ball(12, noise=noise)
    sources = (labels == 0) & (z > 3)
    smooth, contact = smooth_outline(labels, 1, sources, spacing=UNIT)
    assert not (contact & smooth).any()
    shell = _faces_of(smooth)
    assert not (contact & ~shell).any()
    np.testing.assert_array_equal(contact[shell & (np.abs(z - 3) > 2)], (z > 3)[shell & (np.abs(z - 3) > 2)])


def _faces_of(body: Array) -> Array:
    padded = np.pad(body, 1)
    shifted = [np.roll(padded, s, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for s in (1, -1)]
    return np.any(shifted, axis=0) & ~body


def test_attached_all_round_stays_attached_all_round() -> None:
    labels, r, _ = ball(9, noise=0.4)
    sources = (labels == 0) & (r < 13)
    smooth, contact = smooth_outline(labels, 1, sources, spacing=UNIT)
    np.testing.assert_array_equal(contact, _faces_of(smooth))
    assert ratio(labels, coated(labels, r < 13)) == pytest.approx(1, abs=1e-6)


def test_noise_of_the_surface_does_not_change_the_ratio() -> None:
    """Half of a ball is covered: with the surface as it is noise would raise the ratio by 3 % and more."""
    plain, r, z = ball(13)
    rough, _, _ = ball(13, noise=0.25)
    expected = ratio(plain, coated(plain, (r < 17) & (z > 0)))
    assert ratio(rough, coated(rough, (r < 17) & (z > 0))) == pytest.approx(expected, rel=0.01)
    raw = []
    for labels in (plain, rough):
        ids, phases = np.array([1]), coated(labels, (r < 17) & (z > 0))
        half = diffusion_lengths(labels, phases, ids, ids, spacing=UNIT).columns["diffusion_length_mean_um"][0]
        everywhere = diffusion_lengths(labels, coated(labels, r < 17), ids, ids, spacing=UNIT)
        raw.append(half / everywhere.columns["diffusion_length_mean_um"][0])
    assert raw[1] > 1.02 * raw[0]


def test_a_particle_grows_into_no_other() -> None:
    """Two balls share a plane, with a dent beside it that is as near to the other one."""
    z, y, x = np.indices((22, 22, 36)) - np.array([11, 11, 0]).reshape(3, 1, 1, 1)
    labels = np.where(z**2 + y**2 + (x - 11) ** 2 <= 36, 1, np.where(z**2 + y**2 + (x - 22) ** 2 <= 36, 2, 0))
    for label in (1, 2):
        smooth, _ = smooth_outline(labels, label, labels < 0, spacing=UNIT)
        assert not (smooth & (labels == 3 - label)).any()
    one, two = (smooth_outline(labels, label, labels < 0, spacing=UNIT)[0] for label in (1, 2))
    assert not (one & two).any()


def test_faces_between_particles_are_no_contact() -> None:
    """A block of two particles, coated all round: the face between them stays without contact, but for its rim."""
    labels = np.zeros((30, 30, 34), np.int32)
    labels[8:22, 8:22, 8:17], labels[8:22, 8:22, 17:26] = 1, 2
    smooth, contact = smooth_outline(labels, 1, labels == 0, spacing=UNIT)
    assert not contact[11:19, 11:19, 17].any()
    np.testing.assert_array_equal(contact[:, :, :15], _faces_of(smooth)[:, :, :15])


def test_a_speck_of_contact_still_has_a_ratio() -> None:
    """One voxel of contact on the tip of a needle, which the smooth outline has not: the outline as it is serves."""
    labels, _, _ = ball(8)
    tip = labels.shape[0] // 2
    labels[tip + 9 : tip + 11, tip, tip] = 1
    speck = np.zeros(labels.shape, np.bool_)
    speck[tip + 11, tip, tip] = True
    smooth, contact = smooth_outline(labels, 1, speck, spacing=UNIT)
    assert not smooth[tip + 10, tip, tip]
    found = ratio(labels, coated(labels, speck))
    assert np.isfinite(found)
    assert found > 3
    assert not contact.any() or contact.sum() < 10


def test_the_ratio_does_not_depend_on_the_box_s_place() -> None:
    """Nor on what is far away, on the order of the axes, or on the voxel's unit."""
    labels, r, z = ball(7.4, noise=0.3)
    phases = coated(labels, (r < 11) & (z > 2))
    expected = ratio(labels, phases)
    padded = np.pad(labels, ((3, 6), (9, 1), (0, 4)))
    padded[0, 0] = 5
    assert ratio(padded, np.pad(phases, ((3, 6), (9, 1), (0, 4)))) == expected
    turned = ratio(np.moveaxis(labels, 0, 2).copy(), np.moveaxis(phases, 0, 2).copy())
    assert turned == pytest.approx(expected, rel=2e-3)
    assert ratio(labels, phases, spacing=(0.2, 0.2, 0.2)) == pytest.approx(expected, rel=1e-5)


def test_who_is_owned_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    z, y, x = np.indices((30, 30, 40))
    one = (z - 15) ** 2 + (y - 15) ** 2 + (x - 12) ** 2 <= 64
    two = ((z - 15) ** 2 + (y - 15) ** 2 + (x - 27) ** 2 <= 64) & ~one
    labels = one * 1 + two * 2
    labels[(rng.random(labels.shape) < 0.1) & _faces_of(labels > 0)] = 0
    phases = coated(labels, (z > 12))
    both = np.array([1, 2])
    found = diffusion_lengths(labels, phases, both, both, spacing=UNIT).columns["contact_ratio"]
    for row in (0, 1):
        alone = diffusion_lengths(labels, phases, both, both[row : row + 1], spacing=UNIT)
        assert alone.columns["contact_ratio"][0] == found[row]
    sources = contact_sources(labels, phases, spacing=UNIT)
    assert not smooth_outline(labels, 1, sources, spacing=UNIT)[0][labels == 2].any()
