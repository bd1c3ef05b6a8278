"""Three labellings of the same voxels, from slices along z, y and x, fused into one.

A slice-wise segmentation errs where its slices show little: at the poles of a particle, and where two particles lie one
above the other. Slices along another axis cut the same place across. So three labellings vote:

1. *Supervoxels*: voxels that carry the same three labels, where at least two of the three see a particle.
2. *Votes*: of two supervoxels, a view that gives both the same particle says yes (1), one that gives them different
   ones says no (-1), one that sees no particle in either is silent (0).
3. *Merge* (average linkage): the two clusters whose voxels agree most on the average, over all pairs of voxels, become
   one, as long as the average is above 0. So particles are one where two of three views say so. The average over
   volumes, not over the contact: a sliver between two outlines that differ by a voxel has no say in whether the
   particles behind it are one, though it touches both all along. (Where all three cut one particle, far apart, it is
   left in two.)
4. Supervoxels that are less than `SMALL` of every object they belong to are such slivers: they do not take part in 3,
   and join the cluster that they agree with most.

Cost: one sort of each slice; the clusters are a matter of thousands, not of voxels. Memory: 20 bytes per voxel.
Method: evidence accumulation, Fred and Jain, IEEE Trans. Pattern Anal. Mach. Intell. 27 (2005) 835, each element
weighted by its volume.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import device
from voxkernels._arrays import as_labels, same_shape

from .watershed import Ints, Labels, Mask, number_by_first_voxel

Array = npt.NDArray[Any]
Object = tuple[int, int]
"""A view and a label in it."""

SMALL = 0.05


def fuse_views(labels_z: Array, labels_y: Array, labels_x: Array) -> Labels:
    """One labelling from three.

    Parameters
    ----------
    labels_z, labels_y, labels_x : (Z, Y, X) of any integer type, on the same voxels, each with its own numbers; 0 is
        no particle. From slices along z, y and x; their order has no influence but on ties.

    Returns
    -------
    (Z, Y, X) int32: 0 where fewer than two views see a particle; particles 1..n in the order of their first voxel.

    Raises
    ------
    TypeError, ValueError : not integer, negative, not three-dimensional, or of different shapes.
    """
    views = [as_labels(f"labels_{axis}", v) for axis, v in zip("zyx", (labels_z, labels_y, labels_x), strict=True)]
    for axis, view in zip("yx", views[1:], strict=True):
        same_shape(f"labels_{axis}", view, "labels_z", views[0])
    triples, size = _supervoxels(views)
    cluster = _clusters(triples, size)
    fused = np.zeros(views[0].shape, np.int32)
    base = [int(v.max(initial=0)) + 1 for v in views]
    keys = _key(triples.T, base)
    for z, slices in enumerate(zip(*views, strict=True)):
        seen = _seen(slices)
        fused[z][seen] = cluster[np.searchsorted(keys, _key([s[seen] for s in slices], base))]
    return number_by_first_voxel(fused)


def fused_scores(labels: Array, views: Sequence[Array], scores: Sequence[npt.NDArray[np.float64]]) -> Array:
    """(n,) score of the fused particles 1..n: mean over voxels and views; nan where no view has one.

    `views` are the three labellings that were fused, `scores` (n + 1,) those of their particles, nan where unknown.
    """
    n = int(labels.max(initial=0)) + 1
    total, count = np.zeros(n), np.zeros(n)
    for view, score in zip(views, scores, strict=True):
        shared = device.overlap_counts(labels, view)
        known = np.isfinite(score[shared.ids_b])
        ids, weight = shared.ids_a[known], shared.count[known].astype(np.float64)
        total += np.bincount(ids, weights=weight * score[shared.ids_b[known]], minlength=n)
        count += np.bincount(ids, weights=weight, minlength=n)
    return np.asarray(np.divide(total, count, out=np.full(n, np.nan), where=count > 0)[1:])


def _seen(slices: Iterable[Array]) -> Mask:
    """Where at least two of three views see a particle."""
    return np.asarray(np.sum([s > 0 for s in slices], axis=0, dtype=np.int8) >= 2)


def _key(columns: Iterable[Array], base: Sequence[int]) -> Ints:
    """Three labels as one number; ascending as the triples are."""
    z, y, x = (np.asarray(column, np.int64) for column in columns)
    return (z * base[1] + y) * base[2] + x


def _supervoxels(views: Sequence[Array]) -> tuple[Ints, Ints]:
    """The triples of labels that occur (N, 3), ascending, and the voxels of each (N,)."""
    base = [int(v.max(initial=0)) + 1 for v in views]
    if base[0] * base[1] * base[2] >= 2**63:
        raise ValueError("labels_z: must be numbered without such large gaps. Number them 1..n.")
    total: dict[int, int] = defaultdict(int)
    for slices in zip(*views, strict=True):
        seen = _seen(slices)
        for key, n in zip(*np.unique(_key([s[seen] for s in slices], base), return_counts=True), strict=True):
            total[int(key)] += int(n)
    keys = np.array(sorted(total), np.int64)
    size = np.array([total[int(k)] for k in keys], np.int64)
    rest, x = np.divmod(keys, base[2])
    z, y = np.divmod(rest, base[1])
    return np.stack([z, y, x], axis=1), size


def _clusters(triples: Ints, size: Ints) -> Ints:
    """Cluster 1..m of each supervoxel."""
    whole: dict[Object, int] = defaultdict(int)
    largest: dict[Object, int] = {}
    for i, triple in enumerate(triples.tolist()):
        for part in _objects(triple):
            whole[part] += int(size[i])
            if part not in largest or size[i] > size[largest[part]]:
                largest[part] = i
    large = np.zeros(len(size), bool)
    large[list(largest.values())] = True
    for i, triple in enumerate(triples.tolist()):
        large[i] |= any(size[i] >= SMALL * whole[part] for part in _objects(triple))
    found = _linked([(i, _objects(triples[i].tolist()), int(size[i])) for i in np.flatnonzero(large).tolist()])
    cluster = np.zeros(len(size), np.int64)
    of: dict[Object, list[int]] = defaultdict(list)
    for number, group in enumerate(found, 1):
        cluster[group.members] = number
        for part in group.volume:
            of[part].append(number)
    for i in np.flatnonzero(~large).tolist():
        sliver = Cluster([i], dict.fromkeys(_objects(triples[i].tolist()), 1), 1)
        near = sorted({number for part in sliver.volume for number in of[part]})
        cluster[i] = max(near, key=lambda number: (sliver.agreement(found[number - 1]), found[number - 1].size))
    return cluster


def _objects(triple: Sequence[int]) -> list[Object]:
    return [(view, label) for view, label in enumerate(triple) if label > 0]


class Cluster:
    """Supervoxels that are one particle: how many of its voxels each view gives to each of its labels."""

    def __init__(self, members: list[int], volume: dict[Object, int], size: int) -> None:
        self.members, self.volume, self.size = members, volume, size
        self.labelled = [0, 0, 0]
        for (view, _), n in volume.items():
            self.labelled[view] += n

    def agreement(self, other: Cluster) -> float:
        """Mean vote, -3 to 3, over the pairs of voxels of two clusters."""
        few, many = sorted((self.volume, other.volume), key=len)
        same = sum(n * many.get(part, 0) for part, n in few.items())
        both = sum(a * b for a, b in zip(self.labelled, other.labelled, strict=True))
        return (2 * same - both) / (self.size * other.size)

    def joined(self, other: Cluster) -> Cluster:
        """Both together."""
        volume = dict(self.volume)
        for part, n in other.volume.items():
            volume[part] = volume.get(part, 0) + n
        return Cluster(self.members + other.members, volume, self.size + other.size)


def _linked(supervoxels: list[tuple[int, list[Object], int]]) -> list[Cluster]:
    """Average linkage, the best pair first; of equally good ones the larger."""
    clusters: dict[int, Cluster] = {
        k: Cluster([i], dict.fromkeys(parts, n), n) for k, (i, parts, n) in enumerate(supervoxels)
    }
    of: dict[Object, set[int]] = defaultdict(set)
    for k, cluster in clusters.items():
        for part in cluster.volume:
            of[part].add(k)
    heap: list[tuple[float, int, int, int]] = []

    def compare(k: int, others: Iterable[int]) -> None:
        for other in others:
            vote = clusters[k].agreement(clusters[other])
            if vote > 0:
                volume = clusters[k].size * clusters[other].size
                heapq.heappush(heap, (-vote, -volume, min(k, other), max(k, other)))

    for k, cluster in clusters.items():
        compare(k, sorted({other for part in cluster.volume for other in of[part] if other < k}))
    made = len(clusters)
    while heap:
        *_, a, b = heapq.heappop(heap)
        if a not in clusters or b not in clusters:
            continue
        new = clusters[a].joined(clusters[b])
        for k in (a, b):
            for part in clusters[k].volume:
                of[part].discard(k)
            del clusters[k]
        clusters[made] = new
        compare(made, sorted({other for part in new.volume for other in of[part]}))
        for part in new.volume:
            of[part].add(made)
        made += 1
    return list(clusters.values())
