"""The pixel classifier: its forest is scikit-learn's, its file runs no code, and a slab is seen as the whole is."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import cbdetach
from cbdetach import classifier as pixels
from cbdetach.classifier import BAND, Classifier, load
from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, VOID
from cbdetach.errors import InputError
from cbdetach.forest import Forest
from cbdetach.pixel_features import feature_count, grey_scale, slice_features
from cbdetach.train_phases import train_phases

Array = np.ndarray[Any, Any]
VALUES = {"void": 2, "cbd": 1, "active": 0}


def textured(seed: int = 0, shape: tuple[int, int, int] = (24, 72, 72)) -> tuple[Array, Array]:
    """Void and CBD of one grey value, told apart by their grain alone, beside bright blobs: grey, labels as VALUES."""
    rng = np.random.default_rng(seed)
    blobs, side = (ndimage.gaussian_filter(rng.standard_normal(shape), s) for s in (4, 6))
    labels = np.where(blobs > np.quantile(blobs, 0.5), 0, np.where(side > 0, 1, 2)).astype(np.uint8)
    fine = ndimage.gaussian_filter(rng.standard_normal(shape), (0, 1, 1))
    grey = np.where(labels == 0, 40000, 15000) + np.where(labels == 1, 4000, 300) * fine / fine.std()
    return grey.clip(0, 65535).astype(np.uint16), labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Path]:
    path = tmp_path_factory.mktemp("classifier") / "phases.npz"
    found = train_phases([textured(1)], VALUES, path, dimensions=3, samples=6000, trees=12)
    return found, path


def shares(found: Classifier, grey: Array) -> Array:
    return found.shares(grey, grey_scale(grey))


def test_the_forest_is_scikit_learns() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((800, 5)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] ** 2 + 0.3 * rng.standard_normal(800) > 0.5).astype(int) + (x[:, 2] > 1)
    fitted = ensemble.RandomForestClassifier(9, min_samples_leaf=3, random_state=1).fit(x, y)
    forest = Forest.from_sklearn(fitted)
    forest.check(5, 3)
    new = rng.standard_normal((500, 5)).astype(np.float32)
    np.testing.assert_allclose(forest.shares_of(new), fitted.predict_proba(new), atol=2e-7)
    np.testing.assert_array_equal(forest.shares_of(new).argmax(1), fitted.predict(new))


def test_a_forest_by_hand() -> None:
    """One stump and one leaf: the mean of both."""
    forest = Forest(
        np.array([0, 3]), np.array([1, 0, 1, 2], np.int32), np.array([0.5, 0, 0, 0]), np.array([2, -1, -1, -1]),
        np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32),
    )  # fmt: skip
    forest.check(2, 2)
    x = np.array([[9, 0.5], [9, 0.6]], np.float32)
    np.testing.assert_allclose(forest.shares_of(x), [[0.75, 0.25], [0.25, 0.75]])


def test_grain_tells_what_grey_does_not(trained: tuple[Classifier, Path]) -> None:
    found, _ = trained
    grey, labels = textured(2)
    codes = found.decide(shares(found, grey))
    true = np.array([ACTIVE, CBD, VOID])[labels]
    right = {code: (codes[true == code] == code).mean() for code in (VOID, CBD, ACTIVE)}
    assert right[ACTIVE] > 0.97
    assert (right[CBD] + right[VOID]) / 2 > 0.8
    dark = true != ACTIVE
    cuts = (grey[dark & (true == CBD)] > t for t in range(14000, 17000, 250))
    others = (grey[dark & (true == VOID)] > t for t in range(14000, 17000, 250))
    by_grey = max(0.5 + abs(a.mean() - b.mean()) / 2 for a, b in zip(cuts, others, strict=True))
    assert by_grey < 0.75


def test_slab_with_halo_is_the_whole(trained: tuple[Classifier, Path]) -> None:
    found, _ = trained
    grey, _ = textured(2, (40, 30, 31))
    whole = found.shares(grey, (10000.0, 42000.0))
    assert found.halo == 8
    for z0, z1 in ((0, 7), (7, 8), (8, 29), (29, 40)):
        w0, w1 = max(0, z0 - found.halo), min(40, z1 + found.halo)
        part = found.shares(grey[w0:w1], (10000.0, 42000.0), (z0 - w0, z1 - w0))
        np.testing.assert_array_equal(part, whole[z0:z1])
    flat = Classifier(found.forest, found.codes, 2, None)
    assert flat.halo == 0


def test_dimensions_are_an_option() -> None:
    grey, _ = textured(2, (20, 24, 25))
    two, three = (slice_features(grey, 9, (0.0, 50000.0), d) for d in (2, 3))
    assert two.shape == (24, 25, feature_count(2))
    assert three.shape == (24, 25, feature_count(3))
    np.testing.assert_array_equal(three[..., : two.shape[-1]], two)
    assert np.abs(three[..., two.shape[-1] :] - two).max() > 0.01


def test_gain_and_offset_do_not_matter(trained: tuple[Classifier, Path]) -> None:
    found, _ = trained
    grey, _ = textured(2, (9, 40, 40))
    other = grey * 0.25 + 300.0
    np.testing.assert_allclose(grey_scale(other), np.array(grey_scale(grey)) * 0.25 + 300, rtol=1e-9)
    same = found.decide(shares(found, grey)) == found.decide(shares(found, other))
    assert same.mean() > 0.9999


def test_training_is_repeatable_and_its_options_work(trained: tuple[Classifier, Path]) -> None:
    found, _ = trained
    base: dict[str, Any] = {"dimensions": 3, "samples": 6000, "trees": 12}
    assert train_phases([textured(1)], VALUES, **base).digest == found.digest
    for change in ({"trees": 5}, {"samples": 500}, {"seed": 1}, {"dimensions": 2}, {"min_leaf": 40}):
        assert train_phases([textured(1)], VALUES, **base | change).digest != found.digest


def test_a_few_strokes_are_enough() -> None:
    grey, labels = textured(1)
    strokes = np.full(labels.shape, 9, np.uint8)
    strokes[5, 20:24], strokes[15, :, 40:44] = labels[5, 20:24], labels[15, :, 40:44]
    found = train_phases([(grey, strokes)], VALUES, dimensions=2, trees=12)
    new, true = (volume[:3] for volume in textured(2))
    assert (found.decide(shares(found, new)) == np.array([ACTIVE, CBD, VOID])[true]).mean() > 0.78
    strokes[strokes == 9] = 250
    assert train_phases([(grey, strokes)], VALUES, dimensions=2, trees=12).digest == found.digest


def test_decisions_move_with_the_band() -> None:
    forest = Forest(*(np.zeros(1, t) for t in (np.int64, np.int32, float, np.int64)), np.zeros((1, 4), np.float32))  # type: ignore[arg-type]
    found = Classifier(forest, (VOID, CBD, ACTIVE, ACTIVE_HIGH), 2, None)
    assert set(BAND) == {"void_cbd_low", "void_cbd_high", "cbd_active_low", "cbd_active_high"}
    x = np.array([[0.1, 0.3, 0.25, 0.35], [0.4, 0.2, 0.4, 0.0], [0.2, 0.4, 0.3, 0.1]], np.float32)
    assert found.decide(x).tolist() == [ACTIVE_HIGH, VOID, CBD]
    assert found.decide(x, "cbd_active_low").tolist() == [ACTIVE_HIGH, ACTIVE, ACTIVE]
    assert found.decide(x, "cbd_active_high").tolist() == [CBD, VOID, CBD]
    assert found.decide(x, "void_cbd_low").tolist() == [ACTIVE_HIGH, CBD, CBD]
    assert found.decide(x, "void_cbd_high").tolist() == [ACTIVE_HIGH, VOID, VOID]


# --- the file --------------------------------------------------------------------------------------


def rewritten(path: Path, to: Path, **change: Any) -> Path:
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    np.savez(to, **content | change)
    return to


def test_file_is_the_same_classifier(trained: tuple[Classifier, Path]) -> None:
    found, path = trained
    again = load(path)
    assert again.digest == found.digest
    assert (again.codes, again.dimensions, again.trained_on) == (found.codes, 3, ("array",))
    grey, _ = textured(2, (3, 20, 20))
    np.testing.assert_array_equal(shares(again, grey), shares(found, grey))


def test_reading_runs_no_code(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (ran,))

    path = tmp_path / "bomb.npz"
    np.savez(path, roots=np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(InputError, match="is not a file of cbdetach train-phases"):
        load(path)
    assert not ran.exists()


def test_changed_files_are_refused(trained: tuple[Classifier, Path], tmp_path: Path) -> None:
    _, path = trained
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    header = json.loads(str(content["header"]))
    shifted = content["shares"][:, ::-1].copy()
    with pytest.raises(InputError, match="was changed or damaged"):
        load(rewritten(path, tmp_path / "a.npz", shares=shifted))
    with pytest.raises(InputError, match="comes from another version"):
        load(rewritten(path, tmp_path / "b.npz", header=np.array(json.dumps(header | {"version": 99}))))
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match="is not a file of cbdetach train-phases"):
        load(tmp_path / "text.npz")
    (tmp_path / "half.npz").write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="is not a file of cbdetach train-phases"):
        load(tmp_path / "half.npz")
    for name, wrong, message in (
        ("shares", content["shares"].astype(np.float64), "arrays of other types"),
        ("header", np.array(json.dumps(header | {"codes": [7, 8, 9]})), "holds no known phases"),
    ):
        changed = content | {name: wrong}
        text = str(changed["header"])
        digest = pixels._digest(text, {n: changed[n] for n in pixels.ARRAYS})
        with pytest.raises(InputError, match=message):
            load(rewritten(path, tmp_path / f"{name}.npz", **{name: wrong, "sha256": np.array(digest)}))


def test_a_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_BYTES", 1 << 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("roots.npy", bytes(2 << 20))
    (tmp_path / "bomb.npz").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="must be smaller than 1 MB"):
        load(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right": [1, -1, -1, -1]}, "points out of its tree"),
        ({"right": [3, -1, -1, -1]}, "points out of its tree"),
        ({"right": [0, -1, -1, -1]}, "points out of its tree"),
        ({"feature": [2, 0, 1, 2]}, "points out of its tree"),
        ({"feature": [1, 0, 1, 3]}, "points out of its tree"),
        ({"feature": [-1, 0, 1, 2]}, "points out of its tree"),
        ({"roots": [0, 4]}, "do not fit together"),
        ({"roots": [1, 3]}, "do not fit together"),
        ({"threshold": [np.nan, 0, 0, 0]}, "do not fit together"),
        ({"threshold": [0.5, 0, 0]}, "do not fit together"),
        ({"shares": [[1, 0], [0, np.inf], [1, 0]]}, "do not fit together"),
        ({"shares": [[1, 0, 0], [0, 1, 0], [1, 0, 0]]}, "do not fit together"),
    ],
)
def test_arrays_that_are_no_forest_are_refused(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "roots": np.array([0, 3]),
        "feature": np.array([1, 0, 1, 2], np.int32),
        "threshold": np.array([0.5, 0, 0, 0]),
        "right": np.array([2, -1, -1, -1]),
        "shares": np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32),
    }
    with pytest.raises(InputError, match=message):
        Forest(**good | {k: np.asarray(v) for k, v in change.items()}).check(2, 2)


@pytest.mark.parametrize(
    ("pairs", "values", "options", "message"),
    [
        ([], VALUES, {}, "at least one pair"),
        ([textured(1, (2, 9, 9))], VALUES, {"dimensions": 4}, "dimensions: must be 2 or 3"),
        ([textured(1, (2, 9, 9))], {"ash": 1}, {}, "names must be of void"),
        ([(np.zeros((2, 9, 9)), np.zeros((2, 9, 8), int))], VALUES, {}, "must have the shape of the grey volume"),
        ([textured(1, (2, 9, 9))], {"active": 7}, {}, "must hold voxels of the phases"),
        ([(np.full((2, 9, 9), np.nan), np.zeros((2, 9, 9), int))], VALUES, {}, "must hold finite values"),
        ([textured(1, (2, 9, 9))], {"active": VALUES["active"]}, {}, "of the active phase and of another one"),
        ([textured(1, (2, 9, 9))], {"void": 2, "cbd": 1}, {}, "must name the active phase; got void, cbd"),
        ([textured(1, (2, 9, 9))], {"void": 1, "active": 1}, {}, "must give each value one name"),
    ],
)
def test_bad_training_input(pairs: Any, values: dict[str, int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_phases(pairs, values, **options)


# --- in a run --------------------------------------------------------------------------------------


def test_a_run_uses_it_records_it_and_resumes_with_no_other(trained: tuple[Classifier, Path], tmp_path: Path) -> None:
    found, path = trained
    grey, _ = textured(2)
    settings: dict[str, Any] = {"voxel_size": 0.2, "segmenter": "watershed", "slab": 9}
    config = {"phases": {"classifier": str(path)}, "report": {"gallery": 0}}
    with cbdetach.run(grey, tmp_path / "run", config=config, **settings) as run:
        codes = run.volumes["phases"][:]
        np.testing.assert_array_equal(codes, found.decide(shares(found, grey)))
        assert run.record["input"]["classifier"] == {
            "name": "phases.npz", "sha256": found.digest, "trained_on": ["array"]
        }  # fmt: skip
        low, high = run.table["detachment_fraction_low"], run.table["detachment_fraction_high"]
        known = run.table["detachment_fraction"].notna()
        assert (low[known] <= run.table["detachment_fraction"][known]).all()
        assert (high > low)[known].mean() > 0.5
    train_phases([textured(1)], VALUES, path, dimensions=3, samples=600, trees=3, overwrite=True)
    with pytest.raises(InputError, match=r"other input \(classifier.sha256\)"):
        cbdetach.run(grey, tmp_path / "run", config=config, resume=True, **settings)
