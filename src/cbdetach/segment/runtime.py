"""A trained network's file, checked and run by ONNX Runtime. No PyTorch is needed.

*The model* is an ONNX file of cbdetach's own format (`model_file.py`). ONNX Runtime computes its operators and no code
comes from the file: no library of custom operators is loaded, and data outside the file are refused. Its check sum,
inputs and outputs are checked before anything is computed.

*Providers.* CUDA where it works, else the processor, unless one is asked for. TensorRT is never chosen: it splits this
graph at every NonMaxSuppression, builds an engine for every new tile size, and has been measured to be slower than CUDA
for Mask R-CNN (onnxruntime issues 2078 and 17434). ONNX Runtime silently falls back to the processor if a provider
cannot be loaded; here that is said, and is an error if the provider was asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.resources
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError

from .model_file import FORMAT, model_digest
from .tiles import Raw

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Of ONNX Runtime. Wheels name others too, such as services to call over the net."""
AUTOMATIC = ("cuda", "cpu")
"""Fastest first."""
OUTPUTS = ("boxes", "scores", "masks", "index")
EXPORT = "Give a file that `cbdetach export` has written."


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
