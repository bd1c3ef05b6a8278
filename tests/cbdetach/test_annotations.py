"""Readers of annotations, rasterised outlines, run lengths, the split."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from skimage.io import imsave
from tests.cbdetach.grey_files import SHAPE, grey

from cbdetach.annotations import crosses_itself, decode_runs, rasterise, read_annotations, read_given
from cbdetach.errors import InputError

SQUARE = [(2.0, 3.0), (8.0, 3.0), (8.0, 9.0), (2.0, 9.0)]
BOWTIE = [(2.0, 3.0), (8.0, 9.0), (8.0, 3.0), (2.0, 9.0)]


def polygon(points: Any) -> dict[str, Any]:
    return {
        "name": "polygon",
        "all_points_x": [x for x, _ in points],
        "all_points_y": [y for _, y in points],
    }


def moved(points: list[tuple[float, float]], x: float, y: float) -> list[tuple[float, float]]:
    return [(px + x, py + y) for px, py in points]


def region(shape: Any, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def via(folder: Path, *regions: Any, name: str = "a_01.tif", **more: list[Any]) -> Path:
    """VIA 2 export: one image with these regions, more images by keyword."""
    images = {name: list(regions), **more}
    content = {
        f"{file}123": {"filename": file, "size": 123, "regions": found, "file_attributes": {}}
        for file, found in images.items()
    }
    path = folder / "via.json"
    path.write_text(json.dumps(content))
    return path


def coco(folder: Path, *annotations: dict[str, Any], **image: Any) -> Path:
    entry = {"id": 7, "file_name": "a_01.tif", "height": SHAPE[0], "width": SHAPE[1], **image}
    content = {
        "images": [entry],
        "annotations": [{"id": i, "image_id": 7, "category_id": 1, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "particle"}, {"id": 2, "name": "ignore"}],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(content))
    return path


def flat(points: list[tuple[float, float]]) -> list[float]:
    return [value for point in points for value in point]


# VGG Image Annotator


def test_polygon_covers_the_pixels_between_its_corners(tmp_path: Path) -> None:
    grey(tmp_path)
    (one,) = read_annotations(via(tmp_path, region(polygon(SQUARE))))
    expected = np.zeros(SHAPE, np.int32)
    expected[3:9, 2:8] = 1
    np.testing.assert_array_equal(one.labels, expected)
    assert one.labels.dtype == np.int32
    assert one.image.dtype == np.uint16
    assert one.image[1, 0] == SHAPE[1]
    assert one.name == "a_01.tif"
    assert one.volume == f"{tmp_path.name}/a"
    assert one.ignore is None


def test_every_dialect_of_via_reads_the_same(tmp_path: Path) -> None:
    grey(tmp_path)
    two = via(tmp_path, region(polygon(SQUARE)), region(polygon(moved(SQUARE, 10, 4))))
    expected = read_annotations(two)[0].labels
    content = json.loads(two.read_text())
    project = {"_via_settings": {"ui": {}}, "_via_img_metadata": content, "_via_attributes": {}}
    one = json.loads(two.read_text())
    for entry in one.values():
        entry["regions"] = {str(i): value for i, value in enumerate(entry["regions"])}
        entry |= {"fileref": "", "base64_img_data": ""}
    for dialect in (project, one):
        two.write_text("\ufeff" + json.dumps(dialect), encoding="utf-8")
        np.testing.assert_array_equal(read_annotations(two)[0].labels, expected)


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ({"name": "rect", "x": 3, "y": 4, "width": 7, "height": 5}, 35),
        ({"name": "circle", "cx": 12, "cy": 10, "r": 6}, math.pi * 36),
        ({"name": "ellipse", "cx": 12, "cy": 10, "rx": 8, "ry": 4}, math.pi * 32),
        ({"name": "ellipse", "cx": 12, "cy": 10, "rx": 8, "ry": 4, "theta": 0.7}, math.pi * 32),
        ({**polygon(SQUARE), "name": "polyline"}, 36),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_other_shapes(tmp_path: Path, shape: dict[str, Any], area: float) -> None:
    grey(tmp_path)
    (one,) = read_annotations(via(tmp_path, region(shape)))
    assert np.count_nonzero(one.labels) == pytest.approx(area, rel=0.05)


def test_ellipses_turn_from_x_to_y(tmp_path: Path) -> None:
    grey(tmp_path)
    shape = {"name": "ellipse", "cx": 15, "cy": 10, "rx": 9, "ry": 2, "theta": math.pi / 4}
    labels = read_annotations(via(tmp_path, region(shape)))[0].labels
    assert labels[14, 19] == 1
    assert labels[5, 19] == 0
    np.testing.assert_array_equal(labels[:, 5:25], labels[::-1, 5:25][:, ::-1])


def test_overlaps_go_to_the_smaller_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grey(tmp_path)
    large = polygon([(0, 0), (20, 0), (20, 15), (0, 15)])
    for order in ((large, polygon(SQUARE)), (polygon(SQUARE), large)):
        labels = read_annotations(via(tmp_path, *map(region, order)))[0].labels
        assert np.unique(labels[3:9, 2:8]).size == 1
        assert labels[3, 2] != labels[0, 0]
    assert "36 pixels lie in several outlines" in caplog.text


def test_hidden_and_empty_outlines_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grey(tmp_path)
    speck = polygon([(4.6, 4.6), (4.9, 4.6), (4.9, 4.9)])
    (one,) = read_annotations(via(tmp_path, *map(region, (polygon(SQUARE), polygon(SQUARE), speck))))
    assert one.labels.max() == 1
    assert "1 outlines lie wholly below" in caplog.text
    assert "1 outlines hold no pixel's centre" in caplog.text


def test_outlines_are_clipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grey(tmp_path)
    circle = {"name": "circle", "cx": 28, "cy": 18, "r": 5}
    (one,) = read_annotations(via(tmp_path, region(polygon(moved(SQUARE, -5, 0))), region(circle)))
    assert np.count_nonzero(one.labels == 1) == 3 * 6
    assert "2 outlines reach out of the image" in caplog.text
    caplog.clear()
    read_annotations(via(tmp_path, region(polygon([(0, 0), (30.4, 0), (30.4, 20), (0, 20)]))))
    assert "reach out" not in caplog.text, "a click on the last line is not worth a warning"


@pytest.mark.parametrize("attributes", [{"kind": "Ignore"}, {"kind": {"ignore": True}}])
def test_via_ignore_areas(tmp_path: Path, attributes: dict[str, Any]) -> None:
    grey(tmp_path)
    away = polygon(moved(SQUARE, 4, 0))
    (one,) = read_annotations(via(tmp_path, region(polygon(SQUARE), kind="particle"), region(away, **attributes)))
    assert one.labels.max() == 1
    assert one.ignore is not None
    assert np.count_nonzero(one.ignore) == 6 * 4, "what is labelled is not ignored"


def test_images_without_regions_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    grey(tmp_path)
    assert len(read_annotations(via(tmp_path, region(polygon(SQUARE)), **{"never_there.png": []}))) == 1
    assert "1 images without regions" in caplog.text


def test_the_volume_can_be_stated(tmp_path: Path) -> None:
    grey(tmp_path)
    path = via(tmp_path, region(polygon(SQUARE)))
    content = json.loads(path.read_text())
    next(iter(content.values()))["file_attributes"] = {"volume": "cell 3"}
    path.write_text(json.dumps(content))
    assert read_annotations(path)[0].volume == "cell 3"
    assert read_annotations(coco(tmp_path, {"segmentation": [flat(SQUARE)]}, volume="cell 4"))[0].volume == "cell 4"


@pytest.mark.parametrize(
    ("name", "volume"),
    [("b_0012.tif", "b"), ("b-z12.tif", "b"), ("b z=3.tif", "b"), ("12.tif", ""), ("b.tif", "b"), ("b3_c.tif", "b3_c")],
)
def test_the_volume_is_read_from_the_name(tmp_path: Path, name: str, volume: str) -> None:
    grey(tmp_path, name)
    (one,) = read_annotations(via(tmp_path, region(polygon(SQUARE)), name=name))
    assert one.volume == f"{tmp_path.name}/{volume}"


def test_where_images_are_found(tmp_path: Path) -> None:
    path = via(tmp_path, region(polygon(SQUARE)))
    grey(tmp_path / "images")
    assert read_annotations(path)[0].image.shape == SHAPE
    grey(tmp_path / "elsewhere", shape=(21, 31))
    assert read_annotations(path, tmp_path / "elsewhere")[0].image.shape == (21, 31)


@pytest.mark.parametrize("colours", [1, 3, 4])
def test_pictures(tmp_path: Path, colours: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (*SHAPE, 1), np.uint8)
    stored = np.repeat(pixels, colours, axis=2)
    if colours == 4:
        stored[..., 3] = 255
    imsave(tmp_path / "a.png", stored.squeeze(), check_contrast=False)
    (one,) = read_annotations(via(tmp_path, region(polygon(SQUARE)), name="a.png"))
    np.testing.assert_array_equal(one.image, pixels[..., 0])
    assert one.image.dtype == np.uint8


def test_colours_are_averaged(tmp_path: Path) -> None:
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    pixels[1:, :, 0] = 30
    imsave(tmp_path / "a.png", pixels, check_contrast=False)
    (one,) = read_annotations(via(tmp_path, region(polygon(SQUARE)), name="a.png"))
    assert (one.image[1:] == 10).all()


# COCO


def runs_of(mask: np.ndarray) -> list[int]:
    """Counts of 0s and 1s in turn, down the columns: written from the definition."""
    counts, value = [0], False
    for pixel in mask.T.ravel():
        if bool(pixel) != value:
            counts.append(0)
            value = not value
        counts[-1] += 1
    return counts


def text_of(counts: list[int]) -> str:
    """As maskApi.c writes counts."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = x & 0x1F
            x >>= 5
            more = x != -1 if bits & 0x10 else x != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_runs_come_back(height: int, width: int, seed: int, share: float, blocks: bool) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    if blocks:
        mask = np.kron(mask, np.ones((5, 9), np.bool_))
    counts = runs_of(mask)
    for stored in (counts, text_of(counts)):
        np.testing.assert_array_equal(decode_runs({"size": list(mask.shape), "counts": stored}), mask)


def test_runs_of_the_reference_implementation() -> None:
    """As encoded by pycocotools 2."""
    mask = np.zeros((9, 10), np.bool_)
    mask[2:6, 3:8] = mask[0, 0] = True
    text = "01l03YO0000000`0"
    np.testing.assert_array_equal(decode_runs({"size": [9, 10], "counts": text}), mask)
    assert text_of(runs_of(mask)) == text


def test_coco_polygons_and_runs_read_the_same(tmp_path: Path) -> None:
    grey(tmp_path)
    mask = np.zeros(SHAPE, np.bool_)
    mask[3:9, 2:8] = True
    counts = runs_of(mask)
    forms: list[Any] = [
        [flat(SQUARE)],
        flat(SQUARE),
        {"size": list(SHAPE), "counts": counts},
        {"size": list(SHAPE), "counts": text_of(counts)},
    ]
    for form in forms:
        (one,) = read_annotations(coco(tmp_path, {"segmentation": form}))
        np.testing.assert_array_equal(one.labels, mask)


def test_coco_parts_are_one_particle(tmp_path: Path) -> None:
    grey(tmp_path)
    (one,) = read_annotations(coco(tmp_path, {"segmentation": [flat(SQUARE), flat(moved(SQUARE, 12, 6))]}))
    assert one.labels.max() == 1
    assert np.count_nonzero(one.labels) == 72


@pytest.mark.parametrize("how", [{"iscrowd": 1}, {"category_id": 2}])
def test_coco_ignore_areas(tmp_path: Path, how: dict[str, int]) -> None:
    grey(tmp_path)
    away = {"segmentation": [flat(moved(SQUARE, 12, 6))], **how}
    (one,) = read_annotations(coco(tmp_path, {"segmentation": [flat(SQUARE)]}, away))
    assert one.labels.max() == 1
    assert one.ignore is not None
    assert np.count_nonzero(one.ignore) == 36


# Outlines


def inside(points: np.ndarray, x: float, y: float) -> bool:
    """Even-odd rule, point by point."""
    result = False
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            result = not result
    return result


def distance(points: np.ndarray, x: float, y: float) -> float:
    """To the nearest edge."""
    nearest = math.inf
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        along, to = b - a, np.array((x, y)) - a
        t = np.clip(to @ along / max(along @ along, 1e-12), 0, 1)
        nearest = min(nearest, float(np.hypot(*(to - t * along))))
    return nearest


coordinate = st.one_of(st.integers(-4, 24).map(float), st.floats(-4, 24))


@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9), st.integers(1, 18), st.integers(1, 18))
def test_rasterised_against_point_by_point(points: list[tuple[float, float]], height: int, width: int) -> None:
    corners = np.array(points)
    found = rasterise(corners, (height, width))
    for row in range(height):
        for column in range(width):
            if distance(corners, column + 0.5, row + 0.5) > 1e-6:
                assert found[row, column] == inside(corners, column + 0.5, row + 0.5)


def crossing_edges(points: np.ndarray) -> bool:
    """Pair by pair, by the parameters of the intersection."""
    n = len(points)
    for i in range(n):
        for j in range(i):
            a, b, c, d = points[i], points[(i + 1) % n] - points[i], points[j], points[(j + 1) % n] - points[j]
            area = b[0] * d[1] - b[1] * d[0]
            if area == 0:
                continue
            t = ((c - a)[0] * d[1] - (c - a)[1] * d[0]) / area
            u = ((c - a)[0] * b[1] - (c - a)[1] * b[0]) / area
            if 0 < t < 1 and 0 < u < 1:
                return True
    return False


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=8))
def test_crossings_against_pair_by_pair(points: list[tuple[int, int]]) -> None:
    corners = np.array(points, np.float64)
    assert crosses_itself(corners) == crossing_edges(corners)


def test_long_outlines_are_checked_in_parts() -> None:
    angle = np.linspace(0, 2 * np.pi, 900, endpoint=False)
    circle = 50 + 40 * np.column_stack((np.cos(angle), np.sin(angle)))
    assert not crosses_itself(circle)
    circle[[890, 860]] = circle[[860, 890]]
    assert crosses_itself(circle)


# What is wrong with a file


def wrong(path: Path, *expected: str) -> str:
    with pytest.raises(InputError) as caught:
        read_annotations(path)
    message = str(caught.value)
    for text in expected:
        assert text in message
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_not_json(tmp_path: Path) -> None:
    path = tmp_path / "via.json"
    for content in (b'{"a": 1,,}', b"", b"\x89PNG\x00\xff", b"[" * 100_000):
        path.write_bytes(content)
        wrong(path, "is not JSON", "VGG Image Annotator")
    path.write_text('{\n"a": 1,,}')
    wrong(path, "line 2, column 8")


@pytest.mark.parametrize("content", [{}, [], 3, {"shapes": []}, {"a": {"filename": "a"}}, [{"image_id": 1}]])
def test_json_of_no_known_format(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    wrong(path, "JSON of no known format", "COCO")


def test_via_3_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"project": {}, "config": {}, "metadata": {}, "file": {}, "view": {}}))
    wrong(path, "VGG Image Annotator 3", "version 2")


def test_missing_images_are_all_named_up_to_five(tmp_path: Path) -> None:
    one = [region(polygon(SQUARE))]
    message = wrong(via(tmp_path, *one, **{f"b{i}.tif": one for i in range(3)}), "missing images: a_01.tif, b0.tif")
    assert "b2.tif (put them beside" in message
    message = wrong(via(tmp_path, *one, **{f"b{i}.tif": one for i in range(8)}), "b3.tif, and 4 more")
    assert "b4.tif" not in message


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (polygon(BOWTIE), "outlines that cross themselves: a_01.tif (region 2) (move the points"),
        (polygon(moved(SQUARE, 40, 0)), "outlines that lie outside the image: a_01.tif (region 2)"),
        (polygon(moved(SQUARE, 0, -9)), "outlines that lie outside the image: a_01.tif (region 2)"),
        ({"name": "circle", "cx": -9, "cy": 5, "r": 4}, "outlines that lie outside the image: a_01.tif (region 2)"),
        (polygon(SQUARE[:2]), "fewer than three points: a_01.tif (region 2)"),
        (polygon([*SQUARE[:2], SQUARE[1]]), "fewer than three points"),
        (polygon([]), "fewer than three points"),
        ({"name": "rect", "x": 3, "y": 4, "width": 0, "height": 5}, "fewer than three points"),
        ({"name": "point", "cx": 3, "cy": 4}, "without a usable outline: a_01.tif (region 2)"),
        ({"name": "circle", "cx": 3, "cy": 4, "r": -1}, "without a usable outline"),
        ({"name": "circle", "cx": 3, "cy": "4", "r": 1}, "without a usable outline"),
        ({"name": "rect", "x": 3, "y": 4, "width": 2}, "without a usable outline"),
        ({**polygon(SQUARE), "all_points_x": [1, 2, 3]}, "without a usable outline"),
        ({**polygon(SQUARE), "all_points_x": [1, 2, 3, float("nan")]}, "without a usable outline"),
        ({**polygon(SQUARE), "all_points_x": "1234"}, "without a usable outline"),
        (None, "without a usable outline"),
        ("text", "without a usable outline"),
    ],
)
def test_shapes_that_cannot_be_used(tmp_path: Path, shape: Any, text: str) -> None:
    grey(tmp_path)
    wrong(via(tmp_path, region(polygon(SQUARE)), region(shape)), text)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    grey(tmp_path)
    bad = [
        polygon(BOWTIE),
        polygon(SQUARE),
        polygon(moved(BOWTIE, 5, 5)),
        polygon(SQUARE[:2]),
        polygon(moved(SQUARE, 99, 0)),
    ]
    message = wrong(via(tmp_path, *map(region, bad), **{"gone.tif": [region(polygon(BOWTIE))]}))
    assert message == (
        f"{tmp_path / 'via.json'}: missing images: gone.tif (put them beside the annotation file); "
        "outlines of fewer than three points: a_01.tif (region 4) (delete or redraw them); "
        "outlines that cross themselves: a_01.tif (region 1, region 3), gone.tif (region 1) "
        "(move the points at the crossing, or redraw them); "
        "outlines that lie outside the image: a_01.tif (region 5) (delete them, or annotate the right image)."
    )


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [20, 30], "counts": [599]},
        {"size": [20, 30], "counts": [601]},
        {"size": [20, 30], "counts": [-1, 601]},
        {"size": [20, 30], "counts": [300.0, 300]},
        {"size": [30, 20], "counts": [600]},
        {"size": [20], "counts": [600]},
        {"size": [20, 30], "counts": "~~~"},
        {"size": [20, 30], "counts": "P"},
        {"size": [20, 30], "counts": "\u20ac"},
        {"size": [20, 30], "counts": None},
    ],
)
def test_runs_that_do_not_fit(tmp_path: Path, segmentation: Any) -> None:
    grey(tmp_path)
    wrong(
        coco(tmp_path, {"segmentation": segmentation}),
        "run lengths that do not fill the image: a_01.tif (annotation 0)",
    )


@pytest.mark.parametrize("segmentation", [None, [], [[1, 2, 3, 4, 5, 6, 7]], [["a"] * 6], {"x": 1}])
def test_coco_without_outline(tmp_path: Path, segmentation: Any) -> None:
    grey(tmp_path)
    wrong(coco(tmp_path, {"segmentation": segmentation}), "without a usable outline: a_01.tif (annotation 0)")


def test_coco_that_does_not_fit_its_images(tmp_path: Path) -> None:
    grey(tmp_path)
    square = {"segmentation": [flat(SQUARE)]}
    wrong(coco(tmp_path, square, height=40), "another size than annotated: a_01.tif (20 x 30 instead of 40 x 30)")
    wrong(coco(tmp_path, square, id=8), "the file does not list: annotation 0")


def test_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "a_01.tif").write_bytes(b"II*\x00 nothing more")
    wrong(via(tmp_path, region(polygon(SQUARE))), "cannot be read: a_01.tif")
    (tmp_path / "a.png").write_bytes(b"no picture")
    wrong(via(tmp_path, region(polygon(SQUARE)), name="a.png"), "cannot be read: a.png")
    grey(tmp_path, shape=(3, *SHAPE))
    wrong(via(tmp_path, region(polygon(SQUARE))), "cannot be read: a_01.tif")


JUNK = (None, True, -1, 1e308, 10**30, float("nan"), "", "x", "a\0b", [], {}, [[]], [1, 2], {"name": "polygon"})


def spots(content: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to everything inside a JSON document."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [deeper for key, value in items for deeper in [(*way, key), *spots(value, (*way, key))]]


@pytest.mark.parametrize("tool", ["via", "coco"])
def test_damaged_files_give_an_input_error_or_are_read(tmp_path: Path, tool: str) -> None:
    """Every value replaced by every kind of junk: no other exception, no line break."""
    grey(tmp_path)
    ellipse = {"name": "ellipse", "cx": 9, "cy": 9, "rx": 3, "ry": 2, "theta": 1}
    runs = {"segmentation": {"size": list(SHAPE), "counts": [20, 40, 540]}}
    if tool == "via":
        path = via(tmp_path, region(polygon(SQUARE), kind="particle"), region(ellipse))
    else:
        path = coco(tmp_path, {"segmentation": [flat(SQUARE)], "iscrowd": 0}, runs, volume="v")
    content = path.read_text()
    read, messages = 0, []
    for *way, last in spots(json.loads(content)):
        for junk in JUNK:
            damaged = place = json.loads(content)
            for key in way:
                place = place[key]
            place[last] = junk
            path.write_text(json.dumps(damaged))
            try:
                read += len(read_annotations(path))
            except InputError as error:
                messages.append(str(error))
    assert read > 20
    assert not [text for text in messages if "\n" in text]


def test_images_of_a_single_grey_value(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a_01.tif", np.full(SHAPE, 7, np.uint16), photometric="minisblack")
    wrong(via(tmp_path, region(polygon(SQUARE))), "images of a single grey value: a_01.tif")


def test_no_particle_at_all(tmp_path: Path) -> None:
    grey(tmp_path)
    wrong(via(tmp_path), "at least one annotated particle")
    wrong(coco(tmp_path), "at least one annotated particle")
    wrong(via(tmp_path, region(polygon(SQUARE), kind="ignore")), "at least one annotated particle")
    path = tmp_path / "via.json"
    path.write_text(json.dumps({"_via_img_metadata": {}, "_via_settings": {}}))
    wrong(path, "at least one annotated particle")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is nothing at"):
        read_annotations(tmp_path / "none.json")


def test_what_is_wrong_is_said_of_the_option_that_it_was_given_by(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "a_labels.tif", np.ones((8, 8), np.uint8))
    for path, message in (
        (tmp_path, "a.tif: must have two axes (y, x) or three (z, y, x); got shape (8, 8, 3) in"),
        (tmp_path / "none.json", "there is nothing at"),
    ):
        with pytest.raises(InputError) as caught:
            read_given(path, "--annotations")
        assert str(caught.value).startswith("--annotations: ")
        assert message in str(caught.value)
        assert "volume" not in str(caught.value)
