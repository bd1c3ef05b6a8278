"""The table: geometry in closed form, Miles-Lantuejoul weights, and the contract of its columns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import voxkernels as vk
from cbdetach import table

Array = npt.NDArray[Any]
SHAPE = (40, 60, 50)
SPACING = (0.5, 0.25, 0.4)


def geometry(labels: Array, spacing: tuple[float, float, float] = SPACING) -> dict[str, Array]:
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    return table.geometry_columns(vk.region_properties(labels, spacing=spacing), shape, spacing)


@pytest.fixture(scope="module")
def boxes() -> dict[str, Array]:
    labels = np.zeros(SHAPE, np.int32)
    labels[4:12, 10:30, 5:15] = 3  # inside
    labels[20:25, 0:10, 20:30] = 8  # cut at y = 0
    labels[30:40, 20:30, 30:31] = 9  # cut at the last slice, one voxel thin
    return geometry(labels)


def test_boxes_in_closed_form(boxes: dict[str, Array]) -> None:
    voxel = 0.5 * 0.25 * 0.4
    np.testing.assert_array_equal(boxes["label"], [3, 8, 9])
    np.testing.assert_allclose(boxes["volume_um3"], np.array([8 * 20 * 10, 5 * 10 * 10, 10 * 10]) * voxel)
    np.testing.assert_allclose(boxes["z_um"], np.array([7.5, 22, 34.5]) * 0.5)
    np.testing.assert_allclose(boxes["y_um"], np.array([19.5, 4.5, 24.5]) * 0.25)
    np.testing.assert_allclose(boxes["x_um"], np.array([9.5, 24.5, 30]) * 0.4)
    np.testing.assert_array_equal(boxes["slices"], [8, 5, 10])
    np.testing.assert_array_equal(boxes["touches_border"], [False, True, True])
    # Edges 4 x 5 x 4, 2.5 x 2.5 x 4 and 5 x 2.5 x 0.4 um: the thin one is as thick as its voxel.
    np.testing.assert_allclose(boxes["elongation"], [5 / 4, 4 / 2.5, 5 / 0.4])


def test_the_inclusion_weight_is_that_of_miles_and_lantuejoul(boxes: dict[str, Array]) -> None:
    expected = 1 / ((1 - 8 / 40) * (1 - 20 / 60) * (1 - 10 / 50))
    np.testing.assert_allclose(boxes["inclusion_weight"], [expected, 0, 0])


def test_weights_undo_that_large_particles_are_cut_more_often() -> None:
    """Twice as many small boxes as large ones, thrown at random: unweighted counts are wrong, weighted ones right."""
    rng = np.random.default_rng(4)
    window, n = 200, 200_000
    extent = np.where(rng.random(n) < 2 / 3, 10, 80)[:, None] * np.ones(3, np.int64)
    low = rng.integers(-90, window + 10, (n, 3))
    high = low + extent
    seen = ((low < window) & (high > 0)).all(axis=1)
    clipped = np.concatenate([np.maximum(low, 0), np.minimum(high, window)], axis=1)[seen].astype(np.int64)
    small = extent[seen, 0] == 10
    boxes = SimpleNamespace(
        labels=np.arange(1, len(clipped) + 1),
        count=np.ones(len(clipped), np.int64),
        bbox=clipped,
        centroid=np.zeros((len(clipped), 3)),
        inertia=np.zeros((len(clipped), 3, 3)),
    )
    found = table.geometry_columns(boxes, (window,) * 3, (1.0, 1.0, 1.0))
    uncut, weight = ~found["touches_border"], found["inclusion_weight"]
    assert (small & uncut).sum() / (~small & uncut).sum() > 6
    assert weight[small].sum() / weight[~small].sum() == pytest.approx(2, rel=0.05)


def test_a_ball_in_closed_form() -> None:
    spacing = (0.5, 0.25, 0.4)
    grid = [np.arange(n) * s for n, s in zip((50, 100, 64), spacing, strict=True)]
    z, y, x = np.meshgrid(*grid, indexing="ij")
    ball = (z - 12.2) ** 2 + (y - 12.4) ** 2 + (x - 12.7) ** 2 <= 8.0**2
    found = geometry(ball.astype(np.int32), spacing)
    assert found["equivalent_diameter_um"][0] == pytest.approx(16, rel=2e-3)
    assert found["elongation"][0] == pytest.approx(1, abs=5e-3)
    assert (found["z_um"][0], found["y_um"][0], found["x_um"][0]) == pytest.approx((12.2, 12.4, 12.7), abs=0.01)


@pytest.mark.parametrize("half_axes", [(6, 9, 12), (12, 6, 6)])
def test_elongation_of_an_ellipsoid(half_axes: tuple[int, int, int]) -> None:
    grid = np.indices((27, 27, 27)) - 13
    inside = sum((g / a) ** 2 for g, a in zip(grid, half_axes, strict=True)) <= 1
    found = geometry(inside.astype(np.int32), (1.0, 1.0, 1.0))
    assert found["elongation"][0] == pytest.approx(2, rel=0.01)


def test_elongation_does_not_depend_on_the_axes_of_the_array() -> None:
    labels = np.zeros((20, 20, 20), np.int32)
    labels[3:15, 4:9, 2:8] = 1
    expected = geometry(labels)["elongation"]
    turned = table.geometry_columns(
        vk.region_properties(labels.transpose(2, 0, 1), spacing=(0.4, 0.5, 0.25)), (20, 20, 20), (0.4, 0.5, 0.25)
    )
    np.testing.assert_allclose(turned["elongation"], expected)


def test_no_particle_at_all() -> None:
    found = geometry(np.zeros((4, 5, 6), np.int32))
    assert all(column.shape == (0,) for column in found.values())
    frame = table.assemble(found)
    assert len(frame) == 0
    assert list(frame.columns) == list(table.COLUMNS)


# ---- sphericity ------------------------------------------------------------------------------------------------------


def test_sphericity_of_a_ball_and_of_a_cube() -> None:
    volume = np.array([4 / 3 * np.pi * 27, 8.0])
    surface = np.array([4 * np.pi * 9, 24.0])
    found = table.sphericity(volume, surface, np.array([False, False]))
    np.testing.assert_allclose(found, [1, (np.pi / 6) ** (1 / 3)])


def test_sphericity_is_empty_for_cut_particles_and_without_a_surface() -> None:
    found = table.sphericity(np.ones(3), np.array([6.0, 6.0, 0.0]), np.array([True, False, False]))
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])


# ---- the contract ----------------------------------------------------------------------------------------------------

PROMISED = """label, z_um, y_um, x_um, volume_um3, equivalent_diameter_um, surface_area_um2,
sphericity, elongation, touches_border, inclusion_weight, area_cbd_um2, area_void_um2, area_particle_um2,
contact_known_fraction, unresolved_fraction,
detachment_fraction, detachment_fraction_low, detachment_fraction_high, detachment_fraction_connected,
detachment_fraction_connected26,
diffusion_length_mean_um, diffusion_length_median_um, diffusion_length_p95_um, diffusion_length_max_um, contact_ratio,
crack_ratio, unreached_fraction,
diffusion_status, crack_fraction, pore_fraction, crack_area_um2, density_mean, density_std, slices, score"""


def test_the_columns_are_those_promised_in_their_order() -> None:
    assert list(table.COLUMNS) == [name.strip() for name in PROMISED.split(",")]


def test_assemble_orders_the_columns_and_leaves_the_others_empty(boxes: dict[str, Array]) -> None:
    frame = table.assemble(dict(reversed(boxes.items())))
    assert list(frame.columns) == list(table.COLUMNS)
    for name in table.COLUMNS:
        if name in boxes:
            np.testing.assert_array_equal(frame[name], boxes[name])
        else:
            assert frame[name].isna().all()
    assert frame["label"].dtype.kind == frame["slices"].dtype.kind == "i"
    assert frame["touches_border"].dtype == bool


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(KeyError, match=r"columns that the table does not have: \['colour', 'zz'\]"):
        table.assemble({"label": np.array([1]), "zz": np.array([1]), "colour": np.array([1])})


def test_the_data_dictionary_says_units_and_why_a_column_is_empty() -> None:
    found = table.data_dictionary({"score": "the segmenter gives no scores"})
    assert list(found) == list(table.COLUMNS)
    assert found["score"] == {
        "unit": "1",
        "meaning": table.COLUMNS["score"][1],
        "empty_because": "the segmenter gives no scores",
    }
    assert all(set(entry) == {"unit", "meaning"} for name, entry in found.items() if name != "score")
    assert all(entry["meaning"] for entry in found.values())


@pytest.mark.parametrize(("ending", "unit"), [("_um", "um"), ("_um2", "um^2"), ("_um3", "um^3"), ("_fraction", "1")])
def test_units_in_the_names_are_the_units_of_the_dictionary(ending: str, unit: str) -> None:
    named = {name: stated for name, (stated, _) in table.COLUMNS.items() if name.endswith(ending)}
    assert named
    assert set(named.values()) == {unit}
