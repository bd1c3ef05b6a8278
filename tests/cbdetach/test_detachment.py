"""Degree of detachment: balls with caps and shells of known area, drawn scenes, and every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import voxkernels as vk
from cbdetach import detachment
from cbdetach.arrays import expanded
from cbdetach.codes import ACTIVE, CBD, COLLECTOR, N_PHASES, VOID

UNIT = (1.0, 1.0, 1.0)
Array = npt.NDArray[Any]


def capped_ball(
    radius: float,
    covered: float,
    direction: tuple[float, float, float],
    shell: float,
    spacing: tuple[float, float, float] = UNIT,
    centre: Array | None = None,
) -> tuple[Array, Array]:
    """A ball of active material, whose cap towards `direction` (share `covered` of its surface) has a shell of CBD."""
    axis = np.array(direction) / np.linalg.norm(direction)
    half = [int(np.ceil((radius + shell) / s)) + 3 for s in spacing]
    grid = np.meshgrid(*[np.arange(-h, h + 1) * s for h, s in zip(half, spacing, strict=True)], indexing="ij")
    centre = np.array([0.21, -0.37, 0.13]) * spacing if centre is None else centre
    offset = [g - c for g, c in zip(grid, centre, strict=True)]
    r = np.sqrt(sum(o * o for o in offset))
    height = sum(a * o for a, o in zip(axis, offset, strict=True)) / np.maximum(r, 1e-9)
    labels = (r <= radius).astype(np.int32)
    phases = np.where(labels > 0, ACTIVE, np.where((r <= radius + shell) & (height >= 1 - 2 * covered), CBD, VOID))
    return labels, phases.astype(np.uint8)


@pytest.mark.parametrize("shell", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 1, 1), (1, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("covered", [0.25, 0.6])
def test_detached_fraction_of_a_capped_ball(
    shell: float, direction: tuple[float, float, float], covered: float
) -> None:
    rng = np.random.default_rng(1)
    detached = []
    for centre in rng.uniform(-0.5, 0.5, (12, 3)):  # where the rim falls between voxels is chance
        labels, phases = capped_ball(20.0, covered, direction, shell, centre=centre)
        columns = detachment.detachment_columns(detachment.surface_classes(labels, phases, spacing=UNIT), np.array([1]))
        detached.append(columns["detachment_fraction"][0])
        assert columns["surface_area_um2"][0] == pytest.approx(4 * np.pi * 20.0**2, rel=0.01)
        assert columns["contact_known_fraction"][0] == pytest.approx(1.0)
    assert np.mean(detached) == pytest.approx(1 - covered, abs=0.005)


def test_anisotropic_voxels() -> None:
    labels, phases = capped_ball(8.0, 0.4, (1, 2, 3), 1.5, spacing=(0.8, 0.5, 0.4))
    columns = detachment.detachment_columns(
        detachment.surface_classes(labels, phases, spacing=(0.8, 0.5, 0.4)), np.array([1])
    )
    assert columns["detachment_fraction"][0] == pytest.approx(0.6, abs=0.01)
    assert columns["surface_area_um2"][0] == pytest.approx(4 * np.pi * 8.0**2, rel=0.015)


def test_slabs_add_up_to_the_whole() -> None:
    labels, phases = capped_ball(9.0, 0.3, (1, 1, 0), 2.0)
    whole = detachment.surface_classes(labels, phases, spacing=UNIT)
    halo, shares = detachment.HALO, []
    for z0 in range(0, labels.shape[0], 5):
        z1 = min(z0 + 5, labels.shape[0])
        w0, w1 = max(0, z0 - halo), min(labels.shape[0], z1 + halo)
        shares.append(detachment.surface_classes(labels[w0:w1], phases[w0:w1], spacing=UNIT, core=(z0 - w0, z1 - w0)))
    merged = vk.merge_contacts(shares)
    np.testing.assert_allclose(merged.area, whole.area, rtol=1e-12)
    np.testing.assert_array_equal(merged.faces, whole.faces)


@pytest.fixture
def scene() -> tuple[Array, Array]:
    """Two cubes side by side: one touches CBD, the other unlabelled active material and the collector."""
    labels, phases = np.zeros((8, 8, 14), np.int32), np.zeros((8, 8, 14), np.uint8)
    labels[2:6, 2:6, 2:6], labels[2:6, 2:6, 6:10] = 4, 9
    phases[labels > 0] = ACTIVE
    phases[1, 2:6, 2:6] = CBD
    phases[6, 2:6, 6:10] = ACTIVE
    phases[1, 2:6, 6:10] = COLLECTOR
    return labels, phases


def columns_of(scene: tuple[Array, Array], **options: Any) -> dict[str, Array]:
    shares = detachment.surface_classes(*scene, spacing=UNIT, estimator="faces")
    return detachment.detachment_columns(shares, np.array([4, 9]), **options)


def test_every_surface_has_its_class(scene: tuple[Array, Array]) -> None:
    columns = columns_of(scene)
    assert columns["area_cbd_um2"].tolist() == [16, 0]
    assert columns["area_void_um2"].tolist() == [64, 48]
    assert columns["area_particle_um2"].tolist() == [16, 32]
    assert columns["area_other_um2"].tolist() == [0, 16]
    assert columns["surface_area_um2"].tolist() == [96, 96]
    assert columns["contact_known_fraction"].tolist() == [80 / 96, 0.5]
    assert columns["detachment_fraction"].tolist() == [0.8, 1.0]


def test_contact_with_particles_can_count_as_attached(scene: tuple[Array, Array]) -> None:
    assert columns_of(scene, particle_contact="attached")["detachment_fraction"].tolist() == [64 / 96, 48 / 80]


def test_crack_mouths_are_in_no_fraction(scene: tuple[Array, Array]) -> None:
    labels, phases = scene
    phases[3, 2, 3] = VOID
    columns = columns_of((labels, phases))
    assert columns["area_crack_mouth_um2"].tolist() == [1, 0]
    assert columns["area_void_um2"].tolist() == [63, 48]
    assert columns["surface_area_um2"].tolist() == [96, 96]


def test_unresolved_surface_is_counted_apart_and_in_full(scene: tuple[Array, Array]) -> None:
    labels, phases = scene
    unresolved = np.zeros(labels.shape, np.bool_)
    unresolved[1, 2:4, 2:6] = True
    shares = detachment.surface_classes(labels, phases, unresolved, spacing=UNIT, estimator="faces")
    columns = detachment.detachment_columns(shares, np.array([4, 9]))
    assert columns["unresolved_fraction"].tolist() == [8 / 80, 0.0]
    assert columns["detachment_fraction"].tolist() == [0.8, 1.0]


def test_a_particle_without_known_surface_has_no_fraction(scene: tuple[Array, Array]) -> None:
    columns = detachment.detachment_columns(
        detachment.surface_classes(*scene, spacing=UNIT, estimator="faces"), np.array([4, 9, 12])
    )
    assert np.isnan(columns["detachment_fraction"][2])
    assert columns["surface_area_um2"][2] == 0


def test_particles_follow_their_moved_surfaces(scene: tuple[Array, Array]) -> None:
    labels, phases = scene
    phases[3, 3, 3] = VOID  # a pore
    moved = phases.copy()
    moved[2:6, 2:6, 2:6] = VOID  # the first particle loses its upper layer,
    moved[3:6, 2:6, 2:6] = ACTIVE
    moved[3, 3, 3] = VOID
    moved[2:6, 2:6, 10] = ACTIVE  # the second gains a layer,
    moved[2:6, 2:6, 13] = ACTIVE  # and far away something becomes active
    near = expanded(labels, reach=1.5, spacing=UNIT)
    found = detachment.moved_particles(labels, phases, moved, near)
    assert (found == 4).sum() == 48
    assert (found[2] != 4).all()
    assert found[3, 3, 3] == 4
    assert (found == 9).sum() == 80
    assert (found[:, :, 13] == 0).all()


@pytest.mark.parametrize(("tolerance", "changed"), [(0.0, 0), (1.0, 1), (2.0, 2)])
def test_contact_tolerance_reaches_through_void(scene: tuple[Array, Array], tolerance: float, changed: int) -> None:
    labels, phases = scene
    attached = detachment.attach_within(
        labels, phases, tolerance, detachment.cbd_distance(phases, spacing=UNIT, reach_um=tolerance)
    )
    assert attached[1, 2 - changed, 3] == CBD
    assert (attached[labels > 0] == ACTIVE).all()
    assert (attached != phases).any() == (tolerance > 0)
    further = detachment.cbd_distance(phases, spacing=UNIT, reach_um=3.0)
    np.testing.assert_array_equal(detachment.attach_within(labels, phases, tolerance, further), attached)


def test_without_carbon_binder_nothing_is_attached(scene: tuple[Array, Array]) -> None:
    labels, phases = scene
    none = np.where(phases == CBD, np.uint8(VOID), phases)
    assert detachment.cbd_distance(none, spacing=UNIT, reach_um=2.0) is None
    assert detachment.attach_within(labels, none, 2.0, None) is none


def test_electrode_faces_balance_with_the_kernel(scene: tuple[Array, Array]) -> None:
    labels, phases = scene
    phases[3, 2, 3] = VOID
    kernel = detachment.surface_classes(labels, phases, spacing=UNIT).faces.sum(axis=(0, 1))
    shifted = detachment.electrode_faces(labels, phases, core=(0, 8))
    assert shifted[: kernel.size].tolist() == kernel.tolist()
    parts = [detachment.electrode_faces(labels, phases, core=c) for c in ((0, 3), (3, 8))]
    assert (parts[0] + parts[1]).tolist() == shifted.tolist()
    assert shifted.size == N_PHASES


def test_cbd_thickness_of_a_film() -> None:
    phases = np.zeros((20, 12, 12), np.uint8)
    phases[6:11] = CBD
    edges = np.arange(12.0)
    histogram = detachment.cbd_thickness(phases, spacing=UNIT, edges_um=edges, core=(0, 20))
    assert edges[np.argmax(histogram)] == 5.0
    assert histogram.sum() == 144
    assert detachment.cbd_thickness(np.zeros_like(phases), spacing=UNIT, edges_um=edges, core=(0, 20)).sum() == 0
