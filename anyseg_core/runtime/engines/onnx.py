"""The onnxruntime engine on the CPU: runs everywhere, nothing to build."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from anyseg_core.runtime.engines.network import Network, Parts, content_of
from anyseg_core.runtime.engines.protocol import Encoded, EngineError, EngineInfo, Features, Labels
from anyseg_core.runtime.network_content import NetworkContent


class _Tensor(NamedTuple):
    """One input or output as the contract wants it."""

    name: str
    dtype: str
    rank: int


INPUTS = (_Tensor("images", "tensor(uint8)", 4), _Tensor("modality", "tensor(int64)", 1))
PRECISION_KEY = "anyseg.precision"
"""Entry of the ONNX file's metadata: the types that the export wrote, fp32 where it is missing."""
OUTPUTS = (_Tensor("labels", "tensor(uint8)", 2), _Tensor("confidence", "tensor(uint8)", 2))
FEATURES = (_Tensor("features", "tensor(float)", 1),)


class OnnxEngine:
    """A network of the student contract on onnxruntime's CPU provider.

    `threads` 0 = every core this process may use. Raises EngineError where the file cannot be loaded or its
    inputs and outputs differ from the contract of `model_card`.
    """

    def __init__(self, network: Network, threads: int = 0, reason: str = "asked for") -> None:
        self._network = _Session(content_of(network), threads or _cores(), INPUTS, OUTPUTS)
        self.info = EngineInfo("onnxruntime", "cpu", self._network.precision, reason)

    def run(self, images: NDArray[np.uint8], modality: NDArray[np.int64]) -> tuple[Labels, Labels]:
        """images uint8 [M, H, W, 3], modality int64 [M] -> labels uint8 [H, W], confidence uint8 [H, W].

        Raises EngineError when inference fails or the engine is closed.
        """
        labels, confidence = self._network.run({"images": images, "modality": modality})
        return labels, confidence

    def close(self) -> None:
        """Free the session."""
        self._network.close()


class OnnxPartsEngine:
    """A network in two parts: an image is encoded when it comes, on a thread of its own; the decoder has all `threads`.

    On idle cores that takes as long as the whole network does with all of its images at once, and longer with one image
    alone; what it gains is that encoding begins with the first frame of a set, not with the last.

    Raises EngineError as `OnnxEngine` does.
    """

    def __init__(self, parts: Parts, threads: int = 0, reason: str = "asked for") -> None:
        threads = threads or _cores()
        encoder, decoder = map(content_of, parts)
        self._encoder = _Session(encoder, 1, INPUTS, FEATURES)
        self._decoder = _Session(decoder, threads, FEATURES, OUTPUTS)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encoder")
        details = {"form": f"frames are encoded when they arrive, {threads} at a time"}
        self.info = EngineInfo("onnxruntime", "cpu", self._encoder.precision, reason, details)

    def encode(self, image: NDArray[np.uint8], modality: int) -> Future[Encoded]:
        """Begin to encode an image uint8 [H, W, 3]; the result raises EngineError."""
        try:
            return self._pool.submit(self._encode, image, modality)
        except RuntimeError as error:  # the pool is shut down
            raise EngineError(f"the engine of {self._encoder.file} is closed") from error

    def decode(self, features: Sequence[Features]) -> tuple[Labels, Labels]:
        """Features [F] of the images -> labels uint8 [H, W], confidence uint8 [H, W]; raises EngineError."""
        labels, confidence = self._decoder.run({"features": _mean(features)})
        return labels, confidence

    def run(self, images: NDArray[np.uint8], modality: NDArray[np.int64]) -> tuple[Labels, Labels]:
        """images uint8 [M, H, W, 3], modality int64 [M] -> labels uint8 [H, W], confidence uint8 [H, W].

        Raises EngineError when inference fails or the engine is closed.
        """
        encoded = [self.encode(image, int(index)) for image, index in zip(images, modality, strict=True)]
        return self.decode([future.result().features for future in encoded])

    def close(self) -> None:
        """Finish what is being encoded and free the sessions."""
        self._pool.shutdown(cancel_futures=True)
        self._encoder.close()
        self._decoder.close()

    def _encode(self, image: NDArray[np.uint8], modality: int) -> Encoded:
        begun_s = time.perf_counter()
        (features,) = self._encoder.run({"images": image[None], "modality": np.array([modality], np.int64)})
        return Encoded(features, begun_s, time.perf_counter())


def _mean(features: Sequence[Features]) -> Features:
    """Of a few [F], in their order: without a copy to stack them."""
    if len(features) == 1:
        return features[0]
    total = features[0] + features[1]
    for more in features[2:]:
        total += more
    total *= np.float32(1 / len(features))
    return total


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class _Session:
    """An ONNX file on the CPU, whose inputs and outputs are as expected."""

    def __init__(
        self, network: NetworkContent, threads: int, inputs: tuple[_Tensor, ...], outputs: tuple[_Tensor, ...]
    ) -> None:
        file, session = network.path, _open_session(network, threads)
        differences = [
            *_differences("input", inputs, session.get_inputs()),
            *_differences("output", outputs, session.get_outputs()),
        ]
        if differences:
            raise EngineError(
                f"{file} is not a network of the student contract: {'; '.join(differences)}. "
                "Export the student again with `anyseg export`."
            )
        self.file = file
        self.precision = session.get_modelmeta().custom_metadata_map.get(PRECISION_KEY, "fp32")
        self._outputs = [tensor.name for tensor in outputs]
        self._session: ort.InferenceSession | None = session

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in order. Raises EngineError when inference fails or the session is closed."""
        if self._session is None:
            raise EngineError(f"the engine of {self.file} is closed")
        try:
            return [np.asarray(output) for output in self._session.run(self._outputs, dict(inputs))]
        except Exception as error:  # onnxruntime's exceptions share no base class below Exception
            raise EngineError(f"inference with {self.file} failed: {error}") from error

    def close(self) -> None:
        """Free it."""
        self._session = None


def _open_session(network: NetworkContent, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: they are raised as well
    # Between two operators the threads spin: putting them to sleep and waking them costs a fifth of the run. After the
    # run they must not: they would take the very cores that the middleware needs to deliver the next frame.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return ort.InferenceSession(network.alone(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason, remedy = " ".join(str(error).split()), "Copy the student folder again, or export it again."
        if "IR version" in reason:
            remedy = "A later onnx wrote it than this onnxruntime reads: update onnxruntime, or export it again here."
        raise EngineError(f"onnxruntime {ort.__version__} cannot load {network}: {reason}. {remedy}") from error


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
