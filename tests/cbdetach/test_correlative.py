"""Correlative imaging: projections of bodies of known thickness, pairs with a known transform, intervals that cover."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tifffile
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import distance_transform_edt, gaussian_filter
from tests.cbdetach.test_cli import command

import cbdetach
from cbdetach import correlative, particle_map, report
from cbdetach.codes import ACTIVE, CBD
from cbdetach.errors import InputError
from cbdetach.volume import parse_range, read_map

Array = npt.NDArray[Any]
UNIT = (1.0, 1.0, 1.0)


# ---- projections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 0), (0, 0, -1), (1, 1, 0), (1, 2, 3)])
@pytest.mark.parametrize("spacing", [UNIT, (0.5, 0.25, 0.4)])
def test_thickness_of_a_ball(direction: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    radius = 16.0 * max(spacing)
    half = [int(radius / s) + 2 for s in spacing]
    z, y, x = (g * s for g, s in zip(np.indices([2 * h + 1 for h in half]), spacing, strict=True))
    r = np.sqrt(sum((a - h * s) ** 2 for a, h, s in zip((z, y, x), half, spacing, strict=True)))
    ball = r <= radius
    seen = correlative.project(ball, np.full(ball.shape, 7.0), direction=np.array(direction), spacing=spacing)
    down, right = (np.indices(seen.thickness_um.shape) - (np.array(seen.thickness_um.shape)[:, None, None] - 1) / 2) * (
        seen.pixel_um
    )
    off = np.hypot(down, right)
    exact = 2 * np.sqrt(np.maximum(radius**2 - off**2, 0))
    voxel = max(spacing)
    # along an axis a digitised ball has odd numbers of voxels: within 1 of the truth, 0.5 in the mean
    assert np.abs(seen.thickness_um - exact)[off < 0.9 * radius].mean() < 0.5 * voxel
    volume = seen.thickness_um.sum() * seen.pixel_um**2
    assert volume == pytest.approx(ball.sum() * np.prod(spacing), rel=0.005)
    np.testing.assert_allclose(seen.density[np.isfinite(seen.density)], 7.0, rtol=1e-5)
    assert (seen.thickness_um[np.isnan(seen.density)] < 0.5 * voxel).all()


def test_a_view_along_an_axis_is_the_sum_along_it() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((9, 12, 14), bool)
    mask[2:7, 3:9, 3:11] = True
    grey = rng.uniform(1, 2, mask.shape)
    seen = correlative.project(mask, grey, direction=np.array([1.0, 0, 0]), spacing=UNIT)
    middle = (np.array(seen.density.shape) - 1) / 2 - np.array([5.5, 6.5])
    moved = correlative.resample(seen.density, 1.0, (12, 14), 1.0, (0.0, 1.0, 0.0, 0.0))
    assert np.abs(middle).max() < 1.5
    np.testing.assert_allclose(moved[4:8, 4:10], grey[2:7].mean(axis=0)[4:8, 4:10], rtol=1e-4)
    np.testing.assert_allclose(correlative.resample(seen.thickness_um, 1.0, (12, 14), 1.0, (0, 1, 0, 0))[5, 6], 5.0)


def test_pictures_are_right_handed_and_slices_lie_as_in_memory() -> None:
    for direction in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -2, 0.5)):
        axes = correlative.view_axes(np.array(direction, float))
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(correlative.view_axes(np.array([1.0, 0, 0]))[1:], [[0, 1, 0], [0, 0, 1]], atol=1e-12)
    back = correlative.view_axes(np.array([-1.0, 0, 0]))
    np.testing.assert_allclose(back[1:], [[0, 1, 0], [0, 0, -1]], atol=1e-12)  # mirrored, as seen from behind


def test_bands_and_options_of_a_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    mask = np.linalg.norm(np.indices((15, 15, 15)) - np.full((3, 1, 1, 1), 7.0), axis=0) <= 6
    grey = rng.uniform(size=mask.shape)
    options: dict[str, Any] = {"direction": np.array([1.0, 2.0, 3.0]), "spacing": UNIT}
    whole = correlative.project(mask, grey, **options)
    monkeypatch.setattr(correlative.projection, "BAND_SAMPLES", 1)
    banded = correlative.project(mask, grey, **options)
    np.testing.assert_allclose(banded.density, whole.density, rtol=1e-5)
    coarse = correlative.project(mask, grey, pixel_um=2.0, **options)
    assert coarse.density.shape[0] < whole.density.shape[0]
    eroded = correlative.project(mask, grey, erosion_um=2.0, **options)
    np.testing.assert_array_equal(eroded.outline, whole.outline)
    np.testing.assert_array_equal(eroded.thickness_um, whole.thickness_um)
    assert np.isfinite(eroded.density).sum() < 0.7 * np.isfinite(whole.density).sum()
    ringed = np.where(np.linalg.norm(np.indices(mask.shape) - 7.0, axis=0) > 4.5, grey - 5, grey)  # a dark skin
    np.testing.assert_allclose(correlative.project(mask, ringed, erosion_um=2.0, **options).density, eroded.density)
    thick = correlative.project(mask, grey, min_thickness_um=8.0, **options)
    assert np.isfinite(thick.density).sum() == (whole.thickness_um >= 8).sum()


# ---- registration ----------------------------------------------------------------------------------------------------


def pair(
    seed: int, *, rotation: float, scale: float, shift: tuple[float, float], rho: float = 1.0, snr: float = 3.0,
    pixel: float = 1.0, lumps: float = 0.06, rim: float = 0.0,
) -> tuple[Array, Array]:  # fmt: skip
    """A textured body of 90 units across, and a map of it after a transform; white noise on both.

    lumps : how far the outline is from round; rim : by how many standard deviations of the texture thin rays are dark.
    """
    rng = np.random.default_rng(seed)
    side = 240
    fields = [gaussian_filter(rng.standard_normal((side, side)), 3.0) for _ in range(2)]
    down, right = np.indices((side, side)) - (side - 1) / 2
    angle = np.arctan2(down, right)
    waves = sum(np.cos((k + 2) * angle + p) for k, p in enumerate(rng.uniform(0, 6.28, 3)))
    reach, off = 45 * (1 + lumps * waves), np.hypot(down, right)
    inside = off - reach
    dark = rim * np.minimum(8 / (2 * np.sqrt(np.maximum(reach**2 - off**2, 1))), 1)
    grid = np.arange(side)
    texture, other, outline = (
        RectBivariateSpline(grid, grid, f) for f in (*(f / f.std() - dark for f in fields), inside)
    )  # fmt: skip

    def view(n: int, size: float, turn: float, grow: float, move: tuple[float, float]) -> Array:
        at = (np.indices((n, n)).reshape(2, -1) - (n - 1) / 2) * size - np.array(move)[:, None]
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        back = np.array([[c, s], [-s, c]]) @ at / grow + (side - 1) / 2
        value = rho_now * texture.ev(*back) + np.sqrt(1 - rho_now**2) * other.ev(*back)
        value = value + rng.standard_normal(value.shape) / snr
        return np.where(outline.ev(*back) <= 0, value, np.nan).reshape(n, n)

    rho_now = 1.0
    density = view(110, 1.0, 0.0, 1.0, (0.0, 0.0))
    rho_now = rho
    return density, view(int(140 / pixel), pixel, rotation, scale, shift)


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, {"rotation": 137.3, "scale": 1.03, "shift": (4.2, -5.7)}),
        (1, {"rotation": -61.8, "scale": 0.96, "shift": (-3.5, 2.25), "lumps": 0.0}),
        (2, {"rotation": 12.4, "scale": 1.0, "shift": (0.0, 6.0), "pixel": 1.25}),
        (3, {"rotation": 171.6, "scale": 0.98, "shift": (5.0, -1.0), "lumps": 0.01, "rim": 3.0}),
    ],
)
def test_registration_within_a_pixel_and_half_a_degree(seed: int, options: dict[str, Any]) -> None:
    """SNR 3 on both images; the second pair is round, so that nothing but its texture tells the rotation; the last is
    nearly round, with a dark rim that agrees with itself at any angle."""
    density, target = pair(seed, **options)
    pixel = options.get("pixel", 1.0)
    found = correlative.register(density, 1.0, target, pixel)
    turn = (found.rotation_deg - options["rotation"] + 180) % 360 - 180
    assert abs(turn) < 0.5
    assert abs(found.scale - options["scale"]) < 0.01
    assert np.hypot(*(np.array(found.shift_um) - options["shift"])) < pixel
    assert found.overlap > 0.97
    if pixel == 1.0 and "rim" not in options:
        place = (found.rotation_deg, found.scale, *found.shift_um)
        moved = correlative.resample(density, 1.0, target.shape, pixel, place)
        result = correlative.correlate(moved, target, resamples=500)
        clean = 1 / np.sqrt((1 + 1 / 9) * (1 + 1 / 9 * 4 / 9))  # linear interpolation keeps 4/9 of white noise
        assert result.r == pytest.approx(clean, abs=0.02)


def test_ranges_and_sign_are_kept() -> None:
    density, target = pair(3, rotation=30.0, scale=1.0, shift=(2.0, 1.0))
    found = correlative.register(density, 1.0, -target, 1.0, rotation_deg=(20.0, 40.0), scale=(1.0, 1.0), sign=-1)
    assert found.rotation_deg == pytest.approx(30.0, abs=0.5)
    assert found.scale == pytest.approx(1.0, abs=0.01)
    wrong = correlative.register(density, 1.0, target, 1.0, rotation_deg=(-40.0, -20.0), scale=(1.0, 1.0))
    assert -41 < wrong.rotation_deg < -19
    assert wrong.score < 0.6 * found.score


def test_mutual_information_is_that_of_its_parts() -> None:
    """Against the sum over the four kinds of pixels written out, and the closed form for Gaussian variables."""
    a, b = (np.zeros((40, 50), bool) for _ in range(2))
    a[5:25, 5:30], b[8:28, 2:27] = True, True  # 500 pixels each, in a field of 1,000 when cut so that it fits
    both, each = int((a & b).sum()), 500
    table = np.array([[both, each - both], [each - both, both]]) / 1000
    by_hand = sum(p * np.log(p / 0.25) for p in table.ravel())
    assert correlative.agreement(0.0, both, both, each, each) == pytest.approx(by_hand)
    gain = correlative.agreement(0.6, both, both, each, each) - by_hand
    assert gain == pytest.approx(-0.5 * np.log(1 - 0.36) * both / 1000)
    assert correlative.agreement(-0.6, both, both, each, each) == pytest.approx(by_hand - gain)
    assert correlative.agreement(0.0, 0, each, each, each) == pytest.approx(np.log(2))  # the same outline: one bit
    assert correlative.agreement(0.0, 0, 250, 500, 500) == pytest.approx(0.0)  # chance
    assert correlative.agreement(1.0, 500, 500, 500, 500) < 20  # finite


def test_a_dark_rim_in_the_projection_alone_does_not_turn_it() -> None:
    """The map knows no blur: values are left out at the rim, and the outline stays that of the whole particle."""
    density, target = pair(5, rotation=-33.0, scale=1.02, shift=(1.5, 2.5), lumps=0.01)
    outline = np.isfinite(density)
    depth = distance_transform_edt(outline)
    dark = np.where(depth < 3, density - 8.0, density)
    found = correlative.register(np.where(depth >= 3, dark, np.nan), 1.0, target, 1.0, outline=outline)
    assert found.rotation_deg == pytest.approx(-33.0, abs=0.5)
    assert found.scale == pytest.approx(1.02, abs=0.01)
    assert np.hypot(*(np.array(found.shift_um) - (1.5, 2.5))) < 1
    assert found.overlap > 0.95
    narrow = correlative.register(np.where(depth >= 3, dark, np.nan), 1.0, target, 1.0)
    assert narrow.overlap < found.overlap  # its own outline is three pixels smaller


# ---- correlation -----------------------------------------------------------------------------------------------------


def smooth_pair(rng: np.random.Generator, n: int, sigma: float, rho: float) -> tuple[Array, Array]:
    """Two images of a disc, of Gaussian noise with a known correlation."""
    a, b = (gaussian_filter(rng.standard_normal((n + 40, n + 40)), sigma)[20:-20, 20:-20] for _ in range(2))
    disc = np.hypot(*(np.indices((n, n)) - (n - 1) / 2)) < 0.45 * n
    return np.where(disc, a, np.nan), np.where(disc, rho * a + np.sqrt(1 - rho**2) * b, np.nan)


@pytest.mark.parametrize(("sigma", "rho"), [(1.0, 0.54), (2.5, 0.0), (2.5, 0.54), (4.0, 0.8)])
def test_the_interval_covers_the_truth_at_about_its_rate(sigma: float, rho: float) -> None:
    """95 % intervals on noise correlated over 2 to 14 pixels; independent pixels would cover 60 % and less."""
    trials, hits, naive, effective, found = 150, 0, 0, [], []
    for seed in range(trials):
        x, y = smooth_pair(np.random.default_rng(seed), 60, sigma, rho)
        one = correlative.correlate(x, y, resamples=300, seed=seed)
        hits += one.low <= rho <= one.high
        half = 1.96 / np.sqrt(one.pixels - 3)
        naive += abs(np.arctanh(one.r) - np.arctanh(rho)) < half
        effective.append(one.effective)
        found.append(one.r)
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials) - 0.02 <= hits / trials <= 0.99
    assert naive / trials < 0.7
    # the spread of r itself, over independent pairs, tells what the effective number should be
    assert np.mean(effective) == pytest.approx((1 - rho**2) ** 2 / np.var(found), rel=0.4)


def test_white_noise_has_as_many_pixels_as_it_has() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 40, 40))
    found = correlative.correlate(x, y)
    assert found.effective > 0.8 * 1600
    assert found.block_px <= 3
    assert found.r == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1])


def test_options_of_the_interval() -> None:
    x, y = smooth_pair(np.random.default_rng(5), 50, 2.0, 0.5)
    base = correlative.correlate(x, y)
    assert base == correlative.correlate(x, y)
    assert correlative.correlate(x, y, seed=1).low != base.low
    wide, narrow = (correlative.correlate(x, y, level=level) for level in (0.99, 0.5))
    assert wide.low < base.low < narrow.low < base.r < narrow.high < base.high < wide.high
    assert correlative.correlate(x, y, block_px=3).block_px == 3
    assert correlative.correlate(x, y, resamples=100).high != base.high


def test_too_little_in_common() -> None:
    x = np.full((5, 5), np.nan)
    x[:2, :2] = 1.0
    with pytest.raises(ValueError, match=r"x, y: must have 9 common pixels that vary; got 4"):
        correlative.correlate(x, x)
    with pytest.raises(ValueError, match=r"got 25"):
        correlative.correlate(np.ones((5, 5)), np.ones((5, 5)))


def test_block_sums_are_those_of_every_square() -> None:
    rng = np.random.default_rng(2)
    image = rng.uniform(size=(6, 8))
    found = correlative.correlation._block_sums(image, 3)
    padded = np.pad(image, 3)
    assert found.shape == (6 + 4, 8 + 4)
    for i in range(10):
        for j in range(12):
            assert found[i, j] == pytest.approx(padded[i : i + 3, j : j + 3].sum())


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float]:
    """A run with one textured particle, a map of it turned by 40 degrees, and their correlation without noise."""
    folder = tmp_path_factory.mktemp("correlate")
    rng = np.random.default_rng(8)
    z, y, x = np.indices((40, 44, 48)) - np.array([20.0, 22.0, 24.0])[:, None, None, None]
    labels = ((z / 15) ** 2 + (y / 17) ** 2 + (x / 20) ** 2 <= 1).astype(np.int32) * 4
    phases = np.where(labels > 0, ACTIVE, 0).astype(np.uint8)
    phases[:, :, :6] = CBD
    texture = gaussian_filter(rng.standard_normal(labels.shape), (6, 2, 2))
    grey = np.where(labels > 0, 1000 + 2000 * texture / texture.std(), 100).astype(np.float32)
    tifffile.imwrite(folder / "grey.tif", grey)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_report", lambda run: run.out)
        with cbdetach.run(
            folder / "grey.tif",
            folder / "run",
            labels=labels,
            phases=phases,
            phase_values={"void": 0, "cbd": 1, "active": 2},
            voxel_size=0.5,
        ):
            pass
    seen = correlative.project(labels == 4, grey, direction=np.array([1.0, 0, 0]), spacing=(0.5, 0.5, 0.5))
    turned = correlative.resample(seen.density, 0.5, (60, 60), 0.5, (40.0, 1.0, 1.0, -1.5))
    own = rng.standard_normal(turned.shape)
    known = np.isfinite(turned)
    share, own = ((v - v[known].mean()) / v[known].std() for v in (turned, own))
    energy = np.where(known, 8350 + 0.8 * share + 0.6 * own, 0.0).astype(np.float32)
    tifffile.imwrite(folder / "map.tif", energy)
    return folder / "run", folder / "map.tif", 0.8


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbdetach.report.drawing.DPI", 40)


def test_correlate_finds_the_known_pair(phantom_pair: tuple[Path, Path, float], tmp_path: Path) -> None:
    run, energy, rho = phantom_pair
    line = f"correlate {run} --map {energy} --pixel-size 0.5 --map-name 'energy (eV)' -o {tmp_path}"
    code, said, complained = command(line)
    assert (code, complained) == (0, "")
    assert said.startswith("rotation ")
    assert "95% interval" in said
    assert {p.name for p in tmp_path.iterdir()} == {f"correlate.{kind}" for kind in ("png", "svg", "csv", "json")}
    record = json.loads((tmp_path / "correlate.json").read_text())
    assert record["registration"]["rotation_deg"] == pytest.approx(40.0, abs=0.5)
    assert record["registration"]["shift_um"] == pytest.approx([1.0, -1.5], abs=0.5)
    # at the true place, with the particle that the map was made of; both were resampled, which costs some of rho
    with cbdetach.open_run(run) as made:
        mine = made.volumes["particles"][...] == 4
        # the default of the run's densities; the texture, twice the grey, hides the edge, which then has one voxel
        assert record["erosion_um"] == 2 * made.record["edge_width_um"] == 1.0
    view: dict[str, Any] = {"direction": np.array([1.0, 0, 0]), "spacing": (0.5, 0.5, 0.5)}
    grey = tifffile.imread(run.parent / "grey.tif")
    core = correlative.project(mine, grey, min_thickness_um=2.0, erosion_um=record["erosion_um"], **view)
    target = tifffile.imread(energy).astype(float)
    moved = correlative.resample(core.density, 0.5, target.shape, 0.5, (40.0, 1.0, 1.0, -1.5))
    common = np.isfinite(moved) & (target != 0)
    exact = correlative.pearson(moved[common], target[common])
    assert record["correlation"]["low"] < exact < record["correlation"]["high"]
    assert record["correlation"]["r"] == pytest.approx(exact, abs=0.03)
    assert exact == pytest.approx(rho, abs=0.1)
    table = pd.read_csv(tmp_path / "correlate.csv")
    assert len(table) == record["correlation"]["pixels"]
    assert table["map"].min() > 8000
    assert table["thickness_um"].min() > 1.0
    np.testing.assert_allclose(np.corrcoef(table.density, table["map"])[0, 1], record["correlation"]["r"], atol=1e-6)
    before = (tmp_path / "correlate.svg").read_bytes()
    command(f"{line} --quiet")
    assert (tmp_path / "correlate.svg").read_bytes() == before
    options = "--rotation 0,90 --scale 1,1 --negative --min-thickness 4 --erosion 2 --direction -1,0,0 --seed 2"
    options += " --map-range 8349,8360"
    assert command(f"{line} --quiet --particle 4 {options}")[0] == 0
    other = json.loads((tmp_path / "correlate.json").read_text())
    assert other["direction"] == [-1.0, 0.0, 0.0]
    assert other["min_thickness_um"] == 4
    assert other["erosion_um"] == 2
    assert other["registration"]["scale"] == pytest.approx(1.0, abs=0.005)
    assert other["registration"]["score"] < 0.7 * record["registration"]["score"]
    assert pd.read_csv(tmp_path / "correlate.csv")["map"].min() >= 8349


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--pixel-size 0", "--pixel-size: must be a positive number, in micrometres; got 0"),
        ("", "--pixel-size: "),
        ("--pixel-size 0.5 --map-range 9000,9001", "--map: must hold at least 9 pixels of the particle"),
        ("--pixel-size 0.5 --map-range 3", "--map-range: must be LOW,HIGH, two numbers"),
        ("--pixel-size 0.5 --scale 0,1", "--scale: must be LOW,HIGH with LOW not above HIGH, both above 0; got 0,1"),
        ("--pixel-size 0.5 --rotation 9,1", "--rotation: must be LOW,HIGH, two numbers"),
        ("--pixel-size 0.5 --min-thickness 99", "--min-thickness: leaves fewer than 9 pixels of particle 4; got 99 um"),
        ("--pixel-size 0.5 --erosion 7", "--erosion: leaves fewer than 9 pixels of particle 4; got 7 um"),
        ("--pixel-size 0.5 --erosion=-1", "--erosion: must be 0 or more, in micrometres; got -1"),
        ("--pixel-size 0.5 --particle 5", "--particle: must be a label of this run, 4 to 4; got 5"),
    ],
)
def test_correlate_says_what_is_wrong(
    phantom_pair: tuple[Path, Path, float], tmp_path: Path, options: str, message: str
) -> None:
    run, energy, _ = phantom_pair
    code, _, complained = command(f"correlate {run} --map {energy} -o {tmp_path}/out {options}")
    assert code == 2
    assert message in complained
    assert not list(tmp_path.iterdir())


def test_maps_come_from_many_files(tmp_path: Path) -> None:
    image = np.arange(12.0).reshape(3, 4)
    with h5py.File(tmp_path / "map.h5", "w") as file:
        file["entry/energy"] = image
        file["stack"] = np.zeros((3, 4, 5))
    np.save(tmp_path / "map.npy", image)
    for source in (f"{tmp_path}/map.h5:/entry/energy", tmp_path / "map.npy", image):
        found, pixel = read_map(source, 0.04)
        np.testing.assert_array_equal(found, image)
        assert pixel == 0.04
    with pytest.raises(InputError, match=r"--map: must be one image; .* has 3 slices"):
        read_map(f"{tmp_path}/map.h5:/stack", 0.04)
    with pytest.raises(InputError, match=r"--pixel-size: .* does not state one"):
        read_map(image)
    assert parse_range("-1,2.5", "--scale") == (-1.0, 2.5)


def test_a_run_without_grey_values_has_no_density(tmp_path: Path) -> None:
    phases = np.zeros((12, 12, 12), np.uint8)
    phases[3:9, 3:9, 3:9], phases[2, 3:9, 3:9] = 2, 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_report", lambda run: run.out)
        cbdetach.run(
            None,
            tmp_path / "run",
            labels=(phases == 2).astype(np.int32),
            phases=phases,
            phase_values={"void": 0, "cbd": 1, "active": 2},
            voxel_size=1.0,
        ).close()
    with pytest.raises(InputError, match=r"this run has no grey volume on the disk; measure one, then correlate"):
        particle_map.correlate(tmp_path / "run", np.ones((5, 5)), tmp_path / "out", pixel_um=1.0)
    with pytest.raises(InputError, match=r"--direction: must be three finite numbers"):
        particle_map.correlate(tmp_path / "run", np.ones((5, 5)), tmp_path / "out", direction=(0.0, 0.0, 0.0))
    with pytest.raises(InputError, match=r"--scale: must be LOW,HIGH with LOW not above HIGH, both above 0; got 2,1"):
        particle_map.correlate(tmp_path / "run", np.ones((5, 5)), tmp_path / "out", scale=(2.0, 1.0))
