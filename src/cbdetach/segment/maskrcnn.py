"""Particles of slices by the trained Mask R-CNN, run by ONNX Runtime. No PyTorch is needed.

Every slice is brought to the one grey scale and the one size of particle that the network knows (`scaling.py`), cut
into overlapping tiles if it is large (`tiles.py`), and what the network finds is moved back to the slice's own pixels
and pasted into a label image (`instances.py`). While the network works, a thread reads and prepares the next slices.

*The model* is an ONNX file of cbdetach's own format (`model_file.py`). ONNX Runtime computes its operators and no code
comes from the file: no library of custom operators is loaded, and data outside the file are refused. Its check sum,
inputs and outputs are checked before anything is computed.

*Providers.* CUDA where it works, else the processor, unless one is asked for. TensorRT is never chosen: it splits this
graph at every NonMaxSuppression, builds an engine for every new tile size, and has been measured to be slower than CUDA
for Mask R-CNN (onnxruntime issues 2078 and 17434). ONNX Runtime silently falls back to the processor if a provider
cannot be loaded; here that is said, and is an error if the provider was asked for.

*Coordinates.* Pixel edges are at integers: pixel k reaches from k to k + 1, and an image keeps its outer edges when it
is zoomed. Boxes of the network follow that, and its masks fill their boxes (`cbdetach.train` teaches them so).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.resources
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError
from voxkernels._arrays import as_image

from .instances import Detections, Found, to_labels
from .model_file import FORMAT, model_digest
from .scaling import Image, grey_levels, normalise, section_diameter, zoomed
from .tiles import STRIDE, Raw, Tile, pixels_of, stitch, tiles_of
from .watershed import Labels

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Of ONNX Runtime. Wheels name others too, such as services to call over the net."""
AUTOMATIC = ("cuda", "cpu")
"""Fastest first."""
OUTPUTS = ("boxes", "scores", "masks", "index")
TILE = 320
OVERLAP = 96
"""Pixels of the network. Tiles as large as what it has learnt from: it finds a limited number of particles on each, and
on tiles of 512 a dense slice of small particles lost a tenth of them. The overlap is three nominal diameters."""
BATCH = {"cpu": 1, "cuda": 8, "tensorrt": 8}
AHEAD = 2
"""Slices that are prepared while the network works."""
MAX_ZOOM = 3.0
"""More does not show more."""
COARSE = 768
"""Pixels along the longer side at which the typical diameter is looked for first."""
FINE_ENOUGH = 12.0
"""Pixels: below this diameter it is looked for once more without shrinking."""

EXPORT = "Give a file that `cbdetach export` has written."

T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """A checked model file, ready to run.

    name : the file's, for messages; metadata : as written by `cbdetach export`; nominal : diameter of particles that it
    wants, pixels; threshold : score from which detections count; provider : "cuda" or another key of `PROVIDERS`; why :
    why not a faster one, a sentence or "".
    """

    name: str
    metadata: dict[str, str]
    nominal: float
    threshold: float
    session: Any
    provider: str
    why: str

    @property
    def device(self) -> str:
        """Where inputs and outputs lie."""
        return "cpu" if self.provider == "cpu" else "cuda"

    def __call__(self, batch: npt.NDArray[np.float32]) -> list[Raw]:
        """Detections on each image of a batch (N, 1, H, W)."""
        import onnxruntime

        binding = self.session.io_binding()
        try:
            image = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(batch), self.device, 0)
            binding.bind_ortvalue_input("image", image)
            for name in OUTPUTS:
                binding.bind_output(name, self.device)
            self.session.run_with_iobinding(binding)
            boxes, scores, masks, index = binding.copy_outputs_to_cpu()
        except Exception as error:  # ONNX Runtime's have no common base
            raise InputError(
                f"model: {self.name} fails on tiles of {batch.shape[2]} x {batch.shape[3]} pixels, {len(batch)} at a "
                f"time: {_first_line(error)} If memory is short, use smaller tiles."
            ) from None
        n = len(scores)
        shapes = boxes.shape, scores.shape, index.shape, masks.shape[:1]
        if shapes != ((n, 4), (n,), (n,), (n,)) or masks.ndim != 3:
            raise InputError(f"model: {self.name} gives {', '.join(OUTPUTS)} of other shapes than a Mask R-CNN's.")
        if not all(np.isfinite(values).all() for values in (boxes, scores, masks)):
            raise InputError(f"model: {self.name} gives nan or inf. Use the fp32 model.")
        return [Raw(boxes, scores, masks).take(index == i) for i in range(len(batch))]


def shipped_model() -> Path:
    """The model that comes with cbdetach."""
    return Path(str(importlib.resources.files(__package__) / "models" / "particles.onnx"))


def load_model(model: Path | str | None = None, *, provider: str | None = None, threads: int | None = None) -> Model:
    """Check a model file and make it ready.

    Parameters
    ----------
    model : file, default the shipped one.
    provider : "cpu", "cuda" or "tensorrt"; default the fastest that works.
    threads : of the processor, default as many as the kernels use.

    Raises
    ------
    InputError : ONNX Runtime is missing; the file is missing, damaged, or no model of cbdetach's; the provider cannot
    be used.
    """
    ort = _onnxruntime()
    path = shipped_model() if model is None else Path(model)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        hint = "This copy of cbdetach came without one." if model is None else "Give the path of an ONNX file."
        raise InputError(f"model: there is no file {path}. {hint}") from None
    except OSError as error:
        raise InputError(f"model: {path} cannot be read: {error.strerror or error}.") from None
    if provider is not None and provider not in PROVIDERS:
        raise InputError(f"provider: must be one of {', '.join(map(repr, PROVIDERS))}; got {provider!r}.")

    session = _on_cpu(ort, content, path.name, threads)
    metadata = _checked(session, content, path.name)
    nominal = _number(metadata, "nominal_diameter_px", path.name, 1, 1000)
    threshold = _number(metadata, "score_threshold", path.name, 0, 1)
    why = ""
    for name in AUTOMATIC if provider is None else (provider,):
        reason = ""
        if name != "cpu":
            session, reason = _on_gpu(ort, content, name, session)
        if not reason:
            return Model(path.name, metadata, nominal, threshold, session, name, why)
        why = why or reason
    raise InputError(f"provider: {provider or 'cpu'} cannot be used: {why}")


def why_not(provider: str) -> str:
    """Why ONNX Runtime cannot run a provider here, as far as can be told without a session; "" if nothing is wrong."""
    ort = _onnxruntime()
    name = PROVIDERS[provider]
    if name not in ort.get_available_providers():
        hint = "" if provider == "cpu" else " (pip install 'cbdetach[gpu]' in place of 'cbdetach[cpu]')"
        return f"this wheel of onnxruntime has no {name}{hint}."
    if provider == "cpu":
        return ""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1)."
    _preload(ort)
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"))
    except OSError as error:
        # Only ONNX Runtime itself can load it: this symbol is missed last, when all libraries have been found.
        if "Provider_GetHost" not in str(error):
            return f"{name} cannot be loaded: {error}."
    return ""


def _preload(ort: Any) -> None:
    """CUDA's libraries, where they were installed by pip; what is missing is said elsewhere."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(None):
            ort.preload_dlls()


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("onnxruntime is missing: pip install 'cbdetach[cpu]'") from None
    return onnxruntime


def _options(ort: Any, threads: int | None) -> Any:
    import numba

    options = ort.SessionOptions()
    options.intra_op_num_threads = numba.get_num_threads() if threads is None else threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_mem_pattern = False  # tiles come in several sizes
    return options


def _on_cpu(ort: Any, content: bytes, name: str, threads: int | None) -> Any:
    """A session on the processor, which takes every sound model."""
    try:
        return ort.InferenceSession(content, _options(ort, threads), providers=[PROVIDERS["cpu"]])
    except Exception as error:  # ONNX Runtime's have no common base
        raise InputError(
            f"model: {name} is damaged, or no ONNX file that ONNX Runtime can run: {_first_line(error)}"
        ) from None


def _on_gpu(ort: Any, content: bytes, provider: str, otherwise: Any) -> tuple[Any, str]:
    """A session on a GPU and "", or `otherwise` and why not."""
    name = PROVIDERS[provider]
    if name not in ort.get_available_providers():
        return otherwise, why_not(provider)
    chain: list[Any] = [(PROVIDERS["cuda"], {"cudnn_conv_algo_search": "HEURISTIC"}), PROVIDERS["cpu"]]
    if provider == "tensorrt":
        chain.insert(0, name)
    _preload(ort)
    ort.set_default_logger_severity(4)  # what goes wrong is said below
    said = "is there a GPU, and is its driver new enough?"
    try:
        session = ort.InferenceSession(content, _options(ort, None), providers=chain, enable_fallback=0)
        if name in session.get_providers():
            return session, ""
    except Exception as error:  # ONNX Runtime's have no common base
        said = _first_line(error)
    finally:
        ort.set_default_logger_severity(2)
    return otherwise, why_not(provider) or f"{name} does not start: {said}"


def _checked(session: Any, content: bytes, name: str) -> dict[str, str]:
    """Metadata of a model whose format, check sum, inputs and outputs are right."""
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    if metadata.get("format") != FORMAT:
        got = f"format {metadata['format']!r}" if "format" in metadata else "none"
        raise InputError(f"model: {name} must have metadata of format {FORMAT!r}; got {got}. {EXPORT}")
    if metadata.get("sha256") != model_digest(content):
        raise InputError(f"model: {name} is damaged or was altered: its check sum is not the one it carries. {EXPORT}")
    inputs = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    outputs = [o.name for o in session.get_outputs()]
    if list(inputs) != ["image"] or outputs != list(OUTPUTS):
        raise InputError(
            f"model: {name} must take `image` and give {', '.join(OUTPUTS)}; it takes {', '.join(inputs)} and gives "
            f"{', '.join(outputs)}. {EXPORT}"
        )
    dtype, shape = inputs["image"]
    if dtype != "tensor(float)" or len(shape) != 4 or shape[1] != 1 or any(isinstance(n, int) for n in shape[2:]):
        raise InputError(
            f"model: {name} must take float32 images of one channel and any size, (N, 1, H, W); it takes "
            f"{dtype} {tuple(shape)}. {EXPORT}"
        )
    return metadata


def _number(metadata: dict[str, str], key: str, name: str, low: float, high: float) -> float:
    try:
        value = float(metadata[key])
    except (KeyError, ValueError):
        value = math.nan
    if not low <= value <= high:
        got = metadata.get(key, "none")
        raise InputError(f"model: {name} must have metadata {key!r} between {low} and {high}; got {got}. {EXPORT}")
    return value


def _first_line(error: Exception) -> str:
    """What ONNX Runtime says, without its error codes."""
    return str(error).strip().split("\n")[0].rsplit(" : ", 1)[-1].rstrip(".") + "."


@dataclass(frozen=True, eq=False)
class _Slice:
    """A slice as the network sees it; `shape` is that of the slice itself."""

    shape: tuple[int, int]
    image: Image
    tiles: list[Tile]


class Segmenter:
    """One loaded model.

    Parameters
    ----------
    model, provider, threads : see `load_model`.
    batch : tiles that the network works on at a time, also of different slices; default 1 on the processor, 8 on a GPU.
    tile, overlap : pixels of the network; the tile a multiple of 32 and larger than the overlap.

    Raises
    ------
    InputError : the model or the provider cannot be used, or a number is out of range.
    """

    def __init__(
        self,
        model: Path | str | None = None,
        *,
        provider: str | None = None,
        threads: int | None = None,
        batch: int | None = None,
        tile: int = TILE,
        overlap: int = OVERLAP,
    ) -> None:
        for name, value in (("threads", threads), ("batch", batch)):
            if value is not None and value < 1:
                raise InputError(f"{name}: must be at least 1; got {value}.")
        if tile < STRIDE or tile % STRIDE:
            raise InputError(f"tile: must be a positive multiple of {STRIDE}; got {tile}.")
        if not 0 <= overlap < tile - 1:
            raise InputError(f"overlap: must be at least 0 and less than the tile, {tile}; got {overlap}.")
        self.model = load_model(model, provider=provider, threads=threads)
        self.batch = BATCH[self.model.provider] if batch is None else batch
        self.tile, self.overlap = tile, overlap

    @property
    def threshold(self) -> float:
        """The score from which detections count, unless another is given."""
        return self.model.threshold

    def detect(
        self,
        images: Iterable[npt.NDArray[Any]],
        *,
        levels: tuple[float, float] | None = None,
        diameter_px: float | tuple[float, float] | None = None,
    ) -> Generator[Detections]:
        """What the network finds on each slice, in their order.

        Parameters
        ----------
        images : (Y, X) each, any real type, finite; taken from the iterator in a thread, some slices ahead.
        levels : grey values of matrix and particles, the same for all slices of a volume. Default: each slice's own.
        diameter_px : typical diameter of the particles' sections (area-weighted median), pixels, or pixels along y and
            x. Default: `estimated_diameter` of each slice.

        Yields
        ------
        Detections of any score that the model gives. They do not depend on `batch`.

        Raises
        ------
        InputError, TypeError, ValueError : wrong options; no slice, nan or inf; a constant slice without `levels`.
        """
        if levels is not None and not (np.isfinite(levels).all() and levels[0] != levels[1]):
            raise InputError(f"levels: must be two finite, different grey values; got {levels}.")
        diameters = None if diameter_px is None else np.broadcast_to(np.asarray(diameter_px, float), 2)
        if diameters is not None and not (np.isfinite(diameters).all() and diameters.min() > 0):
            raise InputError(f"diameter_px: must be positive, in pixels; got {diameter_px}.")
        return self._detect(images, levels, diameters)

    def _detect(
        self, images: Iterable[npt.NDArray[Any]], levels: tuple[float, float] | None, diameters: Any
    ) -> Generator[Detections]:
        parts: list[Raw] = []
        ready = ahead((self._prepare(image, levels, diameters) for image in images), AHEAD)
        with contextlib.closing(ready):
            for owner, part in self._found(ready):
                parts.append(part)
                if len(parts) == len(owner.tiles):
                    yield _on_the_slice(owner, parts)
                    parts = []

    def _prepare(self, image: npt.NDArray[Any], levels: tuple[float, float] | None, diameters: Any) -> _Slice:
        grey = _finite(image)
        scaled = normalise(grey, grey_levels(grey) if levels is None else levels)
        if diameters is None:
            diameters = np.full(2, estimated_diameter(grey))
        zoom = np.minimum(self.model.nominal / diameters, MAX_ZOOM)
        small = zoomed(scaled, _scaled(grey.shape, zoom.tolist()))
        return _Slice(grey.shape, small, tiles_of(small.shape, tile=self.tile, overlap=self.overlap))

    def _found(self, slices: Iterable[_Slice]) -> Iterator[tuple[_Slice, Raw]]:
        """Detections on each tile of each slice; tiles of one size go through the network together."""
        batch: list[npt.NDArray[np.float32]] = []
        owners: list[_Slice] = []

        def run() -> Iterator[tuple[_Slice, Raw]]:
            if batch:
                yield from zip(owners, self.model(np.stack(batch)[:, None]), strict=True)
            batch.clear()
            owners.clear()

        for one in slices:
            for tile in one.tiles:
                if batch and batch[0].shape != tile.size:
                    yield from run()
                batch.append(pixels_of(one.image, tile))
                owners.append(one)
                if len(batch) == self.batch:
                    yield from run()
        yield from run()

    def label(
        self,
        image: npt.NDArray[Any],
        *,
        levels: tuple[float, float] | None = None,
        diameter_px: float | tuple[float, float] | None = None,
        threshold: float | None = None,
        min_pixels: float = 1.0,
    ) -> tuple[Labels, Found]:
        """Particles of one slice; see `label_slices`."""
        slices = self.label_slices(
            [image], levels=levels, diameter_px=diameter_px, threshold=threshold, min_pixels=min_pixels
        )
        with contextlib.closing(slices):
            return next(slices)

    def label_slices(
        self,
        images: Iterable[npt.NDArray[Any]],
        *,
        levels: tuple[float, float] | None = None,
        diameter_px: float | tuple[float, float] | None = None,
        threshold: float | None = None,
        min_pixels: float = 1.0,
    ) -> Generator[tuple[Labels, Found]]:
        """Particles of each slice, in their order.

        Parameters
        ----------
        images, levels, diameter_px : see `detect`.
        threshold : detections count from this score on. Default: the model's own.
        min_pixels : smallest particle; one that the slice's edge cuts may be smaller.

        Yields
        ------
        labels (Y, X) int32: 0 and the particles 1..n, each one connected, filled region, in the order of their first
        pixel; and their scores and what became of the detections (`Found`).
        """
        least = self.threshold if threshold is None else threshold
        if not 0 <= least <= 1:
            raise InputError(f"threshold: must be between 0 and 1; got {least}. It is a score.")
        return _labelled(self.detect(images, levels=levels, diameter_px=diameter_px), least, min_pixels)


def loaded(model: Path | str | None = None) -> Segmenter:
    """A segmenter with the default options, the same one as long as the file is."""
    path = shipped_model() if model is None else Path(model)
    return _loaded(model, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=1)
def _loaded(model: Path | str | None, time: int) -> Segmenter:
    return Segmenter(model)


def _labelled(slices: Generator[Detections], score: float, min_pixels: float) -> Generator[tuple[Labels, Found]]:
    with contextlib.closing(slices):
        for detections in slices:
            yield to_labels(detections.above(score), min_pixels=min_pixels)


def estimated_diameter(image: npt.NDArray[Any]) -> float:
    """Area-weighted median diameter (pixels) of the sections on a grey slice, by a quick watershed.

    It may be wrong by a third, which the network tolerates. Without any section: a tenth of the shorter side.
    """
    from . import segment_slice  # which offers the network in turn

    grey = _finite(image)
    longest = max(grey.shape)
    for side in (COARSE, longest):
        shrink: float = min(1.0, side / longest)
        small = zoomed(grey.astype(np.float32), _scaled(grey.shape, (shrink, shrink)))
        found = section_diameter(segment_slice(small, min_diameter_um=5.0))
        if found >= FINE_ENOUGH or shrink == 1:
            break
    return found / shrink if found else max(1.0, min(grey.shape) / 10.0)


def _scaled(shape: tuple[int, ...], zoom: Sequence[float]) -> tuple[int, int]:
    y, x = (max(1, round(n * z)) for n, z in zip(shape, zoom, strict=True))
    return y, x


def _finite(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    grey = as_image("image", image, 2)
    if grey.size == 0:
        raise ValueError("image: must hold at least one pixel; got none.")
    if not np.isfinite(grey).all():
        raise ValueError("image: must be finite; got NaN or inf. Replace them, for example by numpy.nan_to_num.")
    return grey


def _on_the_slice(one: _Slice, parts: list[Raw]) -> Detections:
    """The tiles' detections in pixels of the slice."""
    found, pieces = stitch(parts, one.tiles, one.image.shape)
    y, x = (n / small for n, small in zip(one.shape, one.image.shape, strict=True))
    return Detections(
        boxes=found.boxes * np.array([x, y, x, y]),
        scores=found.scores,
        masks=found.masks,
        shape=one.shape,
        pieces=pieces,
    )


def ahead(items: Iterator[T], depth: int) -> Generator[T]:
    """The same items, made by a thread that is at most `depth` of them ahead.

    An exception in making them arrives in its turn. Closing the generator ends the thread, after the item in work.
    """
    room, made = Semaphore(depth), SimpleQueue[tuple[str, Any]]()
    closed = False

    def work() -> None:
        try:
            for item in items:
                made.put(("item", item))
                room.acquire()
                if closed:
                    return
            made.put(("end", None))
        except BaseException as error:
            made.put(("error", error))

    thread = Thread(target=work, name="cbdetach-reader", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            room.release()
            yield item
    finally:
        closed = True
        room.release()
        thread.join()
