"""Connected carbon/binder: drawn scenes, brute force in one piece, a phantom with known classes, whole runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from tests.cbdetach.fake_run import fake_run

import cbdetach
from cbdetach import connected, detachment, report
from cbdetach.codes import ACTIVE, CBD, COLLECTOR, N_PHASES, VOID
from cbdetach.connected import CONNECTED, ISOLATED, NONE, UNDETERMINED
from cbdetach.errors import InputError
from cbdetach.phantom import Phantom, PhantomSettings
from cbdetach.report import connected as figures

Array = npt.NDArray[Any]
UNIT = (1.0, 1.0, 1.0)
PHASES = {"void": 0, "cbd": 1, "active": 2, "collector": 4}


def brute_force(cbd: Array, anchor: Array, connectivity: int) -> Array:
    """Components by SciPy, one after the other, in one piece."""
    components, n = ndimage.label(cbd, ndimage.generate_binary_structure(3, 1 if connectivity == 6 else 3))
    classes = np.zeros(cbd.shape, np.uint8)
    edge = np.ones(cbd.shape, bool)
    edge[1:-1, 1:-1, 1:-1] = False
    for k in range(1, n + 1):
        mine = components == k
        classes[mine] = CONNECTED if anchor[mine].any() else UNDETERMINED if edge[mine].any() else ISOLATED
    return classes


def cut(volume: Array, thickness: int) -> list[Array]:
    return [volume[z : z + thickness] for z in range(0, len(volume), thickness)]


def classified(cbd: Array, anchor: Array, connectivity: int, thickness: int = 100) -> Array:
    slabs = connected.classify(cut(cbd, thickness), cut(anchor, thickness), connectivity=connectivity)
    return np.concatenate(list(slabs))


def scene() -> tuple[Array, Array]:
    """A collector below; a pillar on it, one that touches it by an edge, one that leaves, one that floats."""
    labels, phases = np.zeros((12, 12, 16), np.int32), np.zeros((12, 12, 16), np.uint8)
    phases[0:2, :, :6] = COLLECTOR
    phases[2:8, 3, 3] = CBD  # stands on the collector
    phases[2:6, 6, 6] = CBD  # beside its edge: neighbours by an edge, as x = 6 is beyond the collector
    phases[5, 9, 10:] = CBD  # leaves through x1
    phases[8:10, 8:10, 9:11] = CBD  # floats
    phases[4, 4, 9] = CBD
    labels[4, 4, 9] = 7  # a crack with the grey value of carbon/binder
    return labels, phases


@pytest.mark.parametrize("thickness", [1, 2, 5, 12])
def test_every_class_of_a_drawn_scene(thickness: int) -> None:
    labels, phases = scene()
    cbd = connected.free_cbd(labels, phases)
    for connectivity, by_an_edge in ((6, ISOLATED), (26, CONNECTED)):
        anchor = connected.anchored(cbd, phases == COLLECTOR, connectivity=connectivity)
        found = classified(cbd, anchor, connectivity, thickness)
        assert (found[2:8, 3, 3] == CONNECTED).all()
        assert (found[2:6, 6, 6] == by_an_edge).all()
        assert (found[5, 9, 10:] == UNDETERMINED).all()
        assert (found[8:10, 8:10, 9:11] == ISOLATED).all()
        assert found[4, 4, 9] == NONE
        assert ((found > 0) == cbd).all()


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    share=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
    thickness=st.integers(1, 9),
    connectivity=st.sampled_from([6, 26]),
)
def test_slabs_agree_with_brute_force_in_one_piece(
    seed: int, shape: tuple[int, int, int], share: float, thickness: int, connectivity: int
) -> None:
    rng = np.random.default_rng(seed)
    cbd = rng.random(shape) < share
    anchor = cbd & (rng.random(shape) < 0.05)
    np.testing.assert_array_equal(
        classified(cbd, anchor, connectivity, thickness), brute_force(cbd, anchor, connectivity)
    )


@pytest.mark.parametrize("side", connected.SIDES)
def test_the_anchor_may_be_any_side(side: str) -> None:
    cbd = np.zeros((5, 6, 7), bool)
    for axis in range(3):
        pillar: list[Any] = [2, 3, 4]
        for end in (slice(0, 2), slice(-2, None)):
            pillar[axis] = end
            cbd[tuple(pillar)] = True
    parts = cut(cbd, 2)
    anchor = np.concatenate(
        [connected.on_side(p, side, first=i == 0, last=i == len(parts) - 1) for i, p in enumerate(parts)]
    )
    axis, end = "zyx".index(side[0]), int(side[1])
    found = np.moveaxis(classified(cbd, anchor, 6, 2), axis, 0)
    assert anchor.sum() == 1
    assert (found == CONNECTED).sum() == 2
    assert (found[-2:] if end else found[:2]).max() == UNDETERMINED or (found == UNDETERMINED).sum() == 10
    assert ((found[-1] if end else found[0]) == CONNECTED).sum() == 1


def test_an_anchor_needs_both() -> None:
    nothing, something = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    assert not connected.anchored(nothing, something, connectivity=6).any()
    assert not connected.anchored(something, nothing, connectivity=26).any()


# ---- areas and fractions ---------------------------------------------------------------------------------------------


@pytest.fixture
def cube() -> tuple[Array, Array, Array, Array]:
    """A cube of 4^3: on its six faces void, and carbon/binder of (6, 26) classes cc, ic, uu, ii, uc."""
    labels, phases = np.zeros((8, 8, 8), np.int32), np.zeros((8, 8, 8), np.uint8)
    labels[2:6, 2:6, 2:6], phases[2:6, 2:6, 2:6] = 5, ACTIVE
    six, corners = np.zeros((2, 8, 8, 8), np.uint8)
    inner = slice(2, 6)
    for where, a, b in (
        ((1, inner, inner), CONNECTED, CONNECTED),
        ((6, inner, inner), ISOLATED, CONNECTED),
        ((inner, 1, inner), UNDETERMINED, UNDETERMINED),
        ((inner, 6, inner), ISOLATED, ISOLATED),
        ((inner, inner, 1), UNDETERMINED, CONNECTED),
    ):
        phases[where], six[where], corners[where] = CBD, a, b
    return labels, phases, six, corners


@pytest.mark.parametrize(
    ("undetermined", "by_faces", "by_corners"),
    [("apart", 3 / 4, 2 / 5), ("attached", 3 / 6, 2 / 6), ("detached", 5 / 6, 3 / 6)],
)
def test_fractions_of_a_cube(
    cube: tuple[Array, Array, Array, Array], undetermined: str, by_faces: float, by_corners: float
) -> None:
    labels, phases, six, corners = cube
    kinds = connected.surface_kinds(phases, six, corners)
    contacts = detachment.surface_classes(labels, kinds, spacing=UNIT, estimator="faces")
    for connectivity, expected in ((6, by_faces), (26, by_corners)):
        area = connected.areas_by_class(contacts, np.array([5, 9]), connectivity)
        fraction = connected.connected_fraction(area, undetermined=undetermined)
        assert fraction[0] == pytest.approx(expected)
        assert np.isnan(fraction[1])
        assert sum(v[0] for v in area.values()) == 96


def test_contact_with_particles_may_count_as_attached() -> None:
    area = {"void": np.array([1.0]), "connected": np.array([1.0]), "isolated": np.zeros(1), "undetermined": np.zeros(1)}
    assert connected.connected_fraction(area).tolist() == [0.5]
    assert connected.connected_fraction(area, np.array([2.0])).tolist() == [0.25]


@given(seed=st.integers(0, 10**6), undetermined=st.sampled_from(["apart", "attached", "detached"]))
def test_the_two_connectivities_bound_each_other(seed: int, undetermined: str) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((10, 10, 10), np.int32)
    labels[3:7, 3:7, 2:5], labels[3:7, 3:7, 6:9] = 1, 2
    phases = np.where(labels > 0, ACTIVE, np.where(rng.random(labels.shape) < 0.3, CBD, VOID)).astype(np.uint8)
    cbd = connected.free_cbd(labels, phases)
    anchor = connected.on_side(cbd, "z0", first=True, last=True)
    kinds = connected.surface_kinds(phases, *(classified(cbd, anchor, c, 3) for c in connected.CONNECTIVITIES))
    contacts = detachment.surface_classes(labels, kinds, spacing=UNIT)
    ids = np.array([1, 2])
    plain = detachment.detachment_columns(detachment.surface_classes(labels, phases, spacing=UNIT), ids)
    six, corners = (
        connected.connected_fraction(connected.areas_by_class(contacts, ids, c), undetermined=undetermined)
        for c in connected.CONNECTIVITIES
    )
    assert not (six < corners - 1e-12).any()
    assert not (corners < plain["detachment_fraction"] - 1e-12).any()
    area = connected.areas_by_class(contacts, ids, 6)
    np.testing.assert_allclose(
        area["connected"] + area["isolated"] + area["undetermined"], plain["area_cbd_um2"], rtol=1e-12
    )


def test_a_contact_tolerance_takes_the_nearest_class() -> None:
    labels, phases = np.zeros((3, 3, 9), np.int32), np.zeros((3, 3, 9), np.uint8)
    classes = np.zeros((3, 3, 9), np.uint8)
    labels[1, 1, 4], phases[1, 1, 4] = 1, ACTIVE
    classes[1, 1, 1], classes[1, 1, 7] = CONNECTED, ISOLATED
    assert connected.attach_classes(labels, phases, classes, 0.0, UNIT) is classes
    found = connected.attach_classes(labels, phases, classes, 2.0, UNIT)[1, 1]
    assert found.tolist() == [1, 1, 1, 1, 0, 3, 3, 3, 3]


def test_kinds_fit_beside_the_phases() -> None:
    both = np.array([(a, b) for a in (1, 2, 3) for b in (1, 2, 3)], np.uint8).T
    kinds = connected.surface_kinds(np.full(9, CBD, np.uint8), *both)
    assert kinds.tolist() == list(range(N_PHASES, N_PHASES + 9))


# ---- a phantom whose classes are known -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_layers() -> Phantom:
    """Balls apart from each other: the coats of the lower layer stand on the collector, those of the upper float."""
    centres = [(z, y, x) for z in (4.4, 11.4) for y in (4.5, 12.0, 19.5) for x in (4.5, 12.0, 19.5)]
    return Phantom(
        PhantomSettings(
            shape=(80, 120, 120),
            voxel_size_um=(0.2, 0.2, 0.2),
            seed=5,
            collector_um=1.2,
            network_share=1.0,
            patches=1,
            coating_thickness_um=0.8,
            covered_fraction=0.4,
            covered_fraction_sd=0.15,
            crack_share=0.0,
            pore_share=0.0,
        ),
        centres_um=np.array(centres),
        diameters_um=np.full(18, 5.4),
    )


def test_a_phantom_with_known_classes(two_layers: Phantom, tmp_path: Path) -> None:
    volume, truth = two_layers.volume(), two_layers.truth
    stands = truth["networked"].to_numpy(bool)
    assert (stands.sum(), (~stands).sum()) == (9, 9)
    with cbdetach.run(
        None, tmp_path / "run", labels=volume.labels, phases=volume.phases, phase_values=PHASES, voxel_size=0.2, slab=9
    ) as run:
        table = run.table.set_index("label").loc[truth["label"]]
        cbd = connected.free_cbd(volume.labels, volume.phases)
        for name, connectivity in (("cbd_connected", 6), ("cbd_connected26", 26)):
            anchor = connected.anchored(cbd, volume.phases == COLLECTOR, connectivity=connectivity)
            np.testing.assert_array_equal(run.volumes[name][()], brute_force(cbd, anchor, connectivity))
        record = run.record["connected"]
    assert record["anchor"] == "collector"
    true = np.where(stands, truth["detachment_fraction"], 1.0)
    for column in ("detachment_fraction_connected", "detachment_fraction_connected26"):
        found = table[column].to_numpy(float)
        assert np.abs(found - true).mean() < 0.01
        assert (found[~stands] == 1).all()
    floating = truth.loc[~stands, "area_cbd_um2"].sum() / truth["area_cbd_um2"].sum()
    assert record["surface_shares"]["6"]["isolated"] == pytest.approx(floating, abs=0.01)
    assert record["volume_shares"]["26"]["undetermined"] == 0


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> tuple[Array, Array]:
    """A ball on a foil; above it carbon/binder that touches the ball and floats, and a film that leaves the volume."""
    z, y, x = np.indices((24, 20, 20))
    labels = ((z - 11.5) ** 2 + (y - 9.5) ** 2 + (x - 9.5) ** 2 <= 36).astype(np.int32)
    phases = np.where(labels > 0, ACTIVE, VOID).astype(np.uint8)
    near = (z - 11.5) ** 2 + (y - 9.5) ** 2 + (x - 9.5) ** 2 <= 64
    phases[near & (labels == 0) & (z < 9)] = CBD  # stands on the side z0
    phases[:9, 9:11, 9:11] = np.where(labels[:9, 9:11, 9:11] > 0, ACTIVE, CBD)
    phases[near & (labels == 0) & (z > 13) & (y < 10)] = CBD
    phases[near & (labels == 0) & (z > 13) & (y > 13)] = CBD
    phases[18, 14:, 9:11] = CBD
    return labels, phases


def measured(drawn: tuple[Array, Array], out: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    labels, phases = drawn
    with cbdetach.run(
        None, out, labels=labels, phases=phases, phase_values=PHASES, voxel_size=0.5, slab=7, **options
    ) as run:
        return run.record, run.table.iloc[0].to_dict() | {"volumes": list(run.volumes)}


def test_settings_change_the_result(
    drawn: tuple[Array, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "write_report", lambda run: run.out)
    labels, phases = drawn
    record, row = measured(drawn, tmp_path / "none")
    assert record["connected"] == {"anchor": None}
    assert np.isnan(row["detachment_fraction_connected"])
    assert "cbd_connected" not in row["volumes"]
    reason = json.loads((tmp_path / "none" / "columns.json").read_text())["detachment_fraction_connected"]
    assert reason["empty_because"] == "no collector was found, and [connected] anchor names no side"

    fractions = {}
    for treatment in ("apart", "attached", "detached"):
        record, row = measured(
            drawn, tmp_path / treatment, anchor="z0", config={"connected": {"undetermined": treatment}}
        )
        assert record["connected"]["undetermined"] == treatment
        assert record["settings"]["connected"] == {"anchor": "z0", "undetermined": treatment}
        fractions[treatment] = row["detachment_fraction_connected"]
        cbd = connected.free_cbd(labels, phases)
        expected = brute_force(cbd, connected.on_side(cbd, "z0", first=True, last=True), 6)
        with cbdetach.open_run(tmp_path / treatment) as run:
            np.testing.assert_array_equal(run.volumes["cbd_connected"][()], expected)
        counts = np.bincount(expected.ravel(), minlength=4)[1:]
        assert list(record["connected"]["volume_shares"]["6"].values()) == pytest.approx(counts / counts.sum())
    assert fractions["attached"] < fractions["apart"] < fractions["detached"]
    assert row["detachment_fraction"] < fractions["attached"]

    record, row = measured(drawn, tmp_path / "other", anchor="x1")
    assert row["detachment_fraction_connected"] == 1.0
    assert record["warnings"] == ["No carbon/binder touches the anchor (x1): every contact counts as detached."]

    with_foil = phases.copy()
    with_foil[0] = COLLECTOR
    record, row = measured((labels, with_foil), tmp_path / "foil", anchor="x1")
    assert record["connected"]["anchor"] == "collector"
    assert "The volume holds a collector: carbon/binder is followed to it, not to the side x1." in record["warnings"]
    assert row["detachment_fraction_connected"] == pytest.approx(fractions["apart"], abs=0.01)


def test_a_lost_slab_is_found_again(
    drawn: tuple[Array, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "write_report", lambda run: run.out)
    measured(drawn, tmp_path / "run", anchor="z0")
    lost = tmp_path / "run" / "connected" / "slab_00001.h5"
    before = lost.read_bytes()
    lost.unlink()
    measured(drawn, tmp_path / "run", anchor="z0", resume=True)
    assert lost.read_bytes() == before
    with pytest.raises(InputError, match=r"--resume: .* other settings \(connected.anchor\)"):
        measured(drawn, tmp_path / "run", anchor="z1", resume=True)


def test_a_wrong_side_is_named(drawn: tuple[Array, Array], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--anchor: must be 'z0', 'z1'.*; got 'below'"):
        measured(drawn, tmp_path / "run", anchor="below")


# ---- the figures -----------------------------------------------------------------------------------------------------


def test_figures_show_what_was_counted(tmp_path: Path) -> None:
    run = replace(
        fake_run(tmp_path, n=12, shape=(24, 32, 32)), connected=None, cbd_connected=None, cbd_connected26=None
    )
    assert figures.connected_slices(run) == figures.NO_ANCHOR
    assert figures.connected_detachment(run) == figures.NO_ANCHOR
    cbd = connected.free_cbd(run.particles, run.phases)
    anchor = connected.on_side(cbd, "z0", first=True, last=True)
    six, corners = (brute_force(cbd, anchor, c) for c in connected.CONNECTIVITIES)
    kind = figures.kind_of(six, corners)
    assert ((kind >= 0) == cbd).all()
    assert set(kind[(six == ISOLATED) & (corners == ISOLATED)].tolist()) <= {3}
    assert set(kind[(six != CONNECTED) & (corners == CONNECTED)].tolist()) <= {1}
    table = run.table.assign(
        detachment_fraction_connected=run.table.detachment_fraction * 0.5 + 0.5,
        detachment_fraction_connected26=run.table.detachment_fraction,
    )
    shares = {"6": {"connected": 0.5, "undetermined": 0.2, "isolated": 0.3}, "26": {"connected": 1.0}}
    run = replace(
        run,
        table=table,
        cbd_connected=six,
        cbd_connected26=corners,
        connected={"anchor": "z0", "undetermined": "apart", "volume_shares": shares},
    )
    with report.plain_style():
        slices, chart = figures.connected_slices(run), figures.connected_detachment(run)
    assert not isinstance(slices, str)
    assert not isinstance(chart, str)
    shown = slices.table[slices.table.plane == "xy"]
    middle = kind[kind.shape[0] // 2]
    assert shown.pixels.tolist() == [(middle == k).sum() for k in range(len(figures.KINDS))]
    assert "the first layer of voxels along z" in slices.caption
    assert "in no fraction" in chart.caption
    assert chart.table.quantity.nunique() == 4


# ---- measured data ---------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.slow
def test_the_measured_cathode(real_data: Path) -> None:
    """By faces most of the one-voxel-thin carbon/binder leads nowhere, by corners nearly all of it does."""
    import tifffile

    phases = np.array([VOID, ACTIVE, CBD], np.uint8)[
        tifffile.imread(real_data / "nmc_cathode_3phase.tif")[:, :160, :160]
    ]
    labels = (phases == ACTIVE).astype(np.int32)  # one body: the fraction of the electrode as a whole
    cbd = connected.free_cbd(labels, phases)
    anchor = connected.on_side(cbd, "z0", first=True, last=True)
    kinds = connected.surface_kinds(phases, *(classified(cbd, anchor, c, 40) for c in connected.CONNECTIVITIES))
    contacts = detachment.surface_classes(labels, kinds, spacing=UNIT)
    found = {
        c: connected.connected_fraction(connected.areas_by_class(contacts, np.array([1]), c))[0]
        for c in connected.CONNECTIVITIES
    }
    assert 0.5 < found[6] < 0.8
    assert 0.3 < found[26] < 0.45
