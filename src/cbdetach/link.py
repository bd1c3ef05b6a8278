"""One particle from what is seen of it at successive levels: slices segmented one by one, or overlapping 3-D windows.

Only tables are read here: the size of every object, and how many pixels objects of neighbouring levels share.

1. *Match* each level with the next: the one-to-one assignment with the largest sum of IoU (Hungarian method,
   `scipy.optimize.linear_sum_assignment`), over the pairs with IoU >= `min_iou` or with >= `min_containment` of the
   smaller object inside the larger one; the latter is for objects that grow quickly, as a ball does at its poles. The
   candidates fall into small connected components, each solved on its own, which gives the optimum of the whole table.
2. *Gaps.* What ends at a level and what begins two levels later are matched in the same way.
3. *Detours* (slices). Where a slice-wise segmentation merges a particle with its neighbour for some slices, its chain
   ends in the neighbour's and a new one begins there; where it cuts the particle, the chain may pass from one piece to
   the other. The two chains join if a section of one, from before the other began, and a section of the other, from
   after the one ended, overlap by an IoU of `SAME` or more.
4. *Fragments.* "sandwiched" (slices): a chain whose first object lies in one particle of the level before, and whose
   last object lies in the same particle of the level after, is a piece that the segmentation has cut off: it joins.
   "contained" (windows): where two windows see the same voxels, an unmatched object that lies in a matched one joins:
   one window has split what the other has not, and an artificial cut along the window's end would be worse than
   the coarser particle.
5. *Necks* (slices). Two particles one above the other touch at their poles, and overlap perfectly there. The radius of
   the chain from level to level (a median over five) tells them, and the radius of what sections up to three levels
   apart share, which is small where the contact is oblique: the chain is cut where both sides rise above the narrowest
   level by more than `neck_depth` of their largest (`cbdetach.basins`, the rule that splits touching particles).

Nothing is decided silently: every gap, detour, joined fragment and cut neck is an event, and so is every merge (an
object that lies in another particle's object of the next level, though its own chain ends there) and split (the
reverse).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cbdetach.assignment import assign, components
from cbdetach.basins import merge_basins

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
EVENT_KINDS = ("birth", "death", "merge", "split", "gap", "detour", "fragment", "neck")
SAME = 0.5
"""IoU from which sections some slices apart are of one particle: no two disjoint ones can exceed it with a third."""
NECK_REACH = 3
"""Levels over which sections are compared to find a neck: where two particles touch obliquely, no single section is
narrow, but what sections on both sides of the contact share is."""
REACH = 12
"""Distance in slices over which sections are compared: on phantoms 12 finds 3 % more particles than 7."""


class Overlap(Protocol):
    """Shared pixels of the objects of two levels, as `voxkernels.overlap_counts` returns them."""

    @property
    def ids_a(self) -> Ints: ...
    @property
    def ids_b(self) -> Ints: ...
    @property
    def count(self) -> Ints: ...
    @property
    def labels_a(self) -> Ints: ...
    @property
    def size_a(self) -> Ints: ...
    @property
    def labels_b(self) -> Ints: ...
    @property
    def size_b(self) -> Ints: ...


@dataclass(frozen=True)
class Links:
    """Particles 1..n, numbered by (level, local number) of their first object.

    global_id : for each level (n_level,) int64; entry i - 1 is the particle of local number i,
        or 0 if that number has no pixel.
    kind, level, particle, other, overlap : (E,) the events, ordered by kind and level. `level` is the later of the
        levels concerned (the own one of a birth or death), `other` the second particle, or 0; `overlap` the share of
        the smaller object that lies in the other one (0 for births, deaths, detours and necks).
    """

    n: int
    global_id: list[Ints]
    kind: npt.NDArray[np.str_]
    level: Ints
    particle: Ints
    other: Ints
    overlap: Floats

    def report(self) -> dict[str, Any]:
        """Number of particles and of events of each kind, for the run record."""
        return {"particles": self.n} | {kind + "s": int((self.kind == kind).sum()) for kind in EVENT_KINDS}


def link(
    sizes: Sequence[npt.NDArray[Any]],
    overlaps: Sequence[Overlap],
    skips: Sequence[Overlap] = (),
    further: Sequence[Sequence[Overlap]] = (),
    *,
    min_iou: float = 0.25,
    min_containment: float = 0.6,
    max_gap: int = 1,
    fragments: str = "sandwiched",
    neck_depth: float | None = None,
) -> Links:
    """Link the objects of successive levels to particles.

    Parameters
    ----------
    sizes : for each level, the pixels of its objects 1..n_level; 0 for a number that is not there.
    overlaps : for each pair of neighbouring levels (k, k + 1), what they share.
    skips : for each pair (k, k + 2); needed only for gaps.
    further : the same for the pairs (k, k + 3), then (k, k + 4), ...: how far a particle is followed through slices in
        which the segmentation has cut it or merged it with another.
    min_iou, min_containment : 0 to 1; a pair is a candidate if it reaches one of them.
    max_gap : levels at which a particle may be missing, 0 or 1.
    fragments : "sandwiched", "contained" or "own" (no fragment joins).
    neck_depth : 0 to 1, or None: chains are not cut.

    Raises
    ------
    ValueError : an option out of range; a number of overlaps that does not fit the levels; an object that its level
        does not have.
    """
    _check(sizes, overlaps, skips, further, min_iou, min_containment, max_gap, fragments, neck_depth)
    counts = [len(s) for s in sizes]
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    n = int(start[-1])
    level = np.repeat(np.arange(len(counts)), counts)
    size = np.concatenate([np.zeros(0), *sizes])

    near = _Shared.of(overlaps, start, 1)
    matched = near.assign(min_iou, min_containment)
    ends, begins = np.ones(n, np.bool_), np.ones(n, np.bool_)
    ends[near.a[matched]] = False
    begins[near.b[matched]] = False
    far = _Shared.of(skips if max_gap else (), start, 2)
    far = far.rows(ends[far.a] & begins[far.b])
    bridged = far.assign(min_iou, min_containment)
    edges = np.concatenate([near.pairs(matched), far.pairs(bridged)])
    before = near.hosts(near.b, near.inside_b >= min_containment)
    after = near.hosts(near.a, near.inside_a >= min_containment)
    detours = _detours(
        components(n, edges),
        level,
        np.bincount(near.b, weights=near.inside_b, minlength=n) >= min_containment,
        np.bincount(near.a, weights=near.inside_a, minlength=n) >= min_containment,
        [skips if max_gap else (), *further],
        start,
    )
    edges = np.concatenate([edges, detours])
    if fragments == "contained":
        rows = np.concatenate([before[begins[near.b[before]]], after[ends[near.a[after]]]])
    elif fragments == "sandwiched":
        rows = _sandwiched(components(n, edges), level, near, before, after)
    else:
        rows = np.zeros(0, np.int64)
    chain = components(n, np.concatenate([edges, near.pairs(rows)]))
    necks = np.zeros((0, 2), np.int64)
    if neck_depth is not None:
        tables = [near, *(_Shared.of(o, start, step) for step, o in enumerate([skips, *further][: NECK_REACH - 1], 2))]
        chain, necks = _cut_necks(chain, level, size, tables, neck_depth)

    particle = _number(chain, size)
    own, other = particle[near.a], particle[near.b]
    merges = np.flatnonzero((near.inside_a >= min_containment) & ends[near.a] & ~begins[near.b] & (own != other))
    splits = np.flatnonzero((near.inside_b >= min_containment) & begins[near.b] & ~ends[near.a] & (own != other))
    first, last = _ends_of(particle, level)
    first = first[(level[first] > 0) & (particle[first] > 0)]
    last = last[(level[last] < len(counts) - 1) & (particle[last] > 0)]
    nothing = np.zeros(n)
    events = [
        ("birth", level[first], particle[first], nothing[first], nothing[first]),
        ("death", level[last], particle[last], nothing[last], nothing[last]),
        ("merge", level[near.b[merges]], other[merges], own[merges], near.inside_a[merges]),
        ("split", level[near.b[splits]], own[splits], other[splits], near.inside_b[splits]),
        ("gap", level[far.b[bridged]], particle[far.b[bridged]], nothing[far.b[bridged]], far.containment[bridged]),
        ("detour", level[detours[:, 1]], particle[detours[:, 1]], nothing[detours[:, 0]], nothing[detours[:, 0]]),
        ("fragment", level[near.b[rows]], particle[near.b[rows]], nothing[near.b[rows]], near.containment[rows]),
        ("neck", level[necks[:, 1]], particle[necks[:, 0]], particle[necks[:, 1]], nothing[necks[:, 0]]),
    ]
    return Links(
        n=int(particle.max(initial=0)),
        global_id=[particle[i:j] for i, j in itertools.pairwise(start)],
        kind=np.concatenate([np.full(len(e[1]), e[0]) for e in events]),
        level=np.concatenate([e[1] for e in events]).astype(np.int64),
        particle=np.concatenate([e[2] for e in events]).astype(np.int64),
        other=np.concatenate([e[3] for e in events]).astype(np.int64),
        overlap=np.concatenate([e[4] for e in events]).astype(np.float64),
    )


def link_slices(labels: npt.NDArray[np.int32], **options: Any) -> tuple[npt.NDArray[np.int32], Links]:
    """Link a stack of slices, each labelled on its own.

    Parameters
    ----------
    labels : (Z, Y, X) int32, every slice with its own numbers 1..n. Not altered.
    options : as for `link`; `neck_depth` is 0.25 here unless given.

    Returns
    -------
    (Z, Y, X) int32 particles, and the links.
    """
    from cbdetach import device

    sizes = [np.bincount(image.ravel(), minlength=1)[1:] for image in labels]
    overlaps, skips, *further = (device.overlap_counts_stack(labels, step=step) for step in range(1, REACH + 1))
    links = link(sizes, overlaps, skips, further, **({"neck_depth": 0.25} | options))
    result = np.zeros(labels.shape, np.int32)
    for image, ids, linked in zip(labels, links.global_id, result, strict=True):
        linked[...] = np.concatenate([[0], ids])[image]
    return result, links


@dataclass(frozen=True)
class _Shared:
    """Pairs of objects that share pixels, of all levels at once; a, b number objects through all levels."""

    a: Ints
    b: Ints
    count: Ints
    inside_a: Floats
    inside_b: Floats
    iou: Floats

    @classmethod
    def of(cls, overlaps: Sequence[Overlap], start: Ints, step: int) -> _Shared:
        none, nowhere = np.zeros(0, np.int64), np.zeros(0)
        parts = [(none, none, none, nowhere, nowhere, nowhere)]
        for k, o in enumerate(overlaps):
            size_a = o.size_a[np.searchsorted(o.labels_a, o.ids_a)]
            size_b = o.size_b[np.searchsorted(o.labels_b, o.ids_b)]
            a, b = o.ids_a - 1 + start[k], o.ids_b - 1 + start[k + step]
            parts.append((a, b, o.count, o.count / size_a, o.count / size_b, o.count / (size_a + size_b - o.count)))
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    @property
    def containment(self) -> Floats:
        """Share of the smaller object that lies in the larger one."""
        return np.maximum(self.inside_a, self.inside_b)

    def rows(self, keep: Mask) -> _Shared:
        return _Shared(*(getattr(self, f.name)[keep] for f in fields(self)))

    def pairs(self, rows: Ints) -> Ints:
        return np.stack([self.a[rows], self.b[rows]], axis=1)

    def hosts(self, guest: Ints, inside: Mask) -> Ints:
        """For each object that lies inside others, the row of the one that it shares most with; ascending by guest."""
        rows = np.flatnonzero(inside)
        rows = rows[np.lexsort((rows, -self.count[rows], guest[rows]))]
        return rows[np.unique(guest[rows], return_index=True)[1]]

    def assign(self, min_iou: float, min_containment: float) -> Ints:
        """Rows of the one-to-one assignment with the largest sum of IoU, among the rows that reach a threshold."""
        rows = np.flatnonzero((self.iou >= min_iou) | (self.containment >= min_containment))
        return rows[assign(self.a[rows], self.b[rows], self.iou[rows])]


def _number(chain: Ints, size: Floats) -> Ints:
    """The same chains numbered 1..n in the order of their first object; 0 for a chain without a pixel."""
    _, first, inverse = np.unique(chain, return_index=True, return_inverse=True)
    seen = np.bincount(inverse, weights=size, minlength=first.size) > 0
    first = np.where(seen, first, chain.size)
    number = np.zeros(first.size, np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(1, first.size + 1)
    numbers: Ints = np.where(seen, number, 0)[inverse]
    return numbers


def _ends_of(chain: Ints, level: Ints) -> tuple[Ints, Ints]:
    """First and last node of each chain (of several at one level, the first and the last by number)."""
    order = np.lexsort((level, chain))
    begin = np.flatnonzero(np.diff(chain[order], prepend=-1))
    return order[begin], order[np.append(begin[1:], chain.size) - 1] if chain.size else order


def _detours(
    chain: Ints,
    level: Ints,
    covered_before: Mask,
    covered_after: Mask,
    tables: Sequence[Sequence[Overlap]],
    start: Ints,
) -> Ints:
    """Pairs of objects, of two chains that are one particle, on both sides of slices in which it was cut or merged.

    Sections of the two, from before the second began and after the first ended, overlap by `SAME` or more. If the two
    never coexist, other objects must cover the end of the first and the start of the second: what ends in void ends.
    """
    first, last = _ends_of(chain, level)
    _, of = np.unique(chain, return_inverse=True)
    born, dies = level[first][of], level[last][of]
    splits_off, merges = covered_before[first][of], covered_after[last][of]
    found = [np.zeros((0, 2), np.int64)]
    for step, overlaps in enumerate(tables, start=2):
        far = _Shared.of(overlaps, start, step)
        around = (level[far.a] < born[far.b]) & (level[far.b] > dies[far.a])
        covered = merges[far.a] & splits_off[far.b] | (born[far.b] <= dies[far.a])
        relay = around & covered & (far.iou >= SAME)
        found.append(far.pairs(np.flatnonzero(relay & (far.iou >= SAME))))
    pairs: Ints = np.concatenate(found)
    once = np.unique(chain[pairs], axis=0, return_index=True)[1]
    joined: Ints = pairs[once]
    return joined


def _sandwiched(chain: Ints, level: Ints, near: _Shared, before: Ints, after: Ints) -> Ints:
    """Rows that join to its host a chain that begins and ends inside one and the same other chain."""
    first, last = _ends_of(chain, level)
    above, below = np.full(chain.size, -1), np.full(chain.size, -1)
    above[near.b[before]] = before
    below[near.a[after]] = after
    above, below = above[first], below[last]
    both = (above >= 0) & (below >= 0)
    above, below, own = above[both], below[both], chain[first[both]]
    host = chain[near.a[above]]
    joins = (host == chain[near.b[below]]) & (host != own)
    rows: Ints = above[joins]
    return rows


def _cut_necks(chain: Ints, level: Ints, size: Floats, tables: Sequence[_Shared], depth: float) -> tuple[Ints, Ints]:
    """Chains cut where the radius of their sections, or of what distant ones share, has a deep minimum.

    tables : what objects 1, 2, ... levels apart share. Returns the chains, and the nodes before and after each cut.
    """
    order = np.lexsort((level, chain))
    new = (np.diff(chain[order], prepend=-1) != 0) | (np.diff(level[order], prepend=-1) != 0)
    section = np.empty(chain.size, np.int64)
    section[order] = np.cumsum(new) - 1
    node = order[new]
    radius = np.sqrt(np.bincount(section, weights=size, minlength=node.size))
    radius = _median_along(radius, chain[node])
    step = np.flatnonzero(chain[node[:-1]] == chain[node[1:]])
    pairs = np.stack([step, step + 1], axis=1)
    saddle = np.minimum(radius[step], radius[step + 1])
    saddle = np.minimum(saddle, _shared_radius(chain, level, section, node, tables)[step])
    one = np.ones(node.size)
    piece = merge_basins(pairs, saddle, radius, depth, size=one, smallest=NECK_REACH)
    cut = pairs[piece[step] != piece[step + 1]]
    return piece[section], node[cut]


def _shared_radius(chain: Ints, level: Ints, section: Ints, node: Ints, tables: Sequence[_Shared]) -> Floats:
    """For each section: the radius of what sections before and after its end share, at most `NECK_REACH` levels apart.

    The best of all such pairs: one that was segmented badly belongs to one of them only. In a chain of few levels the
    pairs are nearer, as the sections of one small particle change as quickly; neighbours are no pair, since both of a
    bad section's would be bad. Infinite where there is no pair.
    """
    levels = int(level.max(initial=0)) + 1 + len(tables)
    _, number, length = np.unique(chain[node], return_inverse=True, return_counts=True)
    reach = np.minimum(length // 4, len(tables))[number]
    key = number * levels + level[node]
    here = np.arange(node.size)
    best = np.full(node.size, -np.inf)
    for apart, table in enumerate(tables[1:], 2):
        same = chain[table.a] == chain[table.b]
        shared = np.bincount(section[table.a[same]], weights=table.count[same], minlength=node.size)
        follows = np.isin(key + apart, key)
        for back in range(apart):
            before = np.searchsorted(key, key - back)
            there = (key[np.minimum(before, here)] == key - back) & (level[node] >= back)
            straddles = there & follows[np.minimum(before, here)] & (reach == apart)
            np.maximum(best, np.sqrt(shared[np.minimum(before, here)]), out=best, where=straddles)
    return np.where(best < 0, np.inf, best)


def _median_along(values: Floats, chain: Ints) -> Floats:
    """Median over five levels of each chain, fewer at its ends: one slice that was segmented badly is no neck."""
    here = np.arange(values.size)
    begin = np.flatnonzero(np.diff(chain, prepend=-1))
    length = np.diff(np.append(begin, values.size))
    low, high = np.repeat(begin, length), np.repeat(begin + length - 1, length)
    around = [values[np.clip(here + shift, low, high)] for shift in range(-2, 3)]
    median: Floats = np.median(around, axis=0)
    return median


def _check(
    sizes: Sequence[npt.NDArray[Any]],
    overlaps: Sequence[Overlap],
    skips: Sequence[Overlap],
    further: Sequence[Sequence[Overlap]],
    min_iou: float,
    min_containment: float,
    max_gap: int,
    fragments: str,
    neck_depth: float | None,
) -> None:
    for name, share in (("min_iou", min_iou), ("min_containment", min_containment), ("neck_depth", neck_depth)):
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"{name}: must be between 0 and 1; got {share}.")
    if max_gap not in (0, 1):
        raise ValueError(f"max_gap: must be 0 or 1; got {max_gap}.")
    if fragments not in ("sandwiched", "contained", "own"):
        raise ValueError(f"fragments: must be 'sandwiched', 'contained' or 'own'; got {fragments!r}.")
    named = [("overlaps", overlaps, 1), ("skips", skips, 2), *(("further", f, 3 + i) for i, f in enumerate(further))]
    for name, tables, step in named:
        wanted = max(0, len(sizes) - step)
        if len(tables) != wanted and not (step == 2 and max_gap == 0):
            raise ValueError(f"{name}: must hold {wanted} tables for {len(sizes)} levels; got {len(tables)}.")
        for k, table in enumerate(tables):
            for ids, have in ((table.ids_a, len(sizes[k])), (table.ids_b, len(sizes[k + step]))):
                if ids.size and not 1 <= int(ids.min()) <= int(ids.max()) <= have:
                    raise ValueError(
                        f"{name}: must hold only the numbers of their levels' objects; got {int(ids.max())} "
                        f"at a level of {have} objects."
                    )
