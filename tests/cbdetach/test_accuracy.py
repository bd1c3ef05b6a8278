"""The measurements behind docs/accuracy.md: what they call true, on bodies that can be counted, and a small phantom."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.accuracy_bands import thin_share
from benchmarks.accuracy_columns import grain, line, number

from cbdetach import detachment
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.demo import match
from cbdetach.phantom import Phantom, PhantomSettings
from cbdetach.segment import segment_volume


@pytest.mark.parametrize(("thick", "expected"), [(1, 1 / 6), (2, 1 / 6), (6, 0.0)])
def test_a_film_on_one_face_of_a_cube_is_a_sixth(thick: int, expected: float) -> None:
    labels = np.zeros((64, 64, 64), np.int32)
    labels[16:48, 16:48, 16:48] = 3
    phases = np.where(labels > 0, ACTIVE, VOID).astype(np.uint8)
    phases[48 : 48 + thick, 16:48, 16:48] = CBD
    share = thin_share(labels, phases, spacing=(0.5, 0.5, 0.5), delta_um=2.0)
    assert np.isnan(share[:3]).all()
    assert share[3] == pytest.approx(expected, abs=0.04)  # at edges the normal looks past the film


def test_grain_is_what_the_settings_add() -> None:
    """Texture and noise are independent; either alone has its own strength."""
    plain = PhantomSettings(texture=0.0, noise=0.0, rings=0.0, fringe=0.0)
    contrast = plain.grey_active - plain.grey_void
    assert grain(plain, 60) == pytest.approx(0, abs=1)
    noise = grain(PhantomSettings(texture=0.0, noise=0.04, rings=0.0, fringe=0.0), 60)
    assert noise == pytest.approx(0.04 * contrast, rel=0.03)
    both = grain(PhantomSettings(texture=0.03, noise=0.04, rings=0.0, fringe=0.0), 60)
    assert both == pytest.approx(0.05 * contrast, rel=0.05)


def test_a_row_of_the_table() -> None:
    true, found = np.array([1.0, 2.0, 3.0, np.nan]), np.array([1.5, 2.5, 3.2, 1.0])
    assert line("`x`", true, found, true) == "| `x` | 3 | 2.00 ± 0.816 | +0.400 | 0.400 | 0.995 | +0 | 0 | 1.000 |"
    assert line("`x`", true, np.full(4, np.nan), true) == "| `x` | 0 |"
    assert [number(v) for v in (0.0, 12345.6, 1.234, 0.01234, 0.00001)] == ["0", "12346", "1.23", "0.0123", "0.0000"]


def test_surface_of_particles_that_are_split_is_as_stated() -> None:
    """True phases, the watershed's particles: known share of the surface, contact with particles, on the mean."""
    phantom = Phantom(shape=(100, 100, 100), seed=6)
    labels, phases, _ = phantom.codes(0, 100)
    found = segment_volume(phases == ACTIVE, spacing=(0.2, 0.2, 0.2))
    ids, own = match(found, labels)
    truth = phantom.truth.set_index("label").loc[own]
    whole = ~truth["touches_border"].to_numpy()
    contacts = detachment.surface_classes(found, phases, spacing=(0.2, 0.2, 0.2))
    columns = detachment.detachment_columns(contacts, ids)
    outer = truth[[f"area_{n}_um2" for n in ("void", "cbd", "particle", "other", "crack_mouth")]].sum(axis=1)
    known = ((truth["area_void_um2"] + truth["area_cbd_um2"]) / outer).to_numpy()
    assert whole.sum() >= 10
    assert np.mean((columns["contact_known_fraction"] - known)[whole]) == pytest.approx(0, abs=0.03)
    assert np.mean((columns["surface_area_um2"] / outer.to_numpy())[whole]) == pytest.approx(1, abs=0.03)
    assert np.mean((columns["area_particle_um2"] - truth["area_particle_um2"].to_numpy())[whole]) < 1.0
