"""The collector from grey values: closed forms, every side, a phantom's truth, whole runs, and sides without a foil."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import cbdetach
from cbdetach.codes import ACTIVE, CBD, COLLECTOR, VOID
from cbdetach.collector import Plate, find_plate, find_side, mark, rim
from cbdetach.demo import write_phantom
from cbdetach.errors import InputError
from cbdetach.phantom import Phantom, PhantomSettings

Array = np.ndarray[Any, Any]
SIDES = ("z0", "z1", "y0", "y1", "x0", "x1")
FOIL, GROUND, CUT = 30.0, 10.0, 18.0
SIGMA, BLUR = 0.85, 2.0


def plate_scene(height: Array, *, beyond: float = GROUND, noise: float = 0.5, seed: int = 0) -> Array:
    """A blurred plate of `height` (Y, X) voxels on z0, sub-voxel, and noise: (48, Y, X)."""
    depth = np.arange(48)[:, None, None] + 0.5
    share = np.clip(height - depth + 0.5, 0, 1)
    grey = ndimage.gaussian_filter(beyond + (FOIL - beyond) * share, SIGMA, mode="nearest")
    return grey + noise * np.random.default_rng(seed).standard_normal(grey.shape)


def turned(grey: Array, side: str) -> Array:
    """The scene of z0, moved to another side."""
    grey = np.moveaxis(grey, 0, "zyx".index(side[0]))
    return np.flip(grey, "zyx".index(side[0])) if side[1] == "1" else grey


@pytest.mark.parametrize("beyond", [10.0, 20.0, 50.0])
@pytest.mark.parametrize("height", [6.3, 20.0, 33.75])
def test_a_flat_plate_is_as_thick_as_it_is(height: float, beyond: float) -> None:
    """Before void, carbon/binder (a third of the step) and active material (brighter than the foil)."""
    found = find_plate(plate_scene(np.full((48, 64), height), beyond=beyond), "z0", blur=BLUR, void_cbd=CUT)
    assert found.grey == pytest.approx(FOIL, abs=0.1)
    assert np.array(found.height).shape == (3, 4)
    assert np.abs(np.array(found.height) - height).max() < 0.2


@pytest.mark.parametrize("side", SIDES)
def test_a_tilted_plate_on_every_side(side: str) -> None:
    y, x = np.mgrid[:64, :80]
    height = 12 + 0.06 * y + 0.04 * x
    found = find_plate(turned(plate_scene(height), side), side, blur=BLUR, void_cbd=CUT)
    assert found.axis == "zyx".index(side[0])
    error = found.heights(np.arange(64), np.arange(80)) - height
    assert np.abs(error).max() < 0.25


@pytest.mark.parametrize("side", SIDES)
def test_mark_in_slabs_is_mark_in_one_piece(side: str) -> None:
    rng = np.random.default_rng(5)
    grey = turned(plate_scene(np.full((48, 50), 11.4), noise=3.0), side)
    codes = rng.integers(0, 3, grey.shape).astype(np.uint8)
    plate = find_plate(turned(plate_scene(np.full((48, 50), 11.4)), side), side, blur=BLUR, void_cbd=CUT)
    known: dict[str, Any] = {"depth": len(grey), "blur": BLUR, "void_cbd": CUT}
    whole = mark(codes, grey, plate, z0=0, w0=0, **known)
    depth = np.moveaxis(whole == COLLECTOR, plate.axis, 0)
    assert depth.sum(0).mean() == pytest.approx(11, abs=0.01)
    assert depth[-1 if side[1] == "1" else 0].all()
    for z0 in range(0, len(grey), 7):
        z1 = min(len(grey), z0 + 7)
        w0, w1 = max(0, z0 - rim(BLUR)), min(len(grey), z1 + rim(BLUR))
        np.testing.assert_array_equal(mark(codes[z0:z1], grey[w0:w1], plate, z0=z0, w0=w0, **known), whole[z0:z1])


def test_the_rim_before_void_is_void() -> None:
    """Carbon/binder just above the plate stays where carbon/binder lies further out, and is void where void does."""
    grey = np.full((20, 16, 16), GROUND)
    grey[:, :, 8:] = 20.0
    codes = np.full(grey.shape, VOID, np.uint8)
    codes[5:7], codes[5:, :, 8:], codes[12, 0, 0] = CBD, CBD, CBD
    codes[6, 3, 3] = ACTIVE
    found = mark(codes, grey, Plate("z0", FOIL, ((5.0,),)), z0=0, w0=0, depth=20, blur=BLUR, void_cbd=CUT)
    assert (found[:5] == COLLECTOR).all()
    assert (found[5:7, 5:, :8] == VOID).all()
    assert (found[5:, :, 8:] == CBD).all()
    assert found[12, 0, 0] == CBD
    assert found[6, 3, 3] == ACTIVE


def test_a_plate_is_plain_numbers() -> None:
    plate = Plate("x1", 3.5, ((1.0, 2.0), (3.0, 4.0)))
    assert Plate.from_dict(plate.to_dict()) == plate
    np.testing.assert_allclose(
        plate.heights(np.array([7.5, 15.5]), np.array([23.5])), [[2.0], [3.0]]
    )  # in the middle of four tiles


@pytest.mark.parametrize(
    ("grey", "message"),
    [
        (plate_scene(np.full((48, 48), 20.0))[::-1], "at z0 lies void"),
        (plate_scene(np.full((48, 48), 3.0)), "less than two widths of the blur"),
        (plate_scene(np.full((48, 48), 90.0)), "one grey fills the volume"),
        (plate_scene(np.where(np.arange(48) < 30, 20.0, 0) * np.ones((48, 1))), "hold more than one grey"),
    ],
)
def test_sides_without_a_foil(grey: Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_plate(grey, "z0", blur=BLUR, void_cbd=CUT)


@pytest.mark.parametrize("side", SIDES)
def test_the_side_is_found(side: str) -> None:
    """The only one with a plate; the width of the blur is that of its axis."""
    stripes = np.full((48, 60, 64), GROUND)
    stripes[:, ::20] = 20.0
    stripes[:, :, ::16] = 50.0
    scene = np.maximum(plate_scene(np.full((60, 64), 12.5)), np.where(np.arange(48)[:, None, None] > 20, stripes, 0))
    grey = turned(scene, side)
    widths = {"zyx"[a]: BLUR if a == "zyx".index(side[0]) else 9.0 for a in range(3)}
    found = find_side(grey, blur=(widths["z"], widths["y"], widths["x"]), void_cbd=CUT)
    assert found == find_plate(grey, side, blur=BLUR, void_cbd=CUT)


def test_no_side_or_several() -> None:
    blur = (BLUR, BLUR, BLUR)
    plate = plate_scene(np.full((48, 48), 12.5))
    with pytest.raises(InputError, match=r"a plate lies at z0 and z1\. Name the side of the foil"):
        find_side(np.maximum(plate, plate[::-1]), blur=blur, void_cbd=CUT)
    with pytest.raises(InputError, match=r"auto; at z0 lies void \(grey 10\); at z1 lies void .* Name a side, or none"):
        find_side(np.full((48, 48, 48), GROUND), blur=blur, void_cbd=CUT)


# --- the phantom -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Phantom, Path]:
    made = Phantom(PhantomSettings(shape=(72, 88, 88), collector_um=3.0, seed=4))
    path = tmp_path_factory.mktemp("collector") / "phantom.h5"
    write_phantom(made, path)
    return made, path


def test_a_run_finds_the_foil(phantom: tuple[Phantom, Path], tmp_path: Path) -> None:
    made, path = phantom
    true = made.volume()
    options: dict[str, Any] = {"segmenter": "watershed", "slab": 19}
    config = {"phases": {"collector": "auto"}, "report": {"gallery": 0}}
    with cbdetach.run(path, tmp_path / "run", config=config, **options) as run:
        codes = run.volumes["phases"][:]
        foil, is_foil = codes == COLLECTOR, true.phases == COLLECTOR
        assert (foil & is_foil).sum() / (foil | is_foil).sum() > 0.98
        assert run.record["settings"]["phases"]["collector"] == "auto"
        connected = run.table["detachment_fraction_connected26"]
        assert connected.notna().sum() > 20
    with pytest.raises(InputError, match="at z1 the outermost layers hold more than one grey"):
        cbdetach.run(path, tmp_path / "other", config={"phases": {"collector": "z1"}}, **options)
