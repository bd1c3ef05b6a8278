"""voxkernels: fast kernels on voxel volumes. Arrays in, arrays out."""

from . import masks, overlaps, regions
from .masks import paste_masks
from .overlaps import OverlapCounts, overlap_cost, overlap_counts
from .regions import RegionProperties, merge_regions, region_properties

__all__ = [
    "OverlapCounts",
    "RegionProperties",
    "merge_regions",
    "overlap_cost",
    "overlap_counts",
    "paste_masks",
    "region_properties",
    "warmup",
]


def warmup() -> None:
    """Compile every kernel now, for the types that the pipeline uses, instead of at its first call.

    Takes up to a minute the first time and well under a second once the compiled code is on disk
    (unless `VOXKERNELS_CACHE=0`). Other types, such as 64-bit labels, still compile at their first call.
    """
    for operation in (masks, overlaps, regions):
        operation._warmup()
