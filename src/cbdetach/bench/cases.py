"""What `cbdetach bench` measures: every kernel on one electrode, and how its answer is checked before it is timed.

An answer is checked twice. On the whole volume, by NumPy and SciPy alone: as exactly as they can say it in seconds. On
a small block, against the kernel's slow reference, which is another program. A GPU's answer is checked on the whole
volume too, and compared with the processor's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach.arrays import along
from cbdetach.codes import ACTIVE, CBD

Array = npt.NDArray[Any]

KERNELS = (
    *("travel_time", "trace_paths", "label", "contact_areas", "region_properties"),
    *("overlap_counts", "overlap_counts_stack", "paste_masks"),
)
"""The kernels that there are cases of."""

BLOCK = {"travel_time": 8}
"""Edge of the block that the reference computes, in voxels, where it is not `ANY_BLOCK`."""

ANY_BLOCK = 12

MASKS = 100
"""Masks that are pasted."""

PATHS = 1000
"""Paths that are traced."""


@dataclass(frozen=True)
class Case:
    """One call of a kernel. `check` : what is wrong with its answer, or ""; `block` : the reference's arguments."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    check: Callable[[Any], str]
    block: Callable[[], tuple[Any, ...]] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def kernel(self) -> str:
        """The public name of the function."""
        return str(self.function.__name__)

    @property
    def size(self) -> int:
        """Voxels of the volume, or pixels of the image."""
        first = self.arguments[0]
        return int(np.prod(self.arguments[-1])) if self.kernel == "paste_masks" else int(first.size)

    def __call__(self) -> Any:
        """Call the kernel on the processors."""
        return self.function(*self.arguments, **self.options)

    def wrong(self, answer: Any) -> str:
        """What is wrong with an answer of the processor, on the whole and on the block; "" if nothing is."""
        found = self.check(answer)
        if found or self.block is None:
            return found
        reference = importlib.import_module(f"{self.function.__module__}.reference")
        block = self.block()
        expected = getattr(reference, self.kernel)(*block, **self.options)
        return difference(self.function(*block, **self.options), expected, "beside the reference")

    def wrong_beside(self, answer: Any, expected: Any) -> str:
        """What is wrong with a GPU's answer, on the whole and beside the processor's; "" if nothing is."""
        loose = self.kernel == "trace_paths"  # a rounding may send a path round the other side: `check` says enough
        return self.check(answer) or ("" if loose else difference(answer, expected, "beside the processor"))


def difference(one: Any, other: Any, where: str) -> str:
    """Where two answers differ: integers at all, lengths by more than the kernels' contract allows, others by 1e-6."""
    if is_dataclass(one) and not isinstance(one, type | vk.OverlapStack):
        pairs = [(f.name, getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
        return next((found for name, a, b in pairs if (found := difference(a, b, f"{name} {where}"))), "")
    if isinstance(one, tuple | list | vk.OverlapStack):
        if len(one) != len(other):
            return f"{len(one)} {where}, not {len(other)}"
        return next((found for a, b in zip(one, other, strict=True) if (found := difference(a, b, where))), "")
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape:
        return f"shape {a.shape} {where}, not {b.shape}"
    if a.dtype.kind != "f":
        n = int(np.count_nonzero(a != b))
        return f"{n} values differ {where}" if n else ""
    absolute, relative = (1e-3, 1e-5) if a.dtype == np.float32 else (1e-9, 1e-6)
    finite = np.isfinite(a) & np.isfinite(b)
    apart = np.abs(np.subtract(a, b, where=finite, out=np.zeros(a.shape)))
    off = (apart > absolute) & (apart > relative * np.abs(b)) & finite
    off |= ~finite & ~np.isclose(a, b, equal_nan=True)
    return f"{int(off.sum())} values differ {where}, by up to {apart.max():.3g}" if off.any() else ""


def every_case(labels: Array, phases: Array, grey: Array, kernels: Sequence[str] = KERNELS) -> Iterator[Case]:
    """The chosen kernels on one electrode: (Z, Y, X) int32 filled particles, uint8 phase codes and grey values."""
    solid = np.where(phases == ACTIVE, labels, 0).astype(np.int32)
    sources = (phases == CBD) & (labels == 0)
    network = phases == CBD
    busiest = cache(partial(_busiest, solid > 0, sources))

    def volume(name: str, function: Any, arrays: tuple[Array, ...], check: Any, **options: Any) -> Case:
        def block() -> tuple[Array, ...]:
            place = busiest(BLOCK.get(function.__name__, ANY_BLOCK))
            return tuple(array[place] for array in arrays)

        return Case(name, function, arrays, check, block, options)

    if "travel_time" in kernels:
        check = partial(_check_times, solid, sources)
        yield volume("travel_time, order 2", vk.travel_time, (solid, sources), check)
        yield volume("travel_time, order 1", vk.travel_time, (solid, sources), check, order=1, start="centres")
    if "trace_paths" in kernels:
        times = vk.travel_time(solid, sources)
        starts = _starts(times)
        check = partial(_check_paths, solid, times, starts)
        yield Case("trace_paths", vk.trace_paths, (times, starts), check, options={"domain": solid})
    if "label" in kernels:
        for n in (6, 18, 26):
            yield volume(f"label, {n}", vk.label, (network,), partial(_check_label, network, n), connectivity=n)
        three = np.where(network, np.uint8(1), (phases == ACTIVE) * np.uint8(2))
        yield volume("label, 26, phases", vk.label, (three,), partial(_check_label, three, 26))
    if "contact_areas" in kernels:
        for how in ("faces", "crofton", "weighted"):
            faces = partial(_check_faces, labels, phases)
            yield volume(f"contact_areas, {how}", vk.contact_areas, (labels, phases), faces, estimator=how)
    if "region_properties" in kernels:
        for name, image in (("region_properties", ()), ("region_properties, grey", (grey,))):
            yield volume(name, vk.region_properties, (labels, *image), partial(_check_regions, labels, *image))
    if "overlap_counts" in kernels:
        pair = labels[:-1], labels[1:]
        yield volume("overlap_counts", vk.overlap_counts, pair, partial(_check_overlaps, *pair))
    if "overlap_counts_stack" in kernels:
        yield volume("overlap_counts_stack", vk.overlap_counts_stack, (labels,), partial(_check_stack, labels))
    if "paste_masks" in kernels:
        yield paste_case(labels.shape[1:])


def _busiest(solid: Array, sources: Array, edge: int) -> tuple[slice, slice, slice]:
    """The block of a grid of blocks that holds most of what there is less of, solid or sources."""
    n = [max(1, side // edge) for side in solid.shape]
    counts = []
    for mask in (solid, sources):
        whole = mask[tuple(slice(0, k * edge) for k in n)]
        padded = np.zeros([k * edge for k in n], np.int64)
        padded[tuple(slice(0, side) for side in whole.shape)] = whole
        counts.append(padded.reshape(n[0], edge, n[1], edge, n[2], edge).sum(axis=(1, 3, 5)))
    z, y, x = np.unravel_index(int(np.argmax(np.minimum(*counts))), n)
    return slice(z * edge, (z + 1) * edge), slice(y * edge, (y + 1) * edge), slice(x * edge, (x + 1) * edge)


def _starts(times: Array) -> Array:
    """`PATHS` voxels that were reached, at random, (N, 3)."""
    reached = np.flatnonzero(np.isfinite(times))
    chosen = np.random.default_rng(0).choice(reached, min(PATHS, reached.size), replace=False)
    return np.stack(np.unravel_index(chosen, times.shape), axis=1).astype(np.float64)


# ---- checks on the whole volume, by NumPy and SciPy ----------------------------------------------------------------


def _sides() -> list[tuple[Any, Any]]:
    """For each of the six directions, the indices of voxels and of their neighbours."""
    found = []
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        found += [(lower, upper), (upper, lower)]
    return found


LONGEST = 1.001
"""The longest step from a voxel to the next, in voxels: one, what the kernel's own slack is (5e-5), and rounding."""


def _check_times(solid: Array, sources: Array, times: Array) -> str:
    """Nothing outside; reached is what touches a source or what was reached; steps are no longer, ways no shorter.

    A step between neighbours takes up to one voxel. The way to the nearest source is straight at best; where surfaces
    are smoothed it may begin up to a voxel and a half before its middle.
    """
    from scipy.ndimage import distance_transform_edt

    if not np.array_equal(np.isnan(times), solid == 0):
        return "nan where there is solid, or numbers where there is none"
    reached = np.isfinite(times)
    for own, other in _sides():
        if (sources[other] & (solid[own] > 0) & ~reached[own]).any():
            return "a voxel that touches a source is not reached"
        same = (solid[own] == solid[other]) & reached[other]
        if (same & ~reached[own]).any():
            return "a neighbour of a reached voxel is not reached"
        step = np.subtract(times[own], times[other], where=same, out=np.zeros(same.shape, np.float32))
        if (step > LONGEST).any():
            return "a step of one voxel takes longer than one voxel"
    if not sources.any():
        return "reached without a source" if reached.any() else ""
    straight = distance_transform_edt(~sources)
    return "a way is shorter than the straight one" if (times[reached] < straight[reached] - 1.5).any() else ""


def _check_paths(solid: Array, times: Array, starts: Array, paths: list[Array]) -> str:
    """Paths begin at their starts, stay in their labels, and end at a contact; 9 of 10 are as long as the time says.

    That is within 3 % and half a voxel, which the kernel keeps for 19 of 20 in volumes without narrow cracks.
    """
    if len(paths) != len(starts):
        return f"{len(paths)} paths from {len(starts)} starts"
    good = []
    for path, start in zip(paths, starts, strict=True):
        if not np.array_equal(path[0], start):
            return "a path begins elsewhere than at its start"
        inner = path if len(path) == 1 else path[:-1]  # the last point lies on the surface
        voxels = np.floor(inner + 0.5).astype(int)
        time = times[tuple(voxels.T)]
        if (solid[tuple(voxels.T)] != solid[tuple(voxels[0])]).any():
            return "a path leaves its label"
        if time[-1] > 2.5:
            return "a path ends far from any contact"
        length = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
        good.append(abs(length - time[0]) <= 0.03 * time[0] + 0.5)
    n = len(good) - sum(good)
    return "" if n <= len(good) / 10 else f"{n} of {len(good)} paths have a wrong length"


def _check_label(volume: Array, connectivity: int, answer: tuple[Array, int]) -> str:
    """As many components as SciPy finds in each value, and the same ones."""
    from scipy import ndimage

    labels, n = answer
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    total, names = 0, [np.unique(labels[volume == 0])]
    for value in np.unique(volume[volume > 0]):
        expected, m = ndimage.label(volume == value, structure)
        pairs = np.unique(np.stack([expected[expected > 0], labels[expected > 0]]), axis=1)
        if pairs.shape[1] != m:
            return f"components of value {value} have several labels"
        names.append(pairs[1])
        total += m
    if n != total:
        return f"{n} components, SciPy has {total}"
    same = np.array_equal(np.sort(np.concatenate(names)), np.arange(1 - names[0].size, n + 1))
    return "" if same else "a label is that of several components, or of the background"


def _check_faces(labels: Array, phases: Array, answer: vk.ContactAreas) -> str:
    """The voxel faces between labels and phases, counted on shifted arrays, axis by axis."""
    n_phases = answer.area.shape[1]
    rows = int(labels.max(initial=0)) + 1
    for axis in range(3):
        counts = np.zeros(rows * n_phases, np.int64)
        for own, other in _sides()[2 * axis : 2 * axis + 2]:
            counted = (labels[own] > 0) & (labels[other] == 0)
            key = labels[own][counted].astype(np.int64) * n_phases + phases[other][counted]
            counts += np.bincount(key, minlength=counts.size)
        if not np.array_equal(counts.reshape(rows, n_phases)[answer.labels], answer.faces[axis]):
            return f"the faces across axis {axis} are not as many as NumPy counts"
    return ""


def _check_regions(labels: Array, *grey_and_answer: Any) -> str:
    """Counts, centroids and mean grey values by `numpy.bincount`."""
    *grey, answer = grey_and_answer
    flat = labels.ravel()
    count = np.bincount(flat)
    present = np.flatnonzero(count[1:]) + 1
    if not (np.array_equal(answer.labels, present) and np.array_equal(answer.count, count[present])):
        return "the counts are not NumPy's"
    for axis in range(3):
        shape = [-1 if a == axis else 1 for a in range(3)]
        position = np.broadcast_to(np.arange(labels.shape[axis]).reshape(shape), labels.shape).ravel()
        centre = np.bincount(flat, weights=position)[present] / count[present]
        if not np.allclose(answer.centroid[:, axis], centre, rtol=1e-9, atol=1e-9):
            return f"the centroids along axis {axis} are not NumPy's"
    if not grey:
        return ""
    mean = np.bincount(flat, weights=grey[0].ravel())[present] / count[present]
    return "" if np.allclose(np.asarray(answer.mean), mean, rtol=1e-9) else "the mean grey values are not NumPy's"


def _check_overlaps(a: Array, b: Array, answer: vk.OverlapCounts) -> str:
    """The pairs of labels and how often they meet, by `numpy.unique`."""
    both = (a > 0) & (b > 0)
    pairs, count = np.unique(a[both].astype(np.int64) << 32 | b[both], return_counts=True)
    same = np.array_equal(answer.ids_a << 32 | answer.ids_b, pairs) and np.array_equal(answer.count, count)
    return "" if same else "the pairs are not NumPy's"


def _check_stack(labels: Array, answer: Sequence[vk.OverlapCounts]) -> str:
    if len(answer) != len(labels) - 1:
        return f"{len(answer)} pairs of {len(labels)} slices"
    checks = zip(pairwise(labels), answer, strict=True)
    return next((said for (a, b), found in checks if (said := _check_overlaps(a, b, found))), "")


def paste_case(shape: tuple[int, ...]) -> Case:
    """Soft discs of random size and place on an image of a slice's shape."""
    random = np.random.default_rng(0)
    y, x = np.indices((28, 28)) - 13.5
    disc = np.clip(12.5 - np.hypot(y, x), 0, 1).astype(np.float32)  # half at radius 12
    sides = random.uniform(0.1, 0.3, (MASKS, 2)) * shape[1]
    corners = random.uniform(0, 1, (MASKS, 2)) * (np.array(shape[::-1]) - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    scores = random.permutation(MASKS) / MASKS
    arguments = (np.repeat(disc[None], MASKS, axis=0), boxes, scores, (int(shape[0]), int(shape[1])))
    few = slice(0, 5)
    block = (arguments[0][few], boxes[few] * (30 / shape[1]), scores[few], (30, 30))
    return Case("paste_masks", vk.paste_masks, arguments, partial(_check_pasted, boxes, scores), lambda: block)


def _check_pasted(boxes: Array, scores: Array, image: Array) -> str:
    """Every pixel lies in the box of its mask; the best disc, which nothing covers, has an ellipse's area."""
    y, x = np.nonzero(image)
    x0, y0, x1, y1 = boxes[image[y, x] - 1].T
    if ((x < x0 - 1) | (x > x1 + 1) | (y < y0 - 1) | (y > y1 + 1)).any():
        return "a pixel lies outside its mask's box"
    best = int(np.argmax(scores))
    half = (boxes[best, 2:] - boxes[best, :2] + 1) * (12 / 28)  # a box holds the pixels of both its ends
    off = abs(int((image == best + 1).sum()) - np.pi * half.prod())
    return "" if off <= 0.5 * np.pi * half.sum() else f"the best disc's area is off by {off:.0f} pixels"
