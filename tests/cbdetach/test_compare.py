"""`cbdetach compare`: false positives and power on made-up electrodes, what is read and refused, what is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.cbdetach.fake_electrodes import electrode_values, fake_electrodes, fake_sample, fake_table
from tests.cbdetach.test_cli import command

from cbdetach import compare as stage
from cbdetach.compare import compare_electrodes, group_tests, same_size_values
from cbdetach.config import Settings
from cbdetach.electrodes import Electrode, parse_rate
from cbdetach.errors import InputError
from cbdetach.report import comparison, relations

RATES = [0.1] * 4 + [5.0] * 4


def verdict(values: np.ndarray, groups: list[float]) -> float:
    """p of the first family, the result of a comparison, from the (E, n) detachments of electrodes."""
    samples = [fake_sample(v, seed=k) for k, v in enumerate(values)]
    edges = relations.size_edges(np.concatenate([s.diameter for s in samples]))
    medians, counts = stage.class_medians(samples, edges)
    value, _ = same_size_values(medians, counts, np.array([np.median(v) for v in values]))
    tests = group_tests(value, medians, groups, edges)
    return float(tests.loc[tests["kind"] == "all sizes", "p"].iloc[0])


# ---- the musts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("icc", [0.0, 0.05, 0.1])
def test_nulls_with_an_electrode_effect_are_not_called(icc: float) -> None:
    """200 comparisons of 4 with 4 electrodes of one kind, neighbours correlated: at most 16 with p < 0.05."""
    rng = np.random.default_rng(int(100 * icc))
    called = sum(
        verdict(electrode_values(rng, 8, 125, mean=np.full(8, 0.38), sd=0.11, icc=icc), RATES) < 0.05
        for _ in range(200)
    )
    assert called <= 16


def test_a_particle_level_test_would_call_them() -> None:
    """Why the electrode is the unit: with the particle as the unit a quarter of the nulls and more look real."""
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    values = [electrode_values(rng, 8, 125, mean=np.full(8, 0.38), sd=0.11, icc=0.05) for _ in range(60)]
    assert sum(mannwhitneyu(v[:4].ravel(), v[4:].ravel()).pvalue < 0.05 for v in values) > 15


@pytest.mark.parametrize("icc", [0.0, 0.05, 0.1])
def test_a_planted_shift_is_found(icc: float) -> None:
    """A shift of 0.10, 4 against 4 electrodes: found in at least 80 % of 200."""
    rng = np.random.default_rng([7, int(100 * icc)])
    mean = 0.38 + 0.1 * np.repeat([0, 1], 4)
    found = [verdict(electrode_values(rng, 8, 125, mean=mean, sd=0.11, icc=icc), RATES) < 0.05 for _ in range(200)]
    assert np.mean(found) >= 0.8


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_a_comparison_of_two_rates() -> None:
    found = compare_electrodes(fake_electrodes(np.random.default_rng(1), RATES))
    assert found.groups == ["C/10", "5C"]
    rows = found.electrodes
    assert rows["n"].tolist() == [216] * 8  # the cut ones are left out
    assert (rows["n_effective"] < 0.8 * rows["n"]).all()
    assert (rows["median_low"] < rows["median"]).all()
    assert (rows["median_high"] > rows["median"]).all()
    assert (rows["total_area_weighted"] > rows["median"] + 0.008).all()  # the cut ones, at 0.9, count in the whole
    first = found.tests[found.tests["kind"] == "all sizes"]
    assert len(first) == 1
    assert first["difference"].iloc[0] == pytest.approx(0.1, abs=0.06)
    assert first["p_counted"].iloc[0] == pytest.approx(2 / 70)
    assert first["p"].iloc[0] == pytest.approx(0.003, abs=0.003)
    classes = found.tests[found.tests["kind"] == "size class"]
    assert (classes["p_holm"] >= classes["p"]).all()
    assert (classes["smallest_p_holm"] > 0.05).all()  # so many classes: a count cannot reach it
    assert found.sentences[0].startswith("5C against C/10: +0.")
    assert set(found.correlations["kind"]) == {kind for kind, *_ in relations.CORRELATIONS}
    assert "worth" in str(found)


def test_few_electrodes_are_told_what_they_can_reach() -> None:
    found = compare_electrodes(fake_electrodes(np.random.default_rng(2), [0.1, 0.1, 1.0, 1.0, 5.0, 5.0]))
    assert len(found.tests[found.tests["kind"] == "all sizes"]) == 3
    assert all("the smallest p that can be reached is 0.333" in s for s in found.sentences)
    assert all("(Holm)" in s for s in found.sentences)


def test_one_electrode_a_group_gives_a_difference_and_no_p() -> None:
    found = compare_electrodes(fake_electrodes(np.random.default_rng(3), [0.1, 5.0]))
    assert found.tests["p"].isna().all()
    assert "there is no p" in found.sentences[0]
    gap = found.electrodes["median"].diff().iloc[1]
    assert f"These two differ by {gap:+.3f} in their median" in found.sentences[0]
    uneven = compare_electrodes(fake_electrodes(np.random.default_rng(3), [0.1, 5.0, 5.0]))
    assert uneven.tests["p"].isna().all()
    assert "cannot tell the rate from the electrode" in uneven.sentences[0]
    alone = compare_electrodes(fake_electrodes(np.random.default_rng(3), [0.1, 0.1]))
    assert alone.sentences[0] == "All electrodes have one rate: there is nothing to test."


def test_other_sizes_alone_are_no_difference() -> None:
    """Detachment depends on size alone, and one group has larger particles: plain medians differ, same sizes do not."""
    rng = np.random.default_rng(0)
    edges = np.array([4.0, 6, 8, 12])
    samples = []
    for k in range(8):
        made = fake_sample(np.zeros(216))
        diameter = rng.choice([5.0, 7.0, 9.0], 216, p=(0.6, 0.3, 0.1) if k < 4 else (0.1, 0.3, 0.6))
        samples.append(
            relations.Sample(
                **(vars(made) | {"diameter": diameter, "detachment": 0.06 * diameter + rng.normal(0, 0.01, 216)})
            )
        )
    medians, counts = stage.class_medians(samples, edges)
    plain = np.array([np.median(s.detachment) for s in samples])
    value, same = same_size_values(medians, counts, plain)
    assert same
    assert plain[4:].mean() - plain[:4].mean() > 0.1
    assert abs(value[4:].mean() - value[:4].mean()) < 0.005
    nothing, same = same_size_values(np.full((8, 3), np.nan), counts, plain)
    assert not same
    np.testing.assert_array_equal(nothing, plain)


def test_volumes_of_one_electrode_are_one() -> None:
    rng = np.random.default_rng(5)
    made = fake_electrodes(rng, [0.1, 0.1, 5.0, 5.0])
    pooled = [
        Electrode("a", made[0].about, [made[0].tables[0], made[1].tables[0]]),
        Electrode("b", made[2].about, [made[2].tables[0], made[3].tables[0]]),
    ]
    found = compare_electrodes(pooled)
    apart = compare_electrodes(made).electrodes
    assert found.electrodes["n"].tolist() == [432, 432]
    assert found.electrodes["n_effective"][0] == pytest.approx(apart["n_effective"][:2].sum())
    assert found.tests["p"].isna().all()


def test_erosion_table_follows_the_depth() -> None:
    """A false correlation by blur at the surface fades with depth; depths that only one volume has are left out."""
    rng = np.random.default_rng(0)
    detachment = rng.uniform(0, 1, 216)
    found = relations.sample(fake_table(detachment))
    frames = []
    for volume in range(2):
        for depth, false in ((0.0, 1.0), (0.5, 0.4), (1.0, 0.0), (1.5 + volume, 0.0)):
            mean = rng.normal(0, 0.3, 216) - false * detachment
            frames.append(pd.DataFrame({"label": np.arange(1, 217), "erosion_um": depth, "density_mean": mean}))
    densities = [pd.concat(frames[:4]), pd.concat(frames[4:])]
    both = relations.joined([found, relations.sample(fake_table(detachment), 1)])
    table = relations.erosion_table(both, densities)
    assert table["erosion_um"].tolist() == [0.0, 0.5, 1.0]
    assert table["n"].tolist() == [432] * 3
    assert table["r"].iloc[0] < -0.5
    assert (np.diff(table["r"]) > 0).all()
    assert table["r_low"].iloc[2] < 0 < table["r_high"].iloc[2]
    assert len(relations.erosion_table(both, [])) == 0
    for frame in densities:  # most particles are too thin for the deepest: it is left out, and they are not
        frame.loc[(frame["erosion_um"] >= 1) & (frame["label"] > 50), "density_mean"] = np.nan
    more = [pd.concat([f, f[f["erosion_um"] == 0].assign(erosion_um=0.25)]) for f in densities]
    table = relations.erosion_table(both, more)
    assert table["erosion_um"].tolist() == [0.0, 0.25, 0.5]
    assert table["n"].tolist() == [432] * 3


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("C/10", 0.1), ("5C", 5), ("1c", 1), ("C", 1), ("0.5", 0.5), (2, 2), ("2 C", 2)]
)
def test_rates_are_read_as_people_write_them(text: str | float, value: float) -> None:
    assert parse_rate(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["fast", "C/0", "-1C", "", "0", float("inf")])
def test_what_is_no_rate(text: str | float) -> None:
    with pytest.raises(InputError, match=r"rate: must (read like C/10|be a positive)"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("by", "value", "text"),
    [
        ("rate", 0.1, "C/10"),
        ("rate", 5.0, "5C"),
        ("cycles", 50.0, "50 cycles"),
        ("cycles", 1.0, "1 cycle"),
        ("state_of_charge", 0.8, "80 %"),
    ],
)
def test_groups_have_names(by: str, value: float, text: str) -> None:
    assert comparison.shown(by, value) == text


def write_run(
    folder: Path, electrode: Electrode, *, voxel: float = 0.4, blur: float = 0.8, metadata: dict[str, Any] | None = None
) -> Path:
    """The least that a finished run leaves for `compare`."""
    folder.mkdir(parents=True)
    settings = Settings().to_dict() | {"metadata": metadata or {}}
    record = {
        "finished": True,
        "settings": settings,
        "voxel_size_um": [voxel] * 3,
        "edge_width_um": blur,
        "peaks": {
            "active": {"voxels": 10_000, "position": 44_000.0, "fwhm": 4000.0},
            "cbd": {"voxels": 0, "position": None, "fwhm": None},
        },
    }
    (folder / "run.json").write_text(json.dumps(record))
    electrode.tables[0].to_parquet(folder / "particles.parquet")
    labels = electrode.tables[0]["label"]
    rng = np.random.default_rng(1)
    pd.concat(
        [
            pd.DataFrame({"label": labels, "erosion_um": d, "density_mean": rng.normal(1, 0.1, len(labels))})
            for d in (0.0, 0.8)
        ]
    ).to_csv(folder / "densities.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    made = fake_electrodes(np.random.default_rng(8), [0.1, 0.1, 5.0, 5.0], n=125)
    return [
        write_run(
            root / f"run{k}",
            e,
            metadata={"rate": "C/10" if k < 2 else "5C", "cycles": 10 * (k + 1), "state_of_charge": 0.5},
        )
        for k, e in enumerate(made)
    ]


@pytest.fixture(scope="module")
def written(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("comparison") / "out"
    capacity = out.parent / "capacity.csv"
    capacity.write_text(
        "rate,cycle,capacity\n"
        + "\n".join(f"{r},{c},{200 - c * (1 if r == 'C/10' else 3)}" for r in ("C/10", "5C") for c in range(0, 30, 5))
    )
    _, warnings = stage.compare(runs, out, cycling=capacity)
    assert warnings == []
    return out


def test_everything_is_written(written: Path) -> None:
    assert {p.name for p in written.iterdir()} == {*stage.OWN_NAMES, "figures"}
    names = {p.stem for p in written.glob("figures/*")}
    assert names == {
        "detachment_groups",
        "detachment_size_groups",
        "detachment_volume",
        "spread_size",
        "density_correlations",
        "density_erosion",
        "peak_widths",
        "cycling",
    }
    assert {p.suffix for p in written.glob("figures/*")} == {".png", ".svg", ".csv"}
    assert len(list(written.glob("figures/*"))) == 3 * len(names)
    page = (written / "compare.html").read_text()
    assert "5C against C/10" in page
    assert page.count("data:image/") == len(names)
    record = json.loads((written / "compare.json").read_text())
    assert record["by"] == "rate"
    assert [r["electrode"] for r in record["runs"]] == ["run0", "run1", "run2", "run3"]
    tests = pd.read_csv(written / "tests.csv")
    assert tests["p"].iloc[0] == pytest.approx(1 / 3)
    assert pd.read_csv(written / "figures" / "detachment_volume.csv").shape[0] == 4 * 125


def test_equal_input_gives_equal_bytes(written: Path, runs: list[Path], tmp_path: Path) -> None:
    stage.compare(runs, tmp_path / "again", cycling=written.parent / "capacity.csv")
    for path in written.rglob("*.*"):
        again = tmp_path / "again" / path.relative_to(written)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest(), path.name


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers alone: the figures take most of the time."""
    monkeypatch.setattr(comparison, "write_page", lambda *_, **__: None)


@pytest.mark.usefixtures("no_page")
def test_one_volume_that_counts_twice(runs: list[Path], tmp_path: Path) -> None:
    """Two runs on the same voxels are no two electrodes, whatever else was given to one of them."""
    copies = [shutil.copytree(path, tmp_path / path.name) for path in runs]
    digests = ({"volume": "a"}, {"volume": "b"}, {"volume": "a", "labels": "c"}, {"labels": "d"})
    for path, digest in zip(copies, digests, strict=True):
        record = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps(record | {"sha256": digest}))
    _, warnings = stage.compare(copies, tmp_path / "out")
    assert len(warnings) == 1
    assert warnings[0].startswith("run0 and run2 are runs on the same voxels, and count as two electrodes: leave one")
    table = tmp_path / "about.csv"
    names = ("one", "two", "one", "three")
    rows = [f"{path.name},{name},{rate}" for path, name, rate in zip(copies, names, (1, 1, 1, 5), strict=True)]
    table.write_text("run,electrode,rate,cycles,state_of_charge\n" + "\n".join(f"{row},1,1" for row in rows))
    assert stage.compare(copies, tmp_path / "out", metadata=table, overwrite=True)[1] == []


@pytest.mark.usefixtures("no_page")
def test_metadata_from_a_table(runs: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "about.csv"
    rows = [f"{p.name if k else p},e{k // 2},{0.1 if k < 2 else '5C'}," for k, p in enumerate(runs)]
    table.write_text("run,electrode,rate,cycles\n" + "\n".join(rows))
    with pytest.raises(
        InputError, match=r"--metadata: run1: electrode e0 must have one rate, cycles and state of charge"
    ):
        stage.compare(runs, tmp_path / "out", metadata=table)  # the runs' own cycles differ
    table.write_text("run,electrode,rate,cycles\n" + "\n".join(row + "7" for row in rows))
    found, _ = stage.compare(runs, tmp_path / "out", metadata=table)
    assert found.electrodes["electrode"].tolist() == ["e0", "e1"]
    assert found.electrodes["volumes"].tolist() == [2, 2]
    assert found.electrodes["cycles"].tolist() == [7, 7]


@pytest.mark.usefixtures("no_page")
def test_other_groupings_and_size_classes(runs: list[Path], tmp_path: Path) -> None:
    found, _ = stage.compare(runs, tmp_path / "a", by="cycles", size_classes="3,6,12")
    assert found.groups == ["10 cycles", "20 cycles", "30 cycles", "40 cycles"]
    assert found.size_classes["from_um"].unique().tolist() == [3, 6]
    other, _ = stage.compare(runs, tmp_path / "b", by="state_of_charge", seed=1)
    assert other.sentences[0] == "All electrodes have one state of charge: there is nothing to test."
    assert (
        other.spread["null_low"].dropna()
        != stage.compare(runs, tmp_path / "c", by="state_of_charge")[0].spread["null_low"].dropna()
    ).any()


def test_unlike_runs_are_warned_about(tmp_path: Path) -> None:
    made = fake_electrodes(np.random.default_rng(0), [0.1, 5.0], n=125)
    a = write_run(tmp_path / "a" / "run", made[0], metadata={"rate": 0.1})
    b = write_run(tmp_path / "b" / "run", made[1], voxel=0.8, blur=1.6, metadata={"rate": 5})
    record = json.loads((b / "run.json").read_text())
    record["settings"]["detachment"]["tolerance_um"] = 0.5
    (b / "run.json").write_text(json.dumps(record))
    found, said = stage.compare([a, b], tmp_path / "out")
    assert found.electrodes["electrode"].tolist() == ["a/run", "b/run"]
    assert [s.split(" differ")[0].split(" were")[0] for s in said] == ["The voxel sizes", "The blur", "The runs"]
    assert "cycling" not in {p.stem for p in (tmp_path / "out" / "figures").iterdir()}
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "No table of capacities was given" in page
    assert all(s in page for s in said)


def _metadata(text: str) -> Callable[[list[Path], Path], Any]:
    def call(runs: list[Path], tmp: Path) -> Any:
        (tmp / "m.csv").write_text(text)
        return stage.compare(runs, tmp / "out", metadata=tmp / "m.csv")

    return call


def _cycling(text: str) -> Callable[[list[Path], Path], Any]:
    def call(runs: list[Path], tmp: Path) -> Any:
        (tmp / "c.csv").write_text(text)
        return stage.compare(runs, tmp / "out", cycling=tmp / "c.csv")

    return call


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda r, t: stage.compare(r, t / "out", by="colour"),
            r"--by: must be rate, cycles or state_of_charge; got 'colour'",
        ),
        (lambda r, t: stage.compare([], t / "out"), r"RUN: must be at least one folder"),
        (lambda r, t: stage.compare([r[0], r[0]], t / "out"), r"RUN: must be different folders"),
        (lambda r, t: stage.compare([t], t / "out"), r"not the folder of a run"),
        (lambda r, t: stage.compare(r, t / "out", size_classes="4,b"), r"--size-classes: must read like 2,4,8"),
        (
            lambda r, t: stage.compare(r, t / "out", size_classes="4,2"),
            r"--size-classes: must be two or more ascending",
        ),
        (lambda r, t: stage.compare(r, t / "out", metadata=t / "none.csv"), r"--metadata: there is no file"),
        (lambda r, t: stage.compare(r, t / "out", cycling=t / "none.csv"), r"--cycling: there is no file"),
        (_metadata(""), r"--metadata: .* cannot be read as CSV"),
        (_metadata("folder,rate\na,1\n"), r"--metadata: .* must have a column run"),
        (_metadata("run,rate\nrun0,1\nrun0,2\n"), r"must name each run once; got run0 twice"),
        (_metadata("run,rate\nrun0,1\n"), r"--metadata: must have a row for every run; there is none for run1"),
        (_metadata("run,rate\nrun0,quick\n"), r"--metadata: run0: rate: must read like C/10"),
        (_metadata("run,cycles\nrun0,many\n"), r"--metadata: run0: cycles must be a number; got 'many'"),
        (_metadata("run,cycles\nrun0,-1\n"), r"--metadata: run0: cycles must be 0 or more"),
        (_metadata("run,state_of_charge\nrun0,80\n"), r"--metadata: run0: state_of_charge must be 0 to 1; got 80"),
        (_cycling("cycle,capacity\n1,2\n"), r"--cycling: .* one of electrode or rate"),
        (_cycling("cycle,capacity,rate\n1,much,1C\n"), r"--cycling: .*: capacity must be a number in every row"),
        (
            lambda r, t: stage.compare(r, t / "m.csv" / "x") if not (t / "m.csv").write_text("") else None,
            r"-o/--out: .* cannot be written",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    call: Callable[[list[Path], Path], Any], message: str, runs: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        call(runs, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_rate_and_one_without_detachment(tmp_path: Path) -> None:
    made = fake_electrodes(np.random.default_rng(0), [0.1], n=125)[0]
    a = write_run(tmp_path / "a", made)
    with pytest.raises(InputError, match=r"a: must have a rate to be compared by it"):
        stage.compare([a], tmp_path / "out")
    with pytest.raises(InputError, match=r"no particle has a degree of detachment"):
        compare_electrodes([Electrode("bare", made.about, [made.tables[0].assign(detachment_fraction=np.nan)])])


def test_too_few_particles_for_an_interval_are_said_to_be() -> None:
    made = fake_electrodes(np.random.default_rng(0), [0.1, 0.2], n=125)
    few = [
        Electrode(name, each.about | {"rate": rate}, [each.tables[0].iloc[:3]])
        for name, rate, each in zip("ab", (0.1, 5.0), made, strict=True)
    ]
    said = str(compare_electrodes(few))
    assert "nan" not in said
    assert said.count("(no interval: too few particles)") == 3


def test_nothing_is_replaced_unasked(written: Path, runs: list[Path]) -> None:
    with pytest.raises(InputError, match=r"holds a comparison; choose another folder, or replace it with --overwrite"):
        stage.compare(runs, written)
    before = (written / "compare.json").read_bytes()
    stage.compare(runs, written, cycling=written.parent / "capacity.csv", overwrite=True)
    assert (written / "compare.json").read_bytes() == before


@pytest.mark.usefixtures("no_page")
def test_the_command_line(runs: list[Path], tmp_path: Path) -> None:
    """Every option arrives; the numbers are printed, or with --quiet nothing; bad input is one line and code 2."""
    table, capacity = tmp_path / "m.csv", tmp_path / "c.csv"
    table.write_text("run,rate,cycles\n" + "\n".join(f"{p.name},1,{5 * (k % 2)}" for k, p in enumerate(runs)))
    capacity.write_text("rate,cycle,capacity\n1C,1,2\n")
    line = f"compare {' '.join(map(str, runs))} -o {tmp_path / 'out'}"
    options = f"--metadata {table} --by cycles --size-classes 3,6,12 --cycling {capacity} --seed 3"
    code, out, _ = command(f"{line} {options}")
    assert code == 0
    assert "5 cycles against 0 cycles" in out
    assert "(worth " in out
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (record["by"], record["seed"], record["size_classes_um"]) == ("cycles", 3, [3, 6, 12])
    code, _, err = command(line)
    assert code == 2
    assert "holds a comparison" in err
    assert command(f"{line} {options} --overwrite --quiet")[:2] == (0, "")
