"""voxkernels: fast kernels on voxel volumes. Arrays in, arrays out."""

from . import components, contacts, eikonal, masks, overlaps, regions
from .components import label, label_slabs
from .contacts import CONTACT_HALO, ContactAreas, contact_areas, merge_contacts
from .eikonal import trace_paths, travel_time
from .masks import paste_masks
from .overlaps import OverlapCounts, OverlapStack, overlap_cost, overlap_counts, overlap_counts_stack
from .regions import RegionProperties, merge_regions, region_properties

__all__ = [
    "CONTACT_HALO",
    "ContactAreas",
    "OverlapCounts",
    "OverlapStack",
    "RegionProperties",
    "contact_areas",
    "label",
    "label_slabs",
    "merge_contacts",
    "merge_regions",
    "overlap_cost",
    "overlap_counts",
    "overlap_counts_stack",
    "paste_masks",
    "region_properties",
    "trace_paths",
    "travel_time",
    "warmup",
]


def warmup() -> None:
    """Compile every kernel now, for the types that the pipeline uses, instead of at its first call.

    Takes about a minute the first time and well under a second once the compiled code is on disk
    (unless `VOXKERNELS_CACHE=0`). Other types, such as 64-bit labels, still compile at their first call.
    """
    for operation in (components, contacts, eikonal, masks, overlaps, regions):
        operation._warmup()
