"""The OpenVINO engine on the CPU: the same network file, bf16 where the processor has it. Extra `[openvino]`."""

from __future__ import annotations

import io
import os
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.engines.network import Network, content_of
from anyseg_core.runtime.engines.protocol import EngineError, EngineInfo, Labels
from anyseg_core.runtime.extras import pip_command
from anyseg_core.runtime.network_content import NetworkContent


class OpenvinoEngine:
    """A network of the student contract on OpenVINO's CPU plugin.

    `threads` 0 = every core this process may use. The plugin itself chooses bf16 where the processor has it
    (AVX512-BF16, AMX); `info` says what it took. Raises EngineError where OpenVINO is not installed or cannot load the
    file.
    """

    def __init__(self, network: Network, threads: int = 0, reason: str = "asked for") -> None:
        self._network = content_of(network)
        compiled, version = _compile(self._network, threads or len(os.sched_getaffinity(0)))
        self.info = EngineInfo(
            backend="openvino",
            device="cpu",
            precision=_precision(compiled),
            reason=reason,
            details={"openvino": version, "products on AMX": _on_amx(compiled)},
        )
        self._request: Any = compiled.create_infer_request()

    def run(self, images: NDArray[np.uint8], modality: NDArray[np.int64]) -> tuple[Labels, Labels]:
        """images uint8 [M, H, W, 3], modality int64 [M] -> labels uint8 [H, W], confidence uint8 [H, W].

        Raises EngineError when inference fails or the engine is closed.
        """
        if self._request is None:
            raise EngineError(f"the engine of {self._network} is closed")
        try:
            results = self._request.infer({"images": images, "modality": modality})
        except Exception as error:  # OpenVINO raises plain RuntimeError, and its own types in some versions
            raise EngineError(f"inference with {self._network} failed: {error}") from error
        return np.array(results["labels"]), np.array(results["confidence"])  # the request reuses its own buffers

    def close(self) -> None:
        """Free the request and the network."""
        self._request = None


def _compile(network: NetworkContent, threads: int) -> tuple[Any, str]:
    """The network, ready to run, and OpenVINO's version."""
    try:
        import openvino
    except ImportError as error:
        raise EngineError(
            f"openvino was asked for and cannot be loaded ({error}): {pip_command('openvino')}, or set "
            "model.backend to auto or onnxruntime"
        ) from error
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(io.BytesIO(network.alone())), "CPU", settings)
    except RuntimeError as error:
        raise EngineError(
            f"openvino {openvino.__version__} cannot load {network}: {error}. "
            "Copy the student folder again, or export it again."
        ) from error
    tensors = {port.any_name for port in (*compiled.inputs, *compiled.outputs)}
    missing = {"images", "modality", "labels", "confidence"} - tensors
    if missing:
        raise EngineError(
            f"{network} is not a network of the student contract: {', '.join(sorted(missing))} missing. "
            "Export the student again with `anyseg export`."
        )
    return compiled, str(openvino.__version__).split("-")[0]


_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")
_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}


def _precision(compiled: Any) -> str:
    """What most products compute in, by the plugin's own account of the compiled network."""
    found = Counter(_of_products(compiled, "runtimePrecision"))
    commonest = found.most_common(1)[0][0] if found else "f32"
    return _NAMES.get(commonest, commonest)


def _on_amx(compiled: Any) -> str:
    """How many products run on the processor's matrix unit, of those whose kernel is chosen before the first run."""
    kernels = [kernel for kernel in _of_products(compiled, "primitiveType") if not kernel.startswith("undef")]
    return f"{sum('_amx' in kernel for kernel in kernels)} of {len(kernels)}"


def _of_products(compiled: Any, key: str) -> list[str]:
    """A fact of every product of the compiled network."""
    layers = (node.get_rt_info() for node in compiled.get_runtime_model().get_ops())
    return [str(info[key].astype(str)) for info in layers if info["layerType"].astype(str) in _PRODUCTS]
