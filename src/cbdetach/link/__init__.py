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
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.assignment import components
from cbdetach.link.joins import detours_of, sandwiched
from cbdetach.link.necks import NECK_REACH, cut_necks
from cbdetach.link.shared import Floats, Ints, Overlap, Shared, ends_of

EVENT_KINDS = ("birth", "death", "merge", "split", "gap", "detour", "fragment", "neck")
REACH = 12
"""Distance in slices over which sections are compared: on phantoms 12 finds 3 % more particles than 7."""


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

    near = Shared.of(overlaps, start, 1)
    matched = near.assign(min_iou, min_containment)
    ends, begins = np.ones(n, np.bool_), np.ones(n, np.bool_)
    ends[near.a[matched]] = False
    begins[near.b[matched]] = False
    far = Shared.of(skips if max_gap else (), start, 2)
    far = far.rows(ends[far.a] & begins[far.b])
    bridged = far.assign(min_iou, min_containment)
    edges = np.concatenate([near.pairs(matched), far.pairs(bridged)])
    before = near.hosts(near.b, near.inside_b >= min_containment)
    after = near.hosts(near.a, near.inside_a >= min_containment)
    detours = detours_of(
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
        rows = sandwiched(components(n, edges), level, near, before, after)
    else:
        rows = np.zeros(0, np.int64)
    chain = components(n, np.concatenate([edges, near.pairs(rows)]))
    necks = np.zeros((0, 2), np.int64)
    if neck_depth is not None:
        tables = [near, *(Shared.of(o, start, step) for step, o in enumerate([skips, *further][: NECK_REACH - 1], 2))]
        chain, necks = cut_necks(chain, level, size, tables, neck_depth)

    particle = _number(chain, size)
    own, other = particle[near.a], particle[near.b]
    merges = np.flatnonzero((near.inside_a >= min_containment) & ends[near.a] & ~begins[near.b] & (own != other))
    splits = np.flatnonzero((near.inside_b >= min_containment) & begins[near.b] & ~ends[near.a] & (own != other))
    first, last = ends_of(particle, level)
    first = first[(level[first] > 0) & (particle[first] > 0)]
    last = last[(level[last] < len(counts) - 1) & (particle[last] > 0)]
    events = [
        _event("birth", level[first], particle[first]),
        _event("death", level[last], particle[last]),
        _event("merge", level[near.b[merges]], other[merges], own[merges], near.inside_a[merges]),
        _event("split", level[near.b[splits]], own[splits], other[splits], near.inside_b[splits]),
        _event("gap", level[far.b[bridged]], particle[far.b[bridged]], overlap=far.containment[bridged]),
        _event("detour", level[detours[:, 1]], particle[detours[:, 1]]),
        _event("fragment", level[near.b[rows]], particle[near.b[rows]], overlap=near.containment[rows]),
        _event("neck", level[necks[:, 1]], particle[necks[:, 0]], particle[necks[:, 1]]),
    ]
    kind, at, whose, with_whom, overlap = (np.concatenate(column) for column in zip(*events, strict=True))
    ids = [particle[i:j] for i, j in itertools.pairwise(start)]
    return Links(int(particle.max(initial=0)), ids, kind, at, whose, with_whom, overlap)


def _event(
    kind: str, level: Ints, own: Ints, other: Ints | None = None, overlap: Floats | None = None
) -> tuple[npt.NDArray[np.str_], Ints, Ints, Ints, Floats]:
    """Events of one kind, as columns of `Links`; 0 for what they have not."""
    none = np.zeros(len(level))
    return (
        np.full(len(level), kind),
        level.astype(np.int64),
        own.astype(np.int64),
        (none if other is None else other).astype(np.int64),
        (none if overlap is None else overlap).astype(np.float64),
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


def _number(chain: Ints, size: Floats) -> Ints:
    """The same chains numbered 1..n in the order of their first object; 0 for a chain without a pixel."""
    _, first, inverse = np.unique(chain, return_index=True, return_inverse=True)
    seen = np.bincount(inverse, weights=size, minlength=first.size) > 0
    first = np.where(seen, first, chain.size)
    number = np.zeros(first.size, np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(1, first.size + 1)
    numbers: Ints = np.where(seen, number, 0)[inverse]
    return numbers


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
