"""The detachment sweep: balls with caps of known length, what each option changes, formulas, and the two commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from tests.cbdetach.test_cli import command

import cbdetach
from cbdetach import detachment, particle, report, sweep
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.errors import InputError
from cbdetach.formula import evaluate
from cbdetach.report.streamlines import streamlines

Array = npt.NDArray[Any]
UNIT = (1.0, 1.0, 1.0)
RADIUS = 13.0


def ball(radius: float = RADIUS) -> tuple[Array, Array, Array]:
    """A ball, the distance from its centre, and the height over its middle along z."""
    half = int(np.ceil(radius)) + sweep.MARGIN
    z, y, x = np.indices((2 * half + 1,) * 3) - half
    r = np.sqrt(z * z + y * y + x * x)
    return r <= radius, r, z.astype(float)


def cap_length(r: Array, z: Array, covered: float) -> float:
    """Mean way in a ball to a cap at the far end of z: straight to the surface below it, to its rim from elsewhere."""
    inside = r <= RADIUS
    r, z = r[inside], z[inside]
    rim = np.arccos(1 - 2 * covered)
    off = np.sqrt(np.maximum(r**2 - z**2, 0))
    to_rim = np.hypot(off - RADIUS * np.sin(rim), z - RADIUS * np.cos(rim))
    return float(np.where(z >= r * np.cos(rim), RADIUS - r, to_rim).mean())


@pytest.fixture(scope="module")
def sides() -> sweep.Sweep:
    mine, _, _ = ball()
    return sweep.detachment_sweep(mine, mine, order="side", spacing=UNIT, steps=10)


def test_a_ball_that_loses_contact_from_one_side_is_a_ball_with_a_cap(sides: sweep.Sweep) -> None:
    _, r, z = ball()
    np.testing.assert_allclose(sides.detachment, np.linspace(0, 1, 11), atol=0.025)
    for detached, mean in zip(sides.detachment[:-1], sides.mean_um[:-1], strict=True):
        assert mean == pytest.approx(cap_length(r, z, 1 - detached), abs=0.3)
    assert sides.mean_um[0] == pytest.approx(RADIUS / 4, abs=0.2)
    assert sides.mean_um[9] / sides.mean_um[0] == pytest.approx(3.36, rel=0.05)
    assert np.isnan(sides.mean_um[-1])
    assert sides.unreached.tolist() == [0.0] * 10 + [1.0]


def test_the_order_of_removal_decides(sides: sweep.Sweep) -> None:
    mine, _, _ = ball()
    patches, scattered = (
        sweep.detachment_sweep(mine, mine, order=order, spacing=UNIT, steps=10) for order in ("patches", "scattered")
    )
    for found in (sides, patches, scattered):
        assert (np.diff(found.mean_um[:-1]) > -1e-6).all()
        assert (np.diff(found.detachment) > 0).all()
        assert (found.mean_um[:-1] <= found.max_um[:-1]).all()
    assert scattered.mean_um[8] < 0.8 * patches.mean_um[8] < 0.8 * sides.mean_um[8]


def test_detachment_is_that_of_the_electrode(sides: sweep.Sweep) -> None:
    """Against the stage that measures the electrode, with the carbon/binder of one step drawn into the phases."""
    mine, r, z = ball()
    kept = (r > RADIUS) & (r <= RADIUS + 3) & (z > RADIUS * (1 - 2 * 0.3))
    phases = np.where(mine, ACTIVE, np.where(kept, CBD, VOID)).astype(np.uint8)
    contacts = detachment.surface_classes(mine.astype(np.int32), phases, spacing=UNIT)
    columns = detachment.detachment_columns(contacts, np.array([1]))
    found = sweep.detachment_sweep(mine, mine, phases == CBD, order="side", spacing=UNIT, steps=4)
    assert found.detachment[0] == pytest.approx(columns["detachment_fraction"][0], abs=1e-12)
    assert found.detachment[0] == pytest.approx(0.7, abs=0.03)
    np.testing.assert_allclose(np.diff(found.detachment), (1 - found.detachment[0]) / 4, atol=0.02)


def test_every_option_changes_the_result() -> None:
    mine, _, _ = ball(8.0)
    mine[:, :, : mine.shape[2] // 2 - 3] = False  # no longer a ball
    solid = mine.copy()
    solid[mine.shape[0] // 2, :, : mine.shape[2] // 2 + 4] = False  # a crack
    base: dict[str, Any] = {"order": "patches", "spacing": UNIT, "steps": 4}
    first = sweep.detachment_sweep(mine, mine, **base)
    same = sweep.detachment_sweep(mine, mine, **base)
    np.testing.assert_array_equal(first.mean_um, same.mean_um)
    assert first.mean_um[2] != sweep.detachment_sweep(mine, mine, seed=1, **base).mean_um[2]
    assert sweep.detachment_sweep(mine, solid, **base).mean_um[3] > first.mean_um[3]
    assert sweep.detachment_sweep(mine, mine, **(base | {"steps": 7})).mean_um.shape == (8,)
    doubled = sweep.detachment_sweep(mine, mine, **(base | {"spacing": (2.0, 2.0, 2.0)}))
    np.testing.assert_allclose(doubled.mean_um, 2 * first.mean_um, rtol=1e-5)
    along = [
        sweep.detachment_sweep(mine, mine, **(base | {"order": "side", "direction": np.array(u)})).mean_um[3]
        for u in ((0.0, 0.0, 1.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0))
    ]
    assert len({round(float(v), 3) for v in along}) == 3


def test_what_cannot_be_swept() -> None:
    mine, _, _ = ball(4.0)
    with pytest.raises(ValueError, match=r"order: must be one of side, patches, scattered; got 'other'"):
        sweep.detachment_sweep(mine, mine, order="other", spacing=UNIT)
    with pytest.raises(ValueError, match=r"contact: must touch the particle somewhere; got none"):
        sweep.detachment_sweep(mine, mine, np.zeros_like(mine), order="side", spacing=UNIT)


# ---- formulas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 - d", [1.0, 0.5, 0.0]),
        ("1 / r", [1.0, 0.5, 0.0]),
        ("-d ** 2 + 2", [2.0, 1.75, 1.0]),
        ("min(d, 0.25) + max(d, 1)", [1.0, 1.25, 1.25]),
        ("sqrt(abs(exp(log(d))))", [0.0, np.sqrt(0.5), 1.0]),
        ("0.3", [0.3, 0.3, 0.3]),
    ],
)
def test_formulas(text: str, expected: list[float]) -> None:
    names = {"d": np.array([0.0, 0.5, 1.0]), "r": np.array([1.0, 2.0, np.inf])}
    np.testing.assert_allclose(evaluate(text, names, "--ionic"), expected)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 - x", "x is not known"),
        ("__import__('os')", "__import__ does not take these arguments"),
        ("d.real", "d.real is not allowed"),
        ("[d]", r"\[d\] is not allowed"),
        ("d if d else 1", "is not allowed"),
        ("True", "True is not allowed"),
        ("min(d)", "min does not take these arguments"),
        ("1 -", "it cannot be read"),
        ("1 / 0", "it has no value"),
        ("(-8) ** 0.5 + d", "it has no real value"),
    ],
)
def test_what_is_no_formula(text: str, what: str) -> None:
    names = {"d": np.zeros(2), "r": np.ones(2)}
    with pytest.raises(InputError, match=rf"--ionic: must be a formula of d, r, numbers, .*{what}"):
        evaluate(text, names, "--ionic")


# ---- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two balls: one on carbon/binder, one without any; and the grey values of their voxels."""
    z, y, x = np.indices((26, 26, 48))
    labels, phases = np.zeros(z.shape, np.int32), np.zeros(z.shape, np.uint8)
    for label, middle in ((3, 12), (7, 35)):
        r2 = (z - 12) ** 2 + (y - 12) ** 2 + (x - middle) ** 2
        labels[r2 <= 81] = label
        phases[(r2 <= 144) & (z > 14) & (label == 3)] = CBD
    phases[labels > 0] = ACTIVE
    out = tmp_path_factory.mktemp("particle") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_report", lambda run: run.out)
        cbdetach.run(
            None,
            out,
            labels=labels,
            phases=phases,
            phase_values={"void": 0, "cbd": 1, "active": 2},
            voxel_size=0.5,
        ).close()
    return out


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbdetach.report.drawing.DPI", 40)


def test_sweep_draws_what_was_asked_for(finished: Path, tmp_path: Path) -> None:
    code, said, complained = command(
        f"sweep {finished} -o {tmp_path} --steps 4 --ionic 'd ** 2' --electronic '1 - d' --direction 0,0,1 --seed 3"
    )
    assert (code, complained) == (0, "")
    assert [Path(line).name for line in said.splitlines()] == ["sweep.png", "sweep.svg", "sweep.csv"]
    table = pd.read_csv(tmp_path / "sweep.csv")
    assert table.groupby("order").size().to_dict() == {"patches": 5, "scattered": 5, "side": 5}
    np.testing.assert_allclose(table.ionic, table.detachment_fraction**2)
    np.testing.assert_allclose(table.electronic, 1 - table.detachment_fraction)
    first = (tmp_path / "sweep.svg").read_bytes(), (tmp_path / "sweep.png").read_bytes()
    command(f"sweep {finished} -o {tmp_path} --steps 4 --ionic 'd ** 2' --electronic '1 - d' --direction x --seed 3")
    assert ((tmp_path / "sweep.svg").read_bytes(), (tmp_path / "sweep.png").read_bytes()) == first
    command(f"sweep {finished} -o {tmp_path} --steps 4 --measured --particle 3 --quiet")
    measured = pd.read_csv(tmp_path / "sweep.csv")
    with cbdetach.open_run(finished) as run:
        row = run.table.set_index("label").loc[3]
    start = measured[measured.order == "side"].iloc[0]
    assert start.detachment_fraction == pytest.approx(row.detachment_fraction, abs=1e-9)
    assert start.diffusion_length_mean_um == pytest.approx(row.diffusion_length_mean_um, rel=0.02)
    assert start.electronic == 1.0


def test_curves_may_come_from_a_table(finished: Path, tmp_path: Path) -> None:
    curves = tmp_path / "curves.csv"
    curves.write_text("detachment,electronic,ionic\n0,1,0\n0.5,0.9,0.2\n1,0,1\n")
    assert command(f"sweep {finished} -o {tmp_path} --steps 4 --curves {curves}")[0] == 0
    table = pd.read_csv(tmp_path / "sweep.csv")
    np.testing.assert_allclose(table.electronic, np.interp(table.detachment_fraction, [0, 0.5, 1], [1, 0.9, 0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--particle 5", "--particle: must be a label of this run, 3 to 7; got 5"),
        ("--particle 7 --measured", "--particle: 7 has no contact to lose; leave --measured out"),
        ("--steps 1", "--steps: must be 2 to 1000; got 1"),
        ("--direction 0,0,0", "--direction: must be z, y, x or three numbers z,y,x, not all 0; got '0,0,0'"),
        ("--direction up", "--direction: must be z, y, x or three numbers"),
        ("--ionic os", "--ionic: must be a formula of d, r, numbers"),
        ("--curves nowhere.csv", "--curves: there is no file nowhere.csv; give a CSV file"),
        ("--curves nowhere.csv --ionic d", "--curves: goes without --electronic and --ionic"),
    ],
)
def test_sweep_says_what_is_wrong(finished: Path, tmp_path: Path, options: str, message: str) -> None:
    code, _, complained = command(f"sweep {finished} -o {tmp_path} {options}")
    assert code == 2
    assert message in complained
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "must have the columns detachment, electronic, ionic; got a, b. Name them in its first line."),
        ("detachment,electronic,ionic\n0,1,1\n", "got 1 row. Sort the rows by detachment, and leave no cell empty."),
        ("detachment,electronic,ionic\n0,1,1\n1,x,1\n", "got no number for electronic in row 2. Sort"),
        ("detachment,electronic,ionic\n0,1,1\n2,1,1\n", "got a detachment of 2 in row 2. Sort"),
        ("detachment,electronic,ionic\n0.5,1,1\n0.2,1,1\n", "got a detachment of 0.2 in row 2. Sort"),
        ("detachment,electronic,ionic\n-1,1,1\n0.2,1,1\n", "got a detachment of -1 in row 1. Sort"),
        ("a\n1\n1,2,3\n", "cannot be read as CSV (Error tokenizing data."),
        ("", "cannot be read as CSV (No columns to parse from file); give a CSV file with a header."),
    ],
)
def test_what_is_wrong_with_curves_is_one_line_with_advice(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        particle.read_curves(tmp_path / "curves.csv")
    assert str(caught.value).startswith(f"--curves: {tmp_path}/curves.csv ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_direction_as_numbers_from_python(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--direction: must be three finite numbers"):
        particle.detachment_sweep(finished, tmp_path, direction=(0.0, 0.0, 0.0))


def test_a_folder_that_is_a_file(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    code, _, complained = command(f"sweep {finished} -o {tmp_path}/taken --steps 2")
    assert code == 2
    assert "-o/--out:" in complained


def test_streamlines_end_at_the_contact(finished: Path, tmp_path: Path) -> None:
    code, said, _ = command(f"streamlines {finished} -o {tmp_path}")
    assert code == 0
    assert [Path(line).name for line in said.splitlines()] == [f"streamlines.{kind}" for kind in ("png", "svg", "csv")]
    table = pd.read_csv(tmp_path / "streamlines.csv")
    assert set(table.panel) == {"slice", "surface"}
    assert set(table.label) == {3}
    with cbdetach.open_run(finished) as run:
        lengths, row = run.volumes["diffusion_length"][()], run.table.set_index("label").loc[3]
    near = []
    for (panel, _), path in table.groupby(["panel", "path"]):
        points = path[["z_index", "y_index", "x_index"]].to_numpy()
        walked = 0.5 * np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
        start = lengths[tuple(np.rint(points[0]).astype(int))]
        # on the slice paths start at voxel centres; on the surface up to a voxel's half diagonal from one
        near.append(abs(walked - start) <= 0.03 * start + (0.25 if panel == "slice" else 0.25 + 0.43))
    assert np.mean(near) >= 0.95
    main = table[(table.panel == "slice") & (table.path == table[table.panel == "slice"].path.max())]
    points = main[["z_index", "y_index", "x_index"]].to_numpy()
    assert lengths[tuple(points[0].astype(int))] == pytest.approx(row.diffusion_length_max_um)
    on_slice = table[table.panel == "slice"].groupby("path").first()
    assert on_slice.z_index.nunique() == 1
    before = (tmp_path / "streamlines.svg").read_bytes()
    command(f"streamlines {finished} -o {tmp_path} --quiet --particle 3")
    assert (tmp_path / "streamlines.svg").read_bytes() == before
    command(f"streamlines {finished} -o {tmp_path} --quiet --seed 1")
    assert (tmp_path / "streamlines.svg").read_bytes() != before


def test_a_particle_without_contact_has_no_streamlines(finished: Path, tmp_path: Path) -> None:
    code, _, complained = command(f"streamlines {finished} -o {tmp_path} --particle 7")
    assert code == 2
    assert "--particle: particle 7 has no diffusion length, so there are no ways to draw. Choose another one." in (
        complained
    )


def test_unreached_solid_is_drawn_grey() -> None:
    """Half of the particle lies behind a crack."""
    labels = np.zeros((12, 12, 20), np.int32)
    labels[2:10, 2:10, 2:18] = 1
    phases = np.where(labels > 0, ACTIVE, VOID).astype(np.uint8)
    lengths = np.where(labels > 0, np.indices(labels.shape)[2] - 1.5, np.nan).astype(np.float32)
    lengths[:, :, 11:] = np.where(labels[:, :, 11:] > 0, np.inf, np.nan)
    drawing = streamlines(labels, phases, lengths, 1, np.array([2, 2, 2, 10, 10, 18]), UNIT)
    assert not isinstance(drawing, str)
    assert drawing.table.x_index.max() < 11.5
    drawing = streamlines(labels, phases, np.full(labels.shape, np.inf), 1, np.array([2, 2, 2, 10, 10, 18]), UNIT)
    assert drawing == "Particle 1 has no diffusion length, so there are no ways to draw."


def test_without_any_length_a_label_is_asked_for(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cbdetach.open_run(finished) as run:
        monkeypatch.setattr(run, "table", run.table.assign(diffusion_length_max_um=np.nan), raising=False)
        with pytest.raises(InputError, match=r"--particle: no particle of this run has a diffusion length"):
            particle.find_particle(run)
