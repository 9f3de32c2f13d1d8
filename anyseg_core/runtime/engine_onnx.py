"""The onnxruntime engine on the CPU: runs everywhere, nothing to build."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from anyseg_core.runtime.engine import EngineError, EngineInfo, Labels


class _Tensor(NamedTuple):
    """One input or output as the contract wants it."""

    name: str
    dtype: str
    rank: int


INPUTS = (_Tensor("images", "tensor(uint8)", 4), _Tensor("modality", "tensor(int64)", 1))
PRECISION_KEY = "anyseg.precision"
"""Entry of the ONNX file's metadata: the types that the export wrote, fp32 where it is missing."""
OUTPUTS = (_Tensor("labels", "tensor(uint8)", 2), _Tensor("confidence", "tensor(uint8)", 2))


class OnnxEngine:
    """A network of the student contract on onnxruntime's CPU provider.

    `threads` 0 = every core this process may use. Raises EngineError where the file cannot be loaded or its
    inputs and outputs differ from the contract of `model_card`.
    """

    def __init__(self, network: Path, threads: int = 0, reason: str = "asked for") -> None:
        self._network = network
        session = _open_session(network, threads)
        differences = [
            *_differences("input", INPUTS, session.get_inputs()),
            *_differences("output", OUTPUTS, session.get_outputs()),
        ]
        if differences:
            raise EngineError(
                f"{network} is not a network of the student contract: {'; '.join(differences)}. "
                "Export the student again with `anyseg export`."
            )
        self._session: ort.InferenceSession | None = session
        precision = session.get_modelmeta().custom_metadata_map.get(PRECISION_KEY, "fp32")
        self.info = EngineInfo(backend="onnxruntime", device="cpu", precision=precision, reason=reason)

    def run(self, images: NDArray[np.uint8], modality: NDArray[np.int64]) -> tuple[Labels, Labels]:
        """images uint8 [M, H, W, 3], modality int64 [M] -> labels uint8 [H, W], confidence uint8 [H, W].

        Raises EngineError when inference fails or the engine is closed.
        """
        if self._session is None:
            raise EngineError(f"the engine of {self._network} is closed")
        try:
            labels, confidence = self._session.run(
                [tensor.name for tensor in OUTPUTS], {"images": images, "modality": modality}
            )
        except Exception as error:  # onnxruntime's exceptions share no base class below Exception
            raise EngineError(f"inference with {self._network} failed: {error}") from error
        return np.asarray(labels), np.asarray(confidence)

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _open_session(network: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: they are raised as well
    # Between two operators the threads spin: putting them to sleep and waking them costs a fifth of the run. After the
    # run they must not: they would take the very cores that the middleware needs to deliver the next frame.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return ort.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(
            f"onnxruntime {ort.__version__} cannot load {network}: {error}. "
            "Copy the student folder again, or export it again."
        ) from error


def _differences(kind: str, expected: tuple[_Tensor, ...], found: Sequence[ort.NodeArg]) -> list[str]:
    """What is missing, superfluous or of another type or rank, in words."""
    by_name = {tensor.name: tensor for tensor in found}
    faults = [f"{kind} {name!r} is not known" for name in by_name if name not in {t.name for t in expected}]
    for want in expected:
        have = by_name.get(want.name)
        if have is None:
            faults.append(f"{kind} {want.name!r} is missing")
        elif (have.type, len(have.shape)) != (want.dtype, want.rank):
            faults.append(
                f"{kind} {want.name!r} is {have.type} of rank {len(have.shape)}, not {want.dtype} of rank {want.rank}"
            )
    return faults
