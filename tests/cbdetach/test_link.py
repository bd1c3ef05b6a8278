"""Linking of levels: drawn scenes, the assignment against brute force, permutations, events."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxkernels as vk
from cbdetach.assignment import assign
from cbdetach.link import EVENT_KINDS, Links, link, link_slices

Array = npt.NDArray[Any]


def scene(*levels: list[tuple[int, int]], width: int = 100) -> Array:
    """Slices of one row of pixels: each level a list of intervals [low, high), numbered 1, 2, ... in their order."""
    labels = np.zeros((len(levels), 1, width), np.int32)
    for image, intervals in zip(labels, levels, strict=True):
        for number, (low, high) in enumerate(intervals, start=1):
            image[0, low:high] = number
    return labels


def ids(links: Links) -> list[list[int]]:
    return [g.tolist() for g in links.global_id]


def events(links: Links, kind: str) -> list[tuple[int, int, int]]:
    of = links.kind == kind
    return list(zip(links.level[of].tolist(), links.particle[of].tolist(), links.other[of].tolist(), strict=True))


def one_to_one(links: Links) -> bool:
    """Without joined fragments no particle has two objects at one level."""
    return all(len(np.unique(g[g > 0])) == np.count_nonzero(g) for g in links.global_id)


def random_slices(rng: np.random.Generator, levels: int = 4, size: int = 14, numbers: int = 6) -> Array:
    blocks = rng.integers(0, numbers + 1, (levels, size // 2, size // 2))
    return np.ascontiguousarray(np.kron(blocks, np.ones((1, 2, 2), np.int64)).astype(np.int32))


# ---- drawn scenes ---------------------------------------------------------------------------------------------------


def test_birth_and_death() -> None:
    _, links = link_slices(scene([(0, 10)], [(0, 10), (50, 60)], [(50, 60)]))
    assert ids(links) == [[1], [1, 2], [2]]
    assert events(links, "birth") == [(1, 2, 0)]
    assert events(links, "death") == [(1, 1, 0)]
    assert links.report() == {"particles": 2} | {k + "s": 0 for k in EVENT_KINDS} | {"births": 1, "deaths": 1}


def test_merge_and_split_are_reported_and_the_best_match_keeps_the_number() -> None:
    _, links = link_slices(scene([(0, 30), (30, 40)], [(0, 40)]))
    assert ids(links) == [[1, 2], [1]]
    assert events(links, "merge") == [(1, 1, 2)]
    assert links.overlap[links.kind == "merge"].tolist() == [1.0]
    _, links = link_slices(scene([(0, 40)], [(0, 10), (10, 40)]))
    assert ids(links) == [[1], [2, 1]]
    assert events(links, "split") == [(1, 1, 2)]


def test_empty_slices_end_every_particle() -> None:
    _, links = link_slices(scene([(0, 10)], [], [], [(0, 10)]))
    assert ids(links) == [[1], [], [], [2]]
    _, links = link_slices(scene([], [], []))
    assert links.n == 0
    assert links.report()["particles"] == 0
    result, links = link_slices(np.zeros((0, 4, 4), np.int32))
    assert (result.shape, links.n, links.global_id) == ((0, 4, 4), 0, [])


def test_gap_of_one_slice_is_bridged_and_reported() -> None:
    slices = scene([(0, 10)], [(50, 60)], [(0, 10)])
    result, links = link_slices(slices)
    assert ids(links) == [[1], [2], [1]]
    assert events(links, "gap") == [(2, 1, 0)]
    assert result[:, 0, 0].tolist() == [1, 0, 1]
    _, links = link_slices(slices, max_gap=0)
    assert ids(links) == [[1], [2], [3]]


def test_one_object_before_many_and_many_before_one() -> None:
    big, small = np.ones((1, 100, 100), np.int32), np.arange(1, 10001, dtype=np.int32).reshape(1, 100, 100) % 1000 + 1
    _, links = link_slices(np.concatenate([big, small]), min_containment=0.5)
    assert links.n == 1000
    assert one_to_one(links)
    _, links = link_slices(np.concatenate([small, big]), min_containment=0.5)
    assert links.n == 1000
    assert len(events(links, "merge")) == 999


def test_objects_that_shrink_to_a_pole_are_followed_by_containment() -> None:
    slices = scene([(0, 40)], [(10, 18)], [(12, 14)])
    assert link_slices(slices)[1].n == 1
    assert link_slices(slices, min_containment=1.0, min_iou=0.9, fragments="own")[1].n == 1
    assert link(*tables(slices), min_iou=0.5, min_containment=1.0, fragments="own").n == 1
    shifted = scene([(0, 40)], [(36, 46)])
    assert link_slices(shifted)[1].n == 2
    assert link_slices(shifted, min_containment=0.4)[1].n == 1
    assert link_slices(shifted, min_iou=0.05)[1].n == 1


def tables(slices: Array) -> tuple[list[Array], list[Any], list[Any]]:
    sizes = [np.bincount(s.ravel(), minlength=1)[1:] for s in slices]
    near = [vk.overlap_counts(a, b) for a, b in itertools.pairwise(slices)]
    far = [vk.overlap_counts(a, b) for a, b in zip(slices[:-2], slices[2:], strict=True)]
    return sizes, near, far


def test_a_contracting_grid_keeps_every_particle() -> None:
    """Forty-nine discs that move towards the centre and shrink, more than half their width in ten slices."""
    y, x = np.indices((140, 140))
    levels = []
    for k in range(10):
        image = np.zeros((140, 140), np.int32)
        for n, (i, j) in enumerate(itertools.product(range(-3, 4), repeat=2), start=1):
            image[(y - 70 - i * (18 - 0.5 * k)) ** 2 + (x - 70 - j * (18 - 0.5 * k)) ** 2 < (7 - 0.3 * k) ** 2] = n
        levels.append(image)
    result, links = link_slices(np.stack(levels))
    assert links.n == 49
    assert (result == np.stack(levels)).all()


def test_fragments_between_two_sections_of_one_particle_join_it() -> None:
    slices = scene([(0, 60)], [(0, 40), (41, 60)], [(0, 40), (41, 60)], [(0, 60)])
    result, links = link_slices(slices)
    assert links.n == 1
    assert events(links, "fragment") == [(1, 1, 0)]
    assert ((result > 0) == (slices > 0)).all()
    assert link_slices(slices, fragments="own")[1].n == 2


def test_fragments_of_windows_join_the_object_that_contains_them() -> None:
    sizes = [np.array([100]), np.array([60, 40])]
    shared = [vk.overlap_counts(scene([(0, 100)])[0], scene([(0, 60), (60, 100)])[0])]
    assert ids(link(sizes, shared, max_gap=0, fragments="contained")) == [[1], [1, 1]]
    assert ids(link(sizes, shared, max_gap=0, fragments="sandwiched")) == [[1], [1, 2]]
    back = [vk.overlap_counts(scene([(0, 60), (60, 100)])[0], scene([(0, 100)])[0])]
    assert ids(link(sizes[::-1], back, max_gap=0, fragments="contained")) == [[1, 1], [1]]


def test_two_particles_one_above_the_other_are_cut_at_the_neck() -> None:
    area = [max(14.0**2 - (z - 14) ** 2, 12.0**2 - (z - 38) ** 2) for z in range(1, 50)]
    given = tables(scene(*[[(0, max(1, int(10 * a)))] for a in area], width=2000))
    links = link(*given, neck_depth=0.25)
    assert links.n == 2
    assert len(events(links, "neck")) == 1
    cut = ids(links).index([2])
    assert abs(cut - (int(np.argmin(area[10:40])) + 10)) <= 2
    assert link(*given, neck_depth=None).n == 1
    assert link(*given, neck_depth=0.9).n == 1


def test_two_particles_that_touch_obliquely_are_cut_though_no_section_is_narrow() -> None:
    left, right = [(0, 60)] * 8, [(70, 130)] * 8
    passing = [(20, 66)], [(44, 92)]  # what a segmentation sees of both while one follows the other
    slices = scene(*[[i] for i in left], *passing, *[[i] for i in right], width=140)
    assert link_slices(slices)[1].n == 2
    assert link_slices(slices, neck_depth=0.9)[1].n == 1
    sizes, near, _ = tables(slices)
    assert link(sizes, near, max_gap=0, neck_depth=0.25).n == 1  # without tables of slices farther apart
    leaning = scene(*[[(3 * z, 3 * z + 60)] for z in range(20)], width=140)
    assert link_slices(leaning)[1].n == 1


def test_one_badly_cut_slice_is_no_neck() -> None:
    slices = scene(*[[(0, 60)]] * 6, [(0, 20)], *[[(0, 60)]] * 6)
    assert link_slices(slices)[1].n == 1
    slices = scene([(0, 60)], [(0, 60)], [(0, 60)], [(0, 20)], [(0, 60)], [(0, 60)], [(0, 60)])
    assert link_slices(slices)[1].n == 1


def test_a_particle_merged_with_its_neighbour_for_some_slices_is_found_again() -> None:
    apart, merged = [(0, 50), (51, 80)], [(0, 80)]
    slices = scene(apart, apart, apart, merged, merged, merged, apart, apart, apart)
    result, links = link_slices(slices)
    assert links.n == 2
    assert result[0, 0, 70] == result[8, 0, 70] != result[0, 0, 10]
    assert events(links, "detour") == [(6, 2, 0)]
    assert link(*tables(slices)).n == 3  # without tables farther than two slices


def test_a_particle_cut_in_two_that_goes_on_as_its_other_piece_is_one() -> None:
    whole = [(0, 60)]
    slices = scene(whole, whole, [(0, 40), (41, 60)], [(0, 28), (29, 60)], [(0, 15), (16, 60)], whole, whole)
    _, links = link_slices(slices)
    assert links.n == 1
    assert len(events(links, "detour")) == 1


def test_what_ends_in_void_makes_no_detour() -> None:
    there, gone = [(0, 40), (50, 70)], [(0, 40)]
    _, links = link_slices(scene(there, there, gone, gone, gone, there, there))
    assert links.n == 3
    assert events(links, "detour") == []


def test_numbers_without_a_pixel_are_no_particle() -> None:
    image = scene([(0, 10)])[0] * 5
    result, links = link_slices(np.stack([image, image]))
    assert links.n == 1
    assert ids(links) == [[0, 0, 0, 0, 1]] * 2
    assert result.max() == 1


def test_numbers_follow_the_first_object() -> None:
    _, links = link_slices(scene([(50, 60), (0, 10)], [(30, 40), (0, 10), (50, 60)]))
    assert ids(links) == [[1, 2], [3, 2, 1]]


# ---- the assignment -------------------------------------------------------------------------------------------------


def best_by_brute_force(iou: Array) -> float:
    """Largest sum of IoU over all one-to-one assignments of the (padded, square) table."""
    n = max(iou.shape)
    square = np.zeros((n, n))
    square[: iou.shape[0], : iou.shape[1]] = iou
    return max(float(sum(square[i, p] for i, p in enumerate(order))) for order in itertools.permutations(range(n)))


def linked_sum(links: Links, iou: Array) -> float:
    a, b = links.global_id
    return float(sum(iou[i, j] for i, x in enumerate(a) for j, y in enumerate(b) if x == y > 0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_equals_the_best_of_all_permutations(seed: int, numbers: int) -> None:
    slices = random_slices(np.random.default_rng(seed), levels=2, numbers=numbers)
    sizes, near, _ = tables(slices)
    iou = np.zeros((len(sizes[0]), len(sizes[1])))
    o = near[0]
    iou[o.ids_a - 1, o.ids_b - 1] = o.count / (sizes[0][o.ids_a - 1] + sizes[1][o.ids_b - 1] - o.count)
    links = link(sizes, near, max_gap=0, min_iou=0.0, fragments="own")
    assert one_to_one(links)
    if iou.size:
        assert linked_sum(links, iou) == pytest.approx(best_by_brute_force(iou))


def test_sparse_components_equal_the_dense_optimum() -> None:
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(1)
    labels = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((6, 6), int)).astype(np.int32)
    other = np.roll(labels, (2, 3), (0, 1)) * (rng.random(labels.shape) > 0.1)
    slices = np.stack([labels, other.astype(np.int32)])
    sizes, near, _ = tables(slices)
    iou = 1 - vk.overlap_cost(near[0])
    links = link(sizes, near, max_gap=0, min_iou=0.0, fragments="own")
    assert linked_sum(links, iou) == pytest.approx(iou[linear_sum_assignment(iou, maximize=True)].sum())


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([2, 5, 1000]), st.sampled_from([1, 10**12]))
def test_sparse_pairs_are_assigned_as_a_dense_table(seed: int, n: int, values: int, apart: int) -> None:
    """Few values make many ties; numbers far apart must not matter."""
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(seed)
    table = np.where(rng.random((n, n + 1)) < 0.4, rng.integers(0, values, (n, n + 1)), -1)
    a, b = np.nonzero(table >= 0)
    gain = table[a, b].astype(float)
    chosen = assign(a * apart, b * apart, gain)
    assert np.unique(a[chosen]).size == np.unique(b[chosen]).size == chosen.size
    assert (np.diff(chosen) > 0).all()
    dense = np.maximum(table, 0)
    assert gain[chosen].sum() == dense[linear_sum_assignment(dense, maximize=True)].sum()


@given(st.integers(0, 2**32 - 1))
def test_renumbering_the_objects_renumbers_the_result(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = [np.sort(rng.choice(np.arange(1, 20000), 12, replace=False)).reshape(6, 2) for _ in range(5)]
    slices = scene(*[[(int(a), int(b)) for a, b in level] for level in levels], width=20000)
    result, links = link_slices(slices, min_iou=0.2, min_containment=0.7)
    shuffled = slices.copy()
    for image in shuffled:
        image[...] = np.concatenate([[0], 1 + rng.permutation(6)])[image]
    again, links_again = link_slices(shuffled, min_iou=0.2, min_containment=0.7)
    assert links.n == links_again.n
    o = vk.overlap_counts(result, again)
    assert len(o.count) == links.n
    assert links.report() == links_again.report()


def test_equal_overlaps_are_decided_the_same_way_each_time() -> None:
    slices = scene([(0, 10), (10, 20)], [(5, 15)], [(0, 10), (10, 20)])
    first = ids(link_slices(slices, fragments="own")[1])
    assert first == [[1, 2], [1], [1, 2]]
    assert all(ids(link_slices(slices.copy(), fragments="own")[1]) == first for _ in range(3))


@given(st.integers(0, 2**32 - 1))
def test_random_stacks_keep_their_pixels_and_number_without_holes(seed: int) -> None:
    slices = random_slices(np.random.default_rng(seed), levels=6)
    before = slices.copy()
    result, links = link_slices(slices)
    assert (slices == before).all()
    assert ((result > 0) == (slices > 0)).all()
    assert (np.unique(result[result > 0]) == np.arange(1, links.n + 1)).all()
    first = [int(np.argmax(result.ravel() == i)) // result[0].size for i in range(1, links.n + 1)]
    assert first == sorted(first)
    assert one_to_one(link(*tables(slices), fragments="own"))
    assert all(len(c) == len(links.kind) for c in (links.level, links.particle, links.other, links.overlap))
    assert set(links.kind.tolist()) <= set(EVENT_KINDS)
    inside = links.report()
    assert inside["births"] == sum(level > 0 for level in first)


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_bad_options_and_tables_are_refused() -> None:
    sizes, near, far = tables(scene([(0, 10)], [(0, 10)], [(0, 10)]))
    with pytest.raises(ValueError, match="min_iou: must be between 0 and 1; got 2"):
        link(sizes, near, far, min_iou=2)
    with pytest.raises(ValueError, match=r"min_containment: must be between 0 and 1; got -0\.1"):
        link(sizes, near, far, min_containment=-0.1)
    with pytest.raises(ValueError, match="neck_depth: must be between 0 and 1"):
        link(sizes, near, far, neck_depth=1.5)
    with pytest.raises(ValueError, match="max_gap: must be 0 or 1; got 2"):
        link(sizes, near, far, max_gap=2)
    with pytest.raises(ValueError, match="fragments: must be 'sandwiched', 'contained' or 'own'; got 'some'"):
        link(sizes, near, far, fragments="some")
    with pytest.raises(ValueError, match="overlaps: must hold 2 tables for 3 levels; got 1"):
        link(sizes, near[:1], far)
    with pytest.raises(ValueError, match="skips: must hold 1 tables for 3 levels; got 0"):
        link(sizes, near)
    with pytest.raises(ValueError, match="further: must hold 0 tables for 3 levels; got 1"):
        link(sizes, near, far, [far])
    with pytest.raises(ValueError, match="overlaps: must hold only the numbers of their levels' objects; got 1"):
        link([np.zeros(0), *sizes[1:]], near, far)
