"""What the network looks at: the channel of its finest feature map that shows outer boundaries and suppresses cracks.

A watershed sees every edge alike; the network has to tell a particle's outer boundary from the edges of its cracks, and
its features show that it does. Every channel of the feature pyramid's finest level (stride 4, which box and mask head
read for small particles) is a picture. Chosen is the one in which the outer boundary stands out most, bright or dark
(then its sign is turned), from each of three others: cracks and pores, the solid interior, the background. *Stands
out*: the smallest of the three differences of the mean response, over the standard deviation of the channel in the
slice; averaged over slices that are not shown.

The regions come from labels and grey values: the boundary reaches `BAND` of the typical diameter to either side of the
labels' outlines; cracks and pores are what is darker than half the contrast inside a particle, beyond that band. The
mean responses in each region, in standard deviations above the slice's mean, and the probability that a pixel of the
boundary responds more than one of a crack (AUC) are written beside the figure.

Source: Jiang et al. (2020), Suppl. Fig. 9a.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.models.detection import MaskRCNN

from cbdetach.annotations import LabelledSlice
from cbdetach.segment.scaling import NOMINAL_DIAMETER, grey_levels, normalise, section_diameter, zoomed
from cbdetach.train.network import STRIDE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Maps = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

BAND = 0.07
"""Half the width of the outer boundary, as a share of the typical diameter: 2.2 pixels of the network."""
SHOWN = 3
REGIONS = ("outer boundary", "cracks and pores", "interior", "background")
FILES = ("activation.csv", "activation.png", "activation.svg")


@dataclass(frozen=True)
class Channel:
    """A channel of the finest feature map; `sign` makes the outer boundary bright; `contrast` is how it stands out."""

    index: int
    sign: int
    contrast: float


def activation_map(model: MaskRCNN, image: npt.NDArray[Any], diameter: float) -> Maps:
    """The finest level of the feature pyramid on a slice.

    Parameters
    ----------
    model : in evaluation mode, on the CPU.
    image : (Y, X), any real type.
    diameter : typical diameter of the particles' sections, pixels.

    Returns
    -------
    (C, h, w) float32: C channels that cover the whole image on a grid four pixels of the network wide.
    """
    zoom = NOMINAL_DIAMETER / max(diameter, 1.0)
    shape = max(4 * round(image.shape[0] * zoom / 4), 4), max(4 * round(image.shape[1] * zoom / 4), 4)
    small = zoomed(normalise(image, grey_levels(image)), shape)
    padded = np.pad(small, [(0, -n % STRIDE) for n in shape], mode="edge")
    seen: list[Any] = []
    hook = model.backbone.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        with torch.inference_mode():
            model.backbone(torch.from_numpy(padded)[None, None])
    finally:
        hook.remove()
    finest = next(iter(seen[0].values()))[0].numpy()
    return np.ascontiguousarray(finest[:, : shape[0] // 4, : shape[1] // 4], np.float32)


def regions(s: LabelledSlice) -> dict[str, Mask]:
    """The pixels (Y, X) of each of `REGIONS`; what is to be ignored, and the rims of cracks, are in none."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from skimage.segmentation import find_boundaries

    band = BAND * section_diameter(s.labels)
    outline = find_boundaries(s.labels, mode="thick")  # type: ignore[no-untyped-call]
    near = distance_transform_edt(~outline) < max(band, 1.0)
    inside, known = s.labels > 0, np.ones(s.labels.shape, np.bool_) if s.ignore is None else ~s.ignore
    dark = gaussian_filter(normalise(s.image, grey_levels(s.image)), 1.0) < 0.5
    crack = inside & ~near & dark
    beside = distance_transform_edt(~crack) <= band if crack.any() else crack
    masks = near, crack, inside & ~near & ~beside, ~inside & ~near
    return {name: mask & known for name, mask in zip(REGIONS, masks, strict=True)}


def choose(maps: Sequence[Maps], where: Sequence[dict[str, Mask]]) -> Channel:
    """The channel in which the outer boundary stands out most, over all slices.

    maps : (C, h, w) of each slice; where : `regions` of each slice. A slice without one of the regions is passed over.
    """
    usable = [(m, r) for m, r in zip(maps, where, strict=True) if all(r[name].any() for name in REGIONS)]
    if not usable:
        raise ValueError("where: must hold a slice with a boundary, cracks, interior and background; got none.")
    difference = np.zeros((len(usable), usable[0][0].shape[0], len(REGIONS) - 1))
    for i, (own, masks) in enumerate(usable):
        for c, channel in enumerate(own):
            mean = _means(_standard(channel, masks[REGIONS[0]].shape), masks)
            difference[i, c] = mean[0] - mean[1:]
    average = difference.mean(axis=0)
    contrast = np.stack([average.min(axis=1), -average.max(axis=1)])  # bright, and dark
    bright, index = np.unravel_index(contrast.argmax(), contrast.shape)
    return Channel(int(index), -1 if bright else 1, float(contrast.max()))


def measure(s: LabelledSlice, response: npt.NDArray[Any], masks: dict[str, Mask]) -> list[dict[str, Any]]:
    """One row for each region: pixels, mean and standard deviation of the response; AUC of the boundary against it."""
    rows = []
    for name in REGIONS:
        values = response[masks[name]]
        found = {"pixels": values.size, "mean": np.nan, "sd": np.nan, "auc": np.nan}
        if values.size:
            found |= {"mean": float(values.mean()), "sd": float(values.std())}
            if name != REGIONS[0]:
                found["auc"] = _auc(response[masks[REGIONS[0]]], values)
        rows.append({"slice": s.name, "region": name, **found})
    return rows


def write_activation(
    model: MaskRCNN, shown: Sequence[LabelledSlice], examples: Sequence[LabelledSlice], out: Path
) -> str:
    """Choose the channel on `examples`, write the map of the first `SHOWN` slices and the responses on all of `shown`
    (`FILES`, each whole or absent), and say in a few lines what was found."""
    import pandas as pd

    from cbdetach.files import told, whole_file
    from cbdetach.report import plain_style
    from cbdetach.report.drawing import encoded

    where = [regions(s) for s in examples]
    channel = choose([activation_map(model, s.image, section_diameter(s.labels)) for s in examples], where)
    rows: list[dict[str, Any]] = []
    pictures: list[tuple[LabelledSlice, npt.NDArray[Any]]] = []
    for s in shown:
        own = activation_map(model, s.image, section_diameter(s.labels))[channel.index]
        response = channel.sign * _standard(own, s.labels.shape)
        rows += measure(s, response, regions(s))
        if len(pictures) < SHOWN:
            pictures.append((s, response))
    table = pd.DataFrame(rows)
    content = {"activation.csv": table.to_csv(index=False, lineterminator="\n").encode()}
    with plain_style():
        content |= {f"activation.{kind}": picture for kind, picture in encoded(draw(pictures), 200).items()}
    for name in FILES:
        with told(out), whole_file(out / name) as temporary:
            temporary.write_bytes(content[name])
    return describe(channel, table)


def describe(channel: Channel, table: DataFrame) -> str:
    """The channel, and the mean response of each region over the slices."""
    mean = table.groupby("region")[["mean", "auc"]].mean().to_dict("index")
    lines = [
        f"channel {channel.index} of the finest level{', sign turned' if channel.sign < 0 else ''}, chosen on other "
        f"slices: the outer boundary stands out by {channel.contrast:.2f} standard deviations there",
        f"mean response over {table['slice'].nunique()} slices, in standard deviations above the slice's mean:",
    ]
    for name in REGIONS:
        found = mean[name]
        tail = "" if np.isnan(found["auc"]) else f"   the boundary responds more with probability {found['auc']:.3f}"
        lines.append(f"  {name:<17}{found['mean']:+.2f}{tail}")
    return "\n".join(lines)


def draw(pictures: Sequence[tuple[LabelledSlice, npt.NDArray[Any]]]) -> Figure:
    """Slices above, their activation maps below."""
    from matplotlib.colors import Normalize

    from cbdetach.report import style
    from cbdetach.report.drawing import colour_map, colourbar, new_figure

    rows, columns = np.max([s.image.shape for s, _ in pictures], axis=0)
    figure = new_figure((3.6 * len(pictures) + 0.8, 2 * 3.6 * min(max(rows / columns, 0.3), 2.0) + 0.3))
    axes = figure.subplots(2, len(pictures), squeeze=False)
    norm = Normalize(-1.5, 3)
    for k, (s, response) in enumerate(pictures):
        low, high = np.percentile(s.image, (0.5, 99.5))
        axes[0, k].imshow(s.image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes[1, k].imshow(response, cmap=style.LENGTH_MAP, norm=norm, interpolation="nearest")
        axes[0, k].set_title(s.name)
    for ax in axes.ravel():
        ax.set_axis_off()
    place = {"ax": axes.ravel().tolist(), "shrink": 0.4, "anchor": (0.0, 0.1)}
    colourbar(figure, colour_map(style.LENGTH_MAP), norm, "response, standard deviations", **place)
    return figure


def _standard(channel: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """A channel on the slice's own pixels, its mean 0 and its standard deviation 1."""
    full = zoomed(np.asarray(channel, np.float32), (shape[0], shape[1]))
    standard: npt.NDArray[np.float32] = (full - full.mean()) / max(float(full.std()), 1e-6)
    return standard


def _means(response: npt.NDArray[Any], masks: dict[str, Mask]) -> npt.NDArray[np.float64]:
    return np.array([response[masks[name]].mean() for name in REGIONS], np.float64)


def _auc(more: npt.NDArray[Any], less: npt.NDArray[Any]) -> float:
    """Probability that one value of `more` is above one of `less`; ties count half."""
    ordered = np.sort(less)
    below = np.searchsorted(ordered, more, "left") + np.searchsorted(ordered, more, "right")
    return float(below.mean() / (2 * less.size))
