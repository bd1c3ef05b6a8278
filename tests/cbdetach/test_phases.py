"""Thresholds, and the partial-volume rim: what a particle faces is decided by what lies beyond its blurred surface."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import ndtri

from cbdetach.codes import ACTIVE, CBD, COLLECTOR, VOID
from cbdetach.errors import InputError
from cbdetach.films import FEWEST, HEIGHTS, film_heights, height_classes, low_height
from cbdetach.given_phases import map_phases
from cbdetach.phases import _highest, halo, resolve, resolve_phases
from cbdetach.thresholds import Thresholds, find_thresholds

Array = np.ndarray[Any, Any]
UNIT = (1.0, 1.0, 1.0)
FWHM = 2 * math.sqrt(2 * math.log(2))
LEVELS = (0.1, 0.42, 1.0)


def thresholds(levels: tuple[float, float, float] = LEVELS) -> Thresholds:
    v, c, a = levels
    zero = (0.0, 0.0, 0.0)
    return Thresholds((v + c) / 2, (c + a) / 2, levels, zero, zero, ((v + c) / 2,) * 2, ((c + a) / 2,) * 2, "given")


def image(
    phase: Array, fine: int, fwhm: float, spacing: tuple[float, float, float] = UNIT, noise: float = 0.0
) -> Array:
    """Blurred grey of a fine phase volume, binned `fine` times: the voxel's own extent is part of the blur."""
    h = np.array(spacing)
    grey = np.array(LEVELS, np.float32)[phase]
    sigma = np.sqrt(np.maximum((fwhm / FWHM) ** 2 - h**2 / 12, 0)) / (h / fine)
    grey = ndimage.gaussian_filter(grey, sigma, mode="nearest")
    n = np.array(grey.shape) // fine
    grey = grey.reshape(n[0], fine, n[1], fine, n[2], fine).mean((1, 3, 5))
    grey += noise * np.random.default_rng(5).standard_normal(grey.shape).astype(np.float32)
    return grey


def ball(
    size: int,
    radius: float,
    coat: float,
    cover: float,
    fine: int = 3,
    spacing: tuple[float, float, float] = UNIT,
    axis: tuple[float, float, float] = (0.3, 0.5, 0.81),
    at: float = 0.2,
) -> Array:
    """A ball near the middle of a cubic box, with CBD `coat` thick on a cap of the share `cover` of its surface."""
    axes = [(np.arange(round(size / h) * fine) + 0.5) / fine * h - size / 2 - at for h in spacing]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    r = np.sqrt(z * z + y * y + x * x)
    along = z * axis[0] + y * axis[1] + x * axis[2]
    phase = np.where((r < radius + coat) & (along > (1 - 2 * cover) * r * np.linalg.norm(axis)), CBD, VOID)
    phase[r < radius] = ACTIVE
    return phase.astype(np.uint8)


def detached(phases: Array, spacing: tuple[float, float, float] = UNIT) -> float:
    """Share of void in the faces between active and void or CBD."""
    area = np.zeros(3)
    for axis, h in enumerate(spacing):
        moved = np.moveaxis(phases, axis, 0)
        for own, other in ((moved[:-1], moved[1:]), (moved[1:], moved[:-1])):
            area += np.bincount(other[own == ACTIVE], minlength=3)[:3] * math.prod(spacing) / h
    return float(area[VOID] / (area[VOID] + area[CBD]))


def diameter(phases: Array, spacing: tuple[float, float, float] = UNIT) -> float:
    return float(np.cbrt(6 * (phases == ACTIVE).sum() * math.prod(spacing) / math.pi))


class TestRim:
    @pytest.mark.parametrize("fwhm", [1.5, 2.0, 3.0])
    @pytest.mark.parametrize("cover", [0.0, 0.2, 0.5, 0.8, 1.0])
    def test_detachment_and_diameter_of_a_ball(self, fwhm: float, cover: float) -> None:
        size = math.ceil(2 * (12 + 4 * fwhm + 4))
        grey = image(ball(size, 12, 3 * fwhm, cover), 3, fwhm)
        phases, _ = resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=fwhm)
        assert detached(phases) == pytest.approx(1 - cover, abs=0.03)
        assert diameter(phases) == pytest.approx(24, rel=0.01)

    def test_plain_thresholds_fail(self) -> None:
        """The reason for all of this: the blur passes through CBD's grey value."""
        grey = image(ball(48, 12, 6, 0.3), 3, 2.0)
        t = thresholds()
        plain = np.digitize(grey, [t.void_cbd, t.cbd_active])
        assert detached(plain) < 0.05

    @pytest.mark.parametrize("noise", [0.03, 0.06])
    def test_noise(self, noise: float) -> None:
        grey = image(ball(48, 12, 6, 0.4), 3, 2.0, noise=noise)
        phases, _ = resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=2.0)
        solid = ndimage.binary_opening(phases == ACTIVE)
        assert detached(phases) == pytest.approx(0.6, abs=0.04)
        assert diameter(np.where(solid, ACTIVE, VOID)) == pytest.approx(24, rel=0.015)

    def test_anisotropic_voxels(self) -> None:
        spacing = (1.6, 1.0, 0.8)
        grey = image(ball(48, 12, 7.5, 0.4, spacing=spacing), 3, 2.5, spacing)
        phases, _ = resolve_phases(grey, thresholds(), spacing=spacing, edge_width_um=2.5)
        assert detached(phases, spacing) == pytest.approx(0.6, abs=0.03)
        assert diameter(phases, spacing) == pytest.approx(24, rel=0.01)

    def test_grey_scale_and_dtype_do_not_matter(self) -> None:
        grey = image(ball(40, 10, 6, 0.4), 3, 2.0)
        first, _ = resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=2.0)
        scale = thresholds(tuple(50000 * x for x in LEVELS))
        again, _ = resolve_phases((50000 * grey).astype(np.uint16), scale, spacing=UNIT, edge_width_um=2.0)
        assert (first != again).mean() < 2e-4

    def test_length_unit_does_not_matter(self) -> None:
        grey = image(ball(40, 10, 6, 0.4), 3, 2.0)
        first, hidden = resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=2.0)
        again, hidden2 = resolve_phases(grey, thresholds(), spacing=(0.5, 0.5, 0.5), edge_width_um=1.0)
        assert np.array_equal(first, again)
        assert np.array_equal(hidden, hidden2)

    def test_void_gap_between_particles(self) -> None:
        """Void of one edge width between two plates of active material: no voxel of it is darker than CBD."""
        phase = np.full((36, 36, 96), ACTIVE, np.uint8)
        phase[:, :, 45:51] = VOID  # 2 voxels
        grey = image(phase, 3, 2.0)
        assert grey.min() > thresholds().void_cbd
        phases, unresolved = resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=2.0)
        middle = phases[4:-4, 4:-4, 15:17]
        assert (middle == VOID).all()
        assert unresolved[4:-4, 4:-4, 15:17].all()

    def test_films_thinner_than_the_edge_are_unresolved(self) -> None:
        for coat, hidden in ((6.0, False), (2.0, True)):
            grey = image(ball(48, 12, coat, 1.0), 3, 2.0)
            phases, unresolved = resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=2.0)
            film = (phases == CBD) & ndimage.binary_dilation(phases == ACTIVE)
            assert film.sum() > 1000
            assert (unresolved[film].mean() > 0.9) == hidden
            assert unresolved[film].any() == hidden

    def test_cbd_wall_keeps_its_place(self) -> None:
        """Away from particles the phases are the plain threshold's."""
        phase = np.full((36, 36, 90), VOID, np.uint8)
        phase[:, :, 46:] = CBD
        phases, unresolved = resolve_phases(image(phase, 3, 2.0), thresholds(), spacing=UNIT, edge_width_um=2.0)
        assert (phases[:, :, :15] == VOID).all()
        assert (phases[:, :, 16:] == CBD).all()
        assert not unresolved.any()

    def test_thresholds_move_the_result(self) -> None:
        grey = image(ball(48, 12, 6, 0.4), 3, 2.0)
        t = thresholds()

        def run(**change: float) -> Array:
            return resolve_phases(grey, replace(t, **change), spacing=UNIT, edge_width_um=2.0)[0]  # type: ignore[arg-type]

        assert detached(run(void_cbd=0.16)) < detached(run()) < detached(run(void_cbd=0.38))
        assert diameter(run(cbd_active=0.55)) > diameter(run()) > diameter(run(cbd_active=0.87))

    def test_moved_thresholds_move_the_last_decisions(self) -> None:
        grey = image(ball(30, 9, 6, 0.4), 3, 2.0)
        now = thresholds()
        share = (now.cbd_active - LEVELS[1]) / (LEVELS[2] - LEVELS[1])
        out = replace(now, cbd_active=now.cbd_active - 0.15)
        dark = replace(now, void_cbd=now.void_cbd + 0.1)
        found = resolve(grey, now, [now, out, dark], spacing=UNIT, edge_width_um=2.0)
        same, grown, less = found.moved
        phases = found.phases
        assert np.array_equal(phases, resolve_phases(grey, now, spacing=UNIT, edge_width_um=2.0)[0])
        assert np.array_equal(same, phases)
        # the surface moves by about the distance between the two values on a blurred step, whatever it faces
        sigma = math.hypot(1, 0.5) * 2.0 / FWHM
        step = sigma * float(ndtri(share) - ndtri(share - 0.15 / (LEVELS[2] - LEVELS[1])))
        assert diameter(grown) - diameter(phases) == pytest.approx(2 * step, rel=0.2)
        assert abs(detached(grown) - detached(phases)) < 0.05
        assert np.array_equal(less == ACTIVE, phases == ACTIVE)
        assert (less == CBD).sum() < (phases == CBD).sum()
        assert detached(less) > detached(phases)

    def test_edge_width_moves_the_result(self) -> None:
        grey = image(ball(48, 12, 6, 0.4), 3, 2.0)
        narrow, _ = resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=0.5)
        assert detached(narrow) < 0.45

    @pytest.mark.parametrize(("coat", "least", "most"), [(6.0, 0.95, 1.2), (2.0, 0.5, 0.95), (1.5, 0.3, 0.6)])
    def test_height_of_films(self, coat: float, least: float, most: float) -> None:
        """Thick carbon/binder reaches its own grey value, thinner films less."""
        scene = ball(48, 12, coat, 0.5)
        grey = image(scene, 3, 2.0)
        found = resolve(grey, thresholds(), spacing=UNIT, edge_width_um=2.0)
        phases, classes = found.phases, height_classes(found.height, found.phases)
        assert np.array_equal(classes < 255, phases == CBD)
        counts = film_heights((phases == ACTIVE).astype(np.int32), classes, (0, 48))
        top, bottom = (film_heights((phases == ACTIVE).astype(np.int32), classes, c) for c in ((0, 20), (20, 48)))
        assert np.array_equal(top + bottom, counts)
        contact = ndimage.binary_dilation(phases == ACTIVE) & (phases == CBD)
        of_contacts = np.clip(found.height[contact], HEIGHTS[0], HEIGHTS[-1])
        assert np.array_equal(counts, np.histogram(of_contacts, HEIGHTS)[0])
        low = low_height(counts)
        assert low is not None
        assert low == pytest.approx(np.quantile(found.height[contact], 0.25), abs=0.02)
        assert least < low < most

    def test_few_films_say_nothing(self) -> None:
        counts = np.zeros(HEIGHTS.size - 1, np.int64)
        counts[20] = FEWEST - 1
        assert low_height(counts) is None
        counts[20] += 1
        assert HEIGHTS[20] < (low_height(counts) or 0.0) < HEIGHTS[21]

    def test_a_little_more_blur_is_a_little_more_void(self) -> None:
        """A film thinner than the blur is judged by the highest grey around it, however the voxels lie to the blur."""
        grey = image(ball(48, 12, 1.6, 0.5), 3, 2.0, noise=0.04)
        widths = (2.05, 2.1, 2.115, 2.15)
        found = [detached(resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=w)[0]) for w in widths]
        assert np.ptp(found) < 0.03
        assert found == sorted(found)

    def test_highest_goes_evenly_with_the_reach(self) -> None:
        x = np.random.default_rng(8).standard_normal((9, 10, 11)).astype(np.float32)
        boxes = [ndimage.maximum_filter(x, (3, 1, 2 * n + 1), mode="nearest") for n in (0, 1, 2)]
        for n, box in enumerate(boxes):
            assert np.array_equal(_highest(x.copy(), (1.0, 0.0, float(n))), box)
        assert np.allclose(_highest(x.copy(), (1.0, 0.0, 1.25)), 0.75 * boxes[1] + 0.25 * boxes[2], atol=1e-6)
        assert np.allclose(_highest(x.copy(), (1.0, 0.0, 2 - 1e-7)), boxes[2], atol=1e-5)

    def test_slab_with_halo_is_the_whole(self) -> None:
        rng = np.random.default_rng(2)
        texture = ndimage.gaussian_filter(rng.standard_normal((110, 30, 28)), 3)
        phase = np.digitize(texture, np.quantile(texture, [0.4, 0.6])).astype(np.uint8)
        grey = image(phase, 1, 1.6, noise=0.05)
        whole = resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=1.6)
        margin = halo(UNIT, 1.6)
        assert margin < 32
        for z0, z1 in ((0, 40), (40, 41), (41, 75), (75, 110)):
            w0, w1 = max(0, z0 - margin), min(110, z1 + margin)
            part = resolve_phases(grey[w0:w1], thresholds(), spacing=UNIT, edge_width_um=1.6)
            for a, b in zip(part, whole, strict=True):
                assert np.array_equal(a[z0 - w0 : z1 - w0], b[z0:z1])

    def test_halo_counts_slices(self) -> None:
        assert halo((0.5, 1.0, 1.0), 2.0) > halo(UNIT, 2.0) > halo((2.0, 1.0, 1.0), 2.0)
        assert halo(UNIT, 3.0) > halo(UNIT, 1.5)

    def test_input_is_not_written(self) -> None:
        grey = image(ball(30, 8, 3, 0.4), 3, 2.0)
        grey.setflags(write=False)
        resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=2.0)

    def test_bad_arguments(self) -> None:
        grey = np.zeros((4, 4, 4))
        with pytest.raises(ValueError, match="grey: must be a 3D array; got 2 dimensions"):
            resolve_phases(grey[0], thresholds(), spacing=UNIT, edge_width_um=1.0)
        with pytest.raises(ValueError, match="spacing: must be three positive lengths"):
            resolve_phases(grey, thresholds(), spacing=(1.0, 0.0, 1.0), edge_width_um=1.0)
        with pytest.raises(ValueError, match="edge_width_um: must be a length of 0 or more"):
            resolve_phases(grey, thresholds(), spacing=UNIT, edge_width_um=-1.0)
        with pytest.raises(ValueError, match="thresholds: must lie in order"):
            resolve_phases(grey, replace(thresholds(), void_cbd=0.9), spacing=UNIT, edge_width_um=1.0)


class TestThresholds:
    @staticmethod
    def histogram(
        share: tuple[float, float, float], sd: float, place: float = 0.35, film: float = 6.0
    ) -> tuple[Array, Array]:
        """Grey of random blobs with films of CBD around the active ones, blurred and noisy."""
        rng = np.random.default_rng(4)
        texture = ndimage.gaussian_filter(rng.standard_normal((64, 64, 64)), 4)
        active = texture > np.quantile(texture, 1 - share[2])
        side = ndimage.gaussian_filter(rng.standard_normal(texture.shape), 5)
        outside = ~active & (ndimage.distance_transform_edt(~active) <= film)
        cbd = outside & (side > np.quantile(side[outside], 1 - min(1.0, share[1] * active.size / outside.sum())))
        grey = ndimage.gaussian_filter(np.where(active, 1.0, np.where(cbd, place, 0.0)), 0.85)
        grey += sd * rng.standard_normal(grey.shape)
        return np.histogram(10000 + 30000 * grey, 2000)

    @pytest.mark.parametrize("sd", [0.02, 0.05, 0.08])
    @pytest.mark.parametrize("place", [0.3, 0.45, 0.55])
    def test_class_means_are_found(self, sd: float, place: float) -> None:
        found = find_thresholds(*self.histogram((0.4, 0.2, 0.4), sd, place))
        assert found.means == pytest.approx((10000, 10000 + 30000 * place, 40000), abs=0.03 * 30000)
        assert found.void_cbd == pytest.approx((found.means[0] + found.means[1]) / 2)
        assert found.cbd_active == pytest.approx((found.means[1] + found.means[2]) / 2)
        assert found.means[0] < found.void_cbd_band[0] < found.void_cbd < found.void_cbd_band[1] < found.means[1]
        assert found.means[1] < found.cbd_active_band[0] < found.cbd_active < found.cbd_active_band[1] < found.means[2]

    def test_small_cbd_class(self) -> None:
        found = find_thresholds(*self.histogram((0.55, 0.05, 0.4), 0.05))
        assert found.means == pytest.approx((10000, 20500, 40000), abs=0.06 * 30000)

    def test_otsu(self) -> None:
        counts, edges = self.histogram((0.4, 0.2, 0.4), 0.05)
        found = find_thresholds(counts, edges, method="otsu")
        assert found.method == "otsu"
        filters = pytest.importorskip("skimage.filters")
        group = counts[: 2000 // 4 * 4].reshape(-1, 4).sum(1)
        centres = ((edges[:-1] + edges[1:]) / 2).reshape(-1, 4).mean(1)
        expected = filters.threshold_multiotsu(hist=(group, centres), classes=3)
        assert (found.void_cbd, found.cbd_active) == pytest.approx(tuple(expected), abs=2 * (edges[4] - edges[0]))
        assert found.void_cbd != find_thresholds(counts, edges).void_cbd

    def test_given_thresholds_are_taken(self) -> None:
        counts, edges = self.histogram((0.4, 0.2, 0.4), 0.05)
        free = find_thresholds(counts, edges)
        both = find_thresholds(counts, edges, void_cbd=14000.0, cbd_active=31000.0)
        assert (both.void_cbd, both.cbd_active, both.method) == (14000.0, 31000.0, "given")
        one = find_thresholds(counts, edges, void_cbd=14000.0)
        assert (one.void_cbd, one.cbd_active) == (14000.0, free.cbd_active)
        assert one.means == free.means

    def test_variants_are_the_ends_of_the_bands(self) -> None:
        found = find_thresholds(*self.histogram((0.4, 0.2, 0.4), 0.05))
        moved = found.variants()
        assert sorted(moved) == ["cbd_active_high", "cbd_active_low", "void_cbd_high", "void_cbd_low"]
        assert moved["void_cbd_low"] == replace(found, void_cbd=found.void_cbd_band[0])
        assert moved["cbd_active_high"] == replace(found, cbd_active=found.cbd_active_band[1])

    def test_survives_json(self) -> None:
        found = find_thresholds(*self.histogram((0.4, 0.2, 0.4), 0.05))
        assert Thresholds.from_dict(json.loads(json.dumps(found.to_dict()))) == found

    def test_bad_arguments(self) -> None:
        counts, edges = self.histogram((0.4, 0.2, 0.4), 0.05)
        with pytest.raises(InputError, match="method: must be 'auto', 'gmm' or 'otsu'; got 'magic'"):
            find_thresholds(counts, edges, method="magic")
        with pytest.raises(InputError, match="void_cbd, cbd_active: must rise between the grey of void and active"):
            find_thresholds(counts, edges, void_cbd=39000.0)
        with pytest.raises(InputError, match="must hold at least three grey levels"):
            find_thresholds([5, 0, 7], [0, 1, 2, 3])


class TestGivenPhases:
    @pytest.mark.parametrize("dtype", ["u1", ">u2", "i4", "i8"])
    def test_names_to_codes(self, dtype: str) -> None:
        volume = np.array([[[0, 1, 2, 9]]], dtype)
        codes = map_phases(volume, {"void": 0, "active": 1, "cbd": 2, "collector": 9})
        assert codes.dtype == np.uint8
        assert codes.tolist() == [[[VOID, ACTIVE, CBD, COLLECTOR]]]

    def test_bool_and_far_values(self) -> None:
        assert map_phases(np.array([[[True, False]]]), {"active": 1, "void": 0}).tolist() == [[[ACTIVE, VOID]]]
        far = np.array([[[-5, 100000]]], np.int32)
        assert map_phases(far, {"void": -5, "active_low": 100000}).tolist() == [[[VOID, ACTIVE]]]

    def test_bad_arguments(self) -> None:
        volume = np.array([[[0, 1, 2]]], np.uint8)
        with pytest.raises(InputError, match=r"names must be of void, cbd, active.*; got binder"):
            map_phases(volume, {"void": 0, "active": 1, "binder": 2})
        with pytest.raises(InputError, match="must name the active phase; got void, cbd"):
            map_phases(volume, {"void": 0, "cbd": 2})
        with pytest.raises(InputError, match="every value in the volume; got void=0,active=1, but it also holds 2"):
            map_phases(volume, {"void": 0, "active": 1})
        with pytest.raises(InputError, match="must give each value one name"):
            map_phases(volume, {"void": 0, "active": 0})
        with pytest.raises(InputError, match="--phases: must be a volume of integers; got float64"):
            map_phases(volume.astype(float), {"void": 0, "active": 1})


@pytest.mark.slow
def test_detachment_on_the_phantom() -> None:
    """Fringes, noise, texture, rings, cracks, touching particles; CBD three blur widths thick; survey to phases."""
    from cbdetach.phantom import Phantom
    from cbdetach.survey import SurveyAccumulator

    phantom = Phantom(shape=(144, 144, 144), seed=7, coating_thickness_um=1.2)
    volume = phantom.volume()
    spacing = phantom.settings.voxel_size_um
    accumulator = SurveyAccumulator(spacing)
    accumulator.add(volume.grey)
    survey = accumulator.finish()
    found = find_thresholds(survey.counts, survey.edges)
    phases, _ = resolve_phases(volume.grey, found, spacing=spacing, edge_width_um=survey.edge_width_um)

    # the true particles, with the surface that was found
    near, index = ndimage.distance_transform_edt(volume.labels == 0, return_indices=True)
    owner = volume.labels[tuple(index)]
    body = ndimage.binary_erosion(volume.labels > 0, iterations=3) | ((volume.damage > 0) & (volume.labels > 0))
    particles = np.where(((phases == ACTIVE) & (near < 3)) | body, owner, 0)
    area = np.zeros((particles.max() + 1, 2))
    for axis in range(3):
        for own, other in ((np.s_[:-1], np.s_[1:]), (np.s_[1:], np.s_[:-1])):
            own_label, other_label, own_phase, other_phase = (
                np.moveaxis(x, axis, 0)[part]
                for x, part in ((particles, own), (particles, other), (phases, own), (phases, other))
            )
            for code in (VOID, CBD):
                face = (own_label > 0) & (other_label == 0) & (own_phase == ACTIVE) & (other_phase == code)
                area[:, code] += np.bincount(own_label[face], minlength=len(area))
    truth = phantom.truth[~phantom.truth.touches_border & phantom.truth.detachment_fraction.notna()]
    measured = area[truth.label, VOID] / area[truth.label].sum(1)
    size = np.cbrt(np.bincount(particles.ravel())[truth.label] * math.prod(spacing) * 6 / math.pi)
    assert len(truth) > 50
    assert np.abs(measured - truth.detachment_fraction).mean() <= 0.03
    assert np.corrcoef(measured, truth.detachment_fraction)[0, 1] >= 0.99
    assert np.abs(size / truth.equivalent_diameter_um - 1).max() < 0.02
