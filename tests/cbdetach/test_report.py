"""The report: one page that needs nothing else, figures with their data, a plain sentence for what does not exist."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cbdetach.fake_run import fake_run, phases_only, without_cbd

from cbdetach import codes
from cbdetach.report import ReportInput, damage_figures, drawing, render, style, summarise, views, write_report
from cbdetach.report.summary import MIN_PER_BIN, quartiles, size_classes, used_rows, weighted_quantile

SECTIONS = {
    "headline",
    "flow",
    "volume",
    "size",
    "sensitivity",
    "connected",
    "gallery",
    "paths",
    "depth",
    "features",
    "density",
    "resolution",
    "table",
    "checks",
    "settings",
}
FIGURES = {
    "flow",
    "slices_particles",
    "slices_phases",
    "slices_detachment",
    "slices_diffusion",
    "detachment_distribution",
    "detachment_size",
    "detachment_volume",
    "density_detachment",
    "peaks",
    "detachment_threshold",
    "detachment_tolerance",
    "connected_slices",
    "connected_detachment",
    "gallery",
    "longest_path",
    "streamlines",
    "damage_slices",
    "depth_profile",
    "radial_profile",
    "histogram",
    "regional_histograms",
    "edge_profile",
    "cbd_thickness",
}
TOO_FEW = [
    "No size class holds 10 particles, so their spread cannot be told.",
    "The run has no features.",
    "Fewer than 10 particles have a density at every erosion depth.",
]
"""What nine particles are not enough for; test_relation_figures.py has more."""

VOID_ELEMENTS = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """The page's ids, headline numbers, links, pictures, sentences about what is missing, and table."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.keys: dict[str, float] = {}
        self.shown: dict[str, str] = {}
        self.links: list[str] = []
        self.sources: list[str] = []
        self.missing: list[str] = []
        self.rows: list[list[str]] = []
        self.stack: list[tuple[str, dict[str, str | None]]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if name := values.get("id"):
            assert name not in self.ids, f"twice: {name}"
            self.ids.add(name)
            if tag == "data":
                self.keys[name.removeprefix("key-")] = float(values["value"] or "nan")
        self.links += [v for k, v in attrs if k == "href" and v]
        self.sources += [v for k, v in attrs if k == "src" and v]
        if tag == "img":
            assert values.get("alt") is not None
        if tag == "tr":
            self.rows.append([])
        if tag not in VOID_ELEMENTS:
            self.stack.append((tag, values))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self.stack.pop()
        assert opened == tag

    def handle_data(self, data: str) -> None:
        if not self.stack:
            return
        tag, values = self.stack[-1]
        if tag == "p" and values.get("class") == "missing":
            self.missing.append(data.strip())
        if tag == "data" and values.get("id"):
            self.shown[str(values["id"]).removeprefix("key-")] = data
        if tag == "td":
            self.rows[-1].append(data)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def figure_names(folder: Path) -> set[str]:
    names = [p.name for p in (folder / "figures").iterdir()]
    stems = {Path(n).stem for n in names}
    assert sorted(names) == sorted(f"{s}.{k}" for s in stems for k in ("png", "svg", "csv"))
    return stems


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportInput, Page]:
    run = fake_run(tmp_path_factory.mktemp("report"))
    return run, Page(write_report(run))


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures, where only the page's content matters."""
    monkeypatch.setattr(drawing, "DPI", 40)


# ---- the whole page


def test_page_has_every_section_and_figure_with_its_data(written: tuple[ReportInput, Page]) -> None:
    run, page = written
    assert page.ids >= SECTIONS
    assert page.missing == TOO_FEW
    assert figure_names(run.out) == FIGURES
    for name in FIGURES:
        assert len(pd.read_csv(run.out / "figures" / f"{name}.csv")) > 0, name


def test_page_needs_nothing_else(written: tuple[ReportInput, Page]) -> None:
    run, page = written
    assert all(source.startswith("data:image/") for source in page.sources)
    outside = [link for link in page.links if "//" in link]
    assert outside == ["https://doi.org/10.1038/s41467-020-16233-5"]
    for link in page.links:
        if not link.startswith("#") and link not in outside and not link.startswith(("particles.csv", "columns.json")):
            assert (run.out / link).is_file(), link
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
    assert "@import" not in page.text
    assert "url(" not in page.text
    assert len(page.text) < 8e6


def test_equal_input_gives_equal_bytes_whatever_matplotlib_is_set_to(
    written: tuple[ReportInput, Page], tmp_path: Path
) -> None:
    import matplotlib

    run, _ = written
    with matplotlib.rc_context({"font.size": 22, "savefig.dpi": 50, "svg.hashsalt": "other"}):
        write_report(replace(run, out=tmp_path))
        assert matplotlib.rcParams["font.size"] == 22
    assert hashes(tmp_path) == hashes(run.out)
    assert not [p for p in tmp_path.rglob("*") if "part" in p.suffix]


def test_figures_carry_no_date_and_no_software(written: tuple[ReportInput, Page]) -> None:
    run, _ = written
    for path in (run.out / "figures").glob("*.png"):
        assert b"tEXt" not in path.read_bytes()
    for path in (run.out / "figures").glob("*.svg"):
        assert "<dc:date>" not in path.read_text(encoding="utf-8")


def test_headline_is_the_tables(written: tuple[ReportInput, Page]) -> None:
    run, page = written
    table = run.table
    whole = table[~table["touches_border"]]
    used = whole[whole["detachment_fraction"].notna()]
    assert page.keys["found"] == len(table)
    assert page.keys["cut"] == table["touches_border"].sum()
    assert page.keys["used"] == len(used)
    assert page.keys["no_contact"] == (whole["diffusion_status"] == "no_contact").sum()
    for key, values in (
        ("detachment", used["detachment_fraction"]),
        ("length", used["diffusion_length_mean_um"].dropna()),
        ("diameter", whole["equivalent_diameter_um"]),
    ):
        expected = values.quantile([0.25, 0.5, 0.75]).to_list()
        assert [page.keys[f"{key}-q1"], page.keys[key], page.keys[f"{key}-q3"]] == pytest.approx(expected, rel=1e-12)
        assert page.keys[f"{key}-n"] == len(values)
    assert (
        page.keys["detachment_weighted"]
        == pytest.approx(summarise(table).detachment_weighted.median)
        != pytest.approx(page.keys["detachment"])
    )
    assert page.shown["detachment"] == f"{page.keys['detachment']:.2f}"


def test_flow_adds_up(written: tuple[ReportInput, Page]) -> None:
    run, _ = written
    n = pd.read_csv(run.out / "figures" / "flow.csv").set_index("step")["particles"]
    assert n["found"] == n["cut"] + n["whole"] == n["cut"] + n["unknown"] + n["used"]
    assert n["used"] == n["without_length"] + n["reached"]
    assert n["found"] == len(run.table)


def test_table_on_the_page(written: tuple[ReportInput, Page]) -> None:
    run, page = written
    rows = [row for row in page.rows if len(row) > 10 and row[0].isdigit()]
    assert [int(row[0]) for row in rows] == run.table["label"].to_list()


@pytest.mark.usefixtures("coarse")
def test_long_table_is_cut_and_says_so(written: tuple[ReportInput, Page], tmp_path: Path) -> None:
    run, _ = written
    copies = 2100 // len(run.table) + 1
    table = pd.concat([run.table] * copies, ignore_index=True)
    table["label"] = np.arange(len(table)) + 1
    boxes = np.tile(run.boxes, (copies, 1))
    page = Page(write_report(replace(run, out=tmp_path, table=table, boxes=boxes, gallery=0, diffusion_length=None)))
    assert sum(len(row) > 10 and row[0].isdigit() for row in page.rows) == 2000
    assert f"The first 2,000 of {len(table):,} particles" in page.text
    assert "The settings ask for no gallery." in page.missing


@pytest.mark.usefixtures("coarse")
def test_text_is_escaped(written: tuple[ReportInput, Page], tmp_path: Path) -> None:
    run, _ = written
    evil = "<script>alert(1)</script>"
    page = Page(
        write_report(replace(run, out=tmp_path, title=evil, warnings=[evil], settings=f"a = '{evil}'", gallery=1))
    )
    assert evil not in page.text
    assert "&lt;script&gt;" in page.text


@pytest.mark.usefixtures("coarse")
def test_seed_and_size_of_the_gallery(written: tuple[ReportInput, Page], tmp_path: Path) -> None:
    run, _ = written
    first = pd.read_csv(run.out / "figures" / "gallery.csv")
    assert len(first) == min(run.gallery, used_rows(run.table).sum())
    assert set(first["label"]) <= set(run.table["label"][used_rows(run.table)])
    write_report(replace(run, out=tmp_path, seed=run.seed + 1, gallery=5, diffusion_length=None))
    other = pd.read_csv(tmp_path / "figures" / "gallery.csv")
    assert len(other) == 5
    assert not set(other["label"]) <= set(first["label"].iloc[:5])


# ---- what does not exist


@pytest.mark.usefixtures("coarse")
def test_without_carbon_binder(written: tuple[ReportInput, Page], tmp_path: Path) -> None:
    run = without_cbd(replace(written[0], out=tmp_path, gallery=3))
    page = Page(write_report(run))
    assert page.ids >= SECTIONS
    absent = {
        "detachment_distribution",
        "detachment_size",
        "detachment_volume",
        "density_detachment",
        "detachment_threshold",
        "detachment_tolerance",
        "slices_detachment",
        "slices_diffusion",
        "connected_slices",
        "connected_detachment",
        "longest_path",
        "streamlines",
        "cbd_thickness",
    }
    assert figure_names(tmp_path) == FIGURES - absent
    assert any("carbon/binder" in sentence for sentence in page.missing)
    assert "No particle has a diffusion length, so there is no path to draw." in page.missing
    assert "The volume holds no carbon/binder, so it has no thickness." in page.missing
    assert page.keys["used"] == 0
    assert np.isnan(page.keys["detachment"])
    assert page.shown["detachment"] == "–"


@pytest.mark.usefixtures("coarse")
def test_phases_only(written: tuple[ReportInput, Page], tmp_path: Path) -> None:
    page = Page(write_report(phases_only(replace(written[0], out=tmp_path, gallery=3))))
    assert figure_names(tmp_path) == FIGURES - {
        "histogram",
        "regional_histograms",
        "edge_profile",
        "detachment_threshold",
        "density_detachment",
        "peaks",
    }
    assert "The phases were given, so there is no grey histogram." in page.missing
    assert "The phases were given, so no edge was measured." in page.missing
    assert "The phases were given, so there is no threshold to move." in page.missing


@pytest.mark.usefixtures("coarse")
def test_one_particle(tmp_path: Path) -> None:
    label = np.zeros((12, 14, 16), dtype=np.int32)
    label[3:9, 3:10, 4:12] = 1
    phases = np.where(label == 1, codes.ACTIVE, codes.VOID).astype(np.uint8)
    phases[9, 3:10, 4:12] = codes.CBD
    length = np.where(label == 1, 8.5 - np.arange(12)[:, None, None], np.nan).astype(np.float32)
    run = fake_run(tmp_path, n=3)
    table = run.table.iloc[:1].assign(
        label=1,
        touches_border=False,
        inclusion_weight=1.7,
        detachment_fraction=0.8,
        diffusion_status="reached",
        diffusion_length_mean_um=3.0,
        diffusion_length_max_um=5.5,
    )
    path = np.array([[3.0, 5, 6], [8.5, 5, 6]])
    one = replace(
        run,
        shape=label.shape,
        voxel_size=(1.0, 1.0, 1.0),
        table=table,
        boxes=np.array([[3, 3, 4, 9, 10, 12]]),
        particles=label,
        phases=phases,
        grey=None,
        diffusion_length=length,
        paths=[path],
        path_labels=[1],
        profiles=run.profiles.iloc[:1],
    )
    page = Page(write_report(one))
    assert page.keys["found"] == page.keys["used"] == 1
    assert page.keys["detachment"] == page.keys["detachment-q1"] == page.keys["detachment_weighted"] == 0.8
    assert {"gallery", "longest_path", "detachment_size"} <= figure_names(tmp_path)


@pytest.mark.usefixtures("coarse")
def test_no_particle_no_path_no_record(written: tuple[ReportInput, Page], tmp_path: Path) -> None:
    run = written[0]
    empty = replace(
        run,
        out=tmp_path,
        table=run.table.iloc[:0],
        boxes=run.boxes[:0],
        particles=np.zeros(run.shape, dtype=np.int32),
        profiles=run.profiles.iloc[:0],
        diffusion_length=None,
        survey={},
        thresholds=None,
        sensitivity=None,
        cbd_thickness=None,
        paths=(),
        path_labels=(),
        balances=(),
        warnings=(),
        settings="",
    )
    page = Page(write_report(empty))
    assert page.ids >= SECTIONS - {"table"}
    assert page.keys["found"] == 0
    assert {
        "No particle was found, so there is no gallery.",
        "No particle was found, so the table is empty.",
        "No window along the depth holds a particle, so there is no depth profile.",
        "The run record holds no grey histogram.",
        "The run record holds no balances.",
        "No free edge could be measured.",
    } <= set(page.missing)
    assert "No warnings." in page.text


@pytest.mark.usefixtures("coarse")
def test_all_empty_values_but_the_labels(written: tuple[ReportInput, Page], tmp_path: Path) -> None:
    run = written[0]
    table = run.table.copy()
    for column in table.columns.difference(["label", "touches_border", "equivalent_diameter_um", "z_um"]):
        table[column] = np.nan
    page = Page(write_report(replace(run, out=tmp_path, table=table, paths=(), path_labels=(), gallery=2)))
    assert page.keys["used"] == 0
    assert "longest_path" not in figure_names(tmp_path)


@pytest.mark.usefixtures("coarse")
def test_only_cut_particles_still_have_a_gallery(written: tuple[ReportInput, Page], tmp_path: Path) -> None:
    run = written[0]
    table = run.table.assign(touches_border=True, inclusion_weight=0.0)
    page = Page(write_report(replace(run, out=tmp_path, table=table, gallery=2)))
    assert "all particles" in page.text
    assert page.keys["used"] == 0
    assert page.keys["cut"] == len(table)


# ---- numbers


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.floats(0, 1))
def test_equal_weights_are_numpys_quantile(values: list[float], q: float) -> None:
    array = np.array(values)
    assert weighted_quantile(array, np.full(array.size, 3.0), [q])[0] == pytest.approx(np.quantile(array, q), abs=1e-9)


def test_weights_pull_the_median() -> None:
    values = np.array([0.0, 1.0, 2.0])
    assert quartiles(values).median == 1
    assert quartiles(values, [1, 1, 1e6]).median == pytest.approx(2, abs=1e-5)
    assert 0 <= quartiles(values, [2, 1, 1]).median < quartiles(values, [1, 1, 2]).median <= 2
    assert quartiles(values, [1, 1, 0]).n == 2
    assert np.isnan(quartiles(values, [0, 0, 0]).median)
    assert np.isnan(quartiles([]).median)


def test_size_classes_have_fixed_edges_and_hide_small_classes() -> None:
    diameter = np.concatenate([np.full(MIN_PER_BIN, 4.5), np.full(MIN_PER_BIN - 1, 9.0)])
    classes = size_classes(diameter, np.linspace(0, 1, diameter.size))
    assert classes["from_um"].iloc[0] == 4.0
    assert np.allclose(classes["to_um"] / classes["from_um"], np.sqrt(2))
    assert classes["n"].tolist() == [MIN_PER_BIN, 0, MIN_PER_BIN - 1]
    assert classes["median"].notna().tolist() == [True, False, False]
    assert len(size_classes(np.array([np.nan]), np.array([0.5]))) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.398, "0.398"),
        (1234.5, "1,234"),
        (0, "0"),
        (np.nan, "–"),
        (np.inf, "–"),
        (3.2e-7, "3.20e-07"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert style.number(value) == text


# ---- pictures


class Watched:
    """A lazy volume that remembers the largest piece that was read."""

    def __init__(self, data: Any) -> None:
        self.data, self.shape, self.largest = data, data.shape, 0

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Any:
        assert len(key) == 3
        assert all(isinstance(k, slice) for k in key)
        piece = self.data[key]
        self.largest = max(self.largest, piece.size)
        return piece


@pytest.mark.usefixtures("coarse")
def test_only_slices_and_boxes_are_read(written: tuple[ReportInput, Page], tmp_path: Path) -> None:
    run = written[0]
    volumes = {name: Watched(getattr(run, name)) for name in ("particles", "phases", "grey", "diffusion_length")}
    write_report(replace(run, out=tmp_path, gallery=3, **volumes))
    assert figure_names(tmp_path) == FIGURES
    box = int(np.prod(run.boxes[:, 3:] - run.boxes[:, :3] + 2, axis=1).max())
    plane = max(run.shape[0] * run.shape[1], run.shape[1] * run.shape[2], run.shape[0] * run.shape[2])
    assert max(v.largest for v in volumes.values()) <= max(box, plane) < np.prod(run.shape)


def ball(radius: float, size: int) -> np.ndarray:
    at = np.indices((size,) * 3) - (size - 1) / 2
    return (at**2).sum(0) <= radius**2


def test_faces_of_each_class_are_counted_at_full_resolution() -> None:
    size = 200
    inside = ball(80, size)
    label = inside.astype(np.int32) * 7
    z = np.arange(size)[:, None, None] + np.zeros((1, size, size))
    phases = np.where(inside, codes.ACTIVE, np.where(z < size / 2, codes.CBD, codes.VOID)).astype(np.uint8)
    box = np.array([19, 19, 19, 181, 181, 181])
    shape = render.read_shape(label, phases, 7, box, (1.0, 1.0, 1.0))
    assert shape.step == 2
    assert shape.inside.sum() * 8 == inside.sum()
    void, cbd, *others = shape.faces
    assert void == cbd
    assert others == [0, 0, 0]
    faces = sum(int((np.diff(inside.astype(np.int8), axis=a) != 0).sum()) for a in range(3))
    assert void + cbd == faces


def test_picture_shows_what_each_side_faces() -> None:
    size = 60
    inside = ball(22, size)
    label = inside.astype(np.int32)
    x = np.arange(size)[None, None, :] + np.zeros((size, size, 1))
    phases = np.where(inside, codes.ACTIVE, np.where(x < size / 2, codes.CBD, codes.VOID)).astype(np.uint8)
    shape = render.read_shape(label, phases, 1, np.array([5, 5, 5, 55, 55, 55]), (1.0, 1.0, 1.0))
    camera, hits = render.look(shape, np.array([0.0, 1.0, 0.0]), pixels=100)
    area = hits.alpha.sum() * camera.pixel**2
    assert area == pytest.approx(np.pi * 22**2, rel=0.06)
    row = hits.weights[50]
    assert row[25].argmax() == render.VOID_FACE  # z down, seen along +y: x runs to the left
    assert row[75].argmax() == render.CBD_FACE
    where = hits.position[50, 50]
    assert where == pytest.approx([29.5, 29.5 - 22, 29.5], abs=1.0)
    back = camera.project(where[None], (1.0, 1.0, 1.0))[0]
    assert back[1:] == pytest.approx([50, 50], abs=0.6)


def test_cut_takes_the_near_half_away() -> None:
    inside = ball(20, 50)
    label, phases = inside.astype(np.int32), np.where(inside, codes.ACTIVE, codes.VOID).astype(np.uint8)
    shape = render.read_shape(label, phases, 1, np.array([0, 0, 0, 50, 50, 50]), (1.0, 1.0, 1.0))
    plane = (np.full(3, 24.5), np.array([0.0, -1.0, 0.0]))
    _, hits = render.look(shape, np.array([0.0, 1.0, 0.0]), pixels=80, cut=plane)
    assert hits.position[hits.on_cut][:, 1] == pytest.approx(24.5)
    assert hits.on_cut.sum() / (hits.alpha > 0.5).sum() > 0.97


def test_crack_mouth_has_its_own_class() -> None:
    inside = ball(15, 40)
    phases = np.where(inside, codes.ACTIVE, codes.VOID).astype(np.uint8)
    phases[19:21][inside[19:21]] = codes.VOID
    shape = render.read_shape(inside.astype(np.int32), phases, 1, np.array([0, 0, 0, 40, 40, 40]), (1.0, 1.0, 1.0))
    assert shape.faces[render.MOUTH_FACE] > 0
    assert shape.faces[render.CBD_FACE] == shape.faces[render.OTHER_FACE] == 0


def test_slices_lie_where_they_should() -> None:
    volume = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    planes = {p.name: p for p in views.middle_planes(volume, volume, None, None, (2.0, 1.0, 0.5))}
    assert (planes["xy"].particles == volume[2]).all()
    assert (planes["xz"].particles == volume[:, 3]).all()
    assert (planes["yz"].particles == volume[:, :, 4].T).all()
    assert [planes[n].position_um for n in ("xy", "xz", "yz")] == [4.0, 3.0, 2.0]
    plan = views.layout((4, 6, 8), (2.0, 1.0, 0.5))
    z, y, x = plan.extent
    assert z / y == pytest.approx(8 / 6, rel=0.01)
    assert x / y == pytest.approx(4 / 6, rel=0.01)


@pytest.mark.parametrize(("shape", "said"), [((56, 60, 60), ["crack, pore or notch"]), ((16, 80, 84), [])])
def test_black_of_the_damage_map_is_named_where_there_is_room(
    shape: tuple[int, int, int], said: list[str], tmp_path: Path
) -> None:
    found = damage_figures.damage_slices(fake_run(tmp_path, n=8, shape=shape))
    assert isinstance(found, drawing.Drawing)
    assert [text.get_text() for legend in found.figure.legends for text in legend.get_texts()] == said


def test_particle_of_a_large_box_is_read_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = ball(70, 150)
    label, phases = inside.astype(np.int32), np.where(inside, codes.ACTIVE, codes.VOID).astype(np.uint8)
    box, spacing = np.array([0, 0, 0, 150, 150, 150]), (1.0, 1.0, 1.0)
    whole = render.read_shape(label, phases, 1, box, spacing)
    monkeypatch.setattr(render, "BAND_VOXELS", 150 * 150 * 6)
    banded = render.read_shape(label, phases, 1, box, spacing)
    assert (whole.inside == banded.inside).all()
    assert (whole.classes == banded.classes).all()
    tracemalloc.start()
    render.read_shape(label, phases, 1, box, spacing)
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()
