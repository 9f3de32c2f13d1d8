"""The TensorRT engine: TensorRT 10.3 to 11.x or TensorRT-RTX, on the first GPU.

Each number of live modalities has an optimisation profile of its own, with an execution context and, where
cuda.bindings is installed, a CUDA graph: a run is one call. All memory is taken when the engine is opened, or at a
modality's first image, and none afterwards. The contexts run one at a time, so they share their working memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.engines.cuda.bindings import Graph
from anyseg_core.runtime.engines.cuda.device import DeviceError, DeviceMemory, PinnedMemory, Stream
from anyseg_core.runtime.engines.cuda.open_device import open_device
from anyseg_core.runtime.engines.device_images import DeviceImages
from anyseg_core.runtime.engines.network import Network, content_of
from anyseg_core.runtime.engines.plan_cache import CachedPlan, PlanCache, PlanKey
from anyseg_core.runtime.engines.protocol import BuildOptions, BuildProgress, EngineError, EngineInfo, Labels
from anyseg_core.runtime.engines.tensorrt_build import (
    IMAGES,
    MODALITY,
    TensorrtLibrary,
    TensorrtLog,
    build_plan,
    load_library,
    summarise,
)

LABELS, CONFIDENCE = "labels", "confidence"
INT64_BYTES = 8
MIB = 1 << 20


@dataclass(frozen=True)
class _Output:
    """One output on the device, and where it is copied to."""

    name: str
    memory: DeviceMemory
    host: PinnedMemory


class TensorrtEngine:
    """A network of the student contract on TensorRT; built at the first start on a machine, then read from the cache.

    One thread opens, uses and closes it. Raises EngineError where TensorRT, the GPU or the network cannot be used; it
    never falls back to anything by itself. Raises BuildCancelledError where `build.on_progress` asked for it.
    """

    def __init__(self, network: Network, build: BuildOptions, reason: str = "asked for") -> None:
        library = load_library()
        self._network = content_of(network)
        self._thread = threading.get_ident()
        self._runtime: Any = None
        self._engine: Any = None
        self._contexts: list[Any] = []
        self._launches: dict[int, Callable[[], None]] = {}  # by number of modalities
        self._work: list[Stream | DeviceImages] = []
        self._resources = ExitStack()
        self._open = True
        self._running = False
        self._device = open_device()
        try:
            with self._device.activated():
                self.info = self._prepare(library, build, reason)
        except BaseException:
            self.close()
            raise

    # --- running -------------------------------------------------------------------------------------------------

    def run(self, images: NDArray[np.uint8], modality: NDArray[np.int64]) -> tuple[Labels, Labels]:
        """images uint8 [M, H, W, 3], modality int64 [M] -> labels uint8 [H, W], confidence uint8 [H, W].

        Raises EngineError when inference fails, the engine is closed, or the thread is not the one that opened it.
        """
        with self._used():
            self._images.forget()
        self.start(list(images), modality)
        return self.finish()

    def upload(self, modality: int, image: NDArray[np.uint8]) -> None:
        """Bring an image uint8 [H, W, 3] to the device; see `engine.DeviceEngine`."""
        with self._used():
            self._images.upload(modality, image)

    def start(self, images: Sequence[NDArray[np.uint8]], modality: NDArray[np.int64]) -> None:
        """Begin to run on M images uint8 [H, W, 3]; see `engine.DeviceEngine`."""
        with self._used():
            launch = self._launches.get(len(images))
            if launch is None or len(modality) != len(images):
                counts = ", ".join(map(str, self._launches))
                raise EngineError(f"{len(images)} images for {len(modality)} modalities; built for {counts}")
            if self._running:
                raise EngineError("a run was started and not finished")
            self._images.gather(images, modality, self._batch.address, self._stream)
            self._modality_host.array.view(np.int64)[: len(modality)] = modality
            self._device.copy_to_device(self._modality.address, self._modality_host.array, self._stream)
            launch()
            for output in self._outputs:
                self._device.copy_to_host(output.host.array, output.memory.address, self._stream)
            self._stream.record(self._done)
            self._running = True

    def finish(self) -> tuple[Labels, Labels]:
        """Wait for what was started; returns what `run` does."""
        with self._used():
            if not self._running:
                raise EngineError("no run was started")
            self._running = False
            self._done.wait()
            labels, confidence = (output.host.array.reshape(self._size).copy() for output in self._outputs)
            return labels, confidence

    def close(self) -> None:
        """Free everything, on the thread that opened it; without effect the second time."""
        if not self._open:
            return
        self._check_thread()
        self._open = False
        with suppress(DeviceError), self._device.activated():  # a lost device frees nothing any more
            for work in self._work:  # nothing may be freed that is still in use
                with suppress(DeviceError):
                    work.synchronize()
            self._launches.clear()
            self._contexts.clear()
            self._engine = self._runtime = None  # in this order: each needs the next
            self._resources.close()
        with suppress(DeviceError):
            self._device.close()

    @contextmanager
    def _used(self) -> Iterator[None]:
        """The device is current on this thread inside of the block. Raises EngineError where it cannot be used."""
        if not self._open:
            raise EngineError(f"the engine of {self._network} is closed")
        self._check_thread()
        with self._device.activated():
            yield

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise EngineError(f"the engine of {self._network} belongs to the thread that opened it")

    # --- opening -------------------------------------------------------------------------------------------------

    def _prepare(self, library: TensorrtLibrary, build: BuildOptions, reason: str) -> EngineInfo:
        self._log = TensorrtLog(library.module)
        free_before = self._device.free_memory()[0]
        self._runtime = library.module.Runtime(self._log.logger)
        plan = self._load(library, build)
        self._check_contract(library.module)
        self._take_memory(build.max_modalities)
        graphs = self._prepare_launches(library.module, build.counts)
        summary = summarise(
            self._engine.create_engine_inspector().get_engine_information(library.module.LayerInformationFormat.JSON)
        )
        details = {
            "library": library.name,
            "cuda": self._device.info.library,
            "gpu": f"{self._device.info.name}, compute capability {self._device.info.compute_capability}",
            "plan": plan.origin,
            "layer types": summary.precision,
            "tactics": summary.tactics,
            "profiles": ",".join(map(str, self._launches)),
            "cuda graphs": graphs,
            "device memory MB": f"{(free_before - self._device.free_memory()[0]) / MIB:.0f}",
        }
        return EngineInfo("tensorrt", "cuda:0", summary.main_type, reason, details, plan.warning)

    def _load(self, library: TensorrtLibrary, build: BuildOptions) -> CachedPlan:
        """The plan, deserialised; one that TensorRT refuses is built anew, once."""
        counts = build.counts
        gpu = self._device.info
        profiles = ",".join(map(str, counts))
        key = PlanKey(library.name, gpu.name, gpu.compute_capability, self._network.sha256, build.precision, profiles)
        cache = PlanCache(build.cache_dir)
        waiting = BuildProgress("waiting for another process that builds it", 0.0, time.monotonic())

        def get() -> CachedPlan:
            return cache.get(
                key,
                lambda: build_plan(library, self._network, counts, build.precision, build.on_progress),
                lambda: build.on_progress(waiting),
            )

        plan = get()
        self._engine = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            cache.discard(key)
            plan = get()
            self._engine = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            raise EngineError(f"{library.name} refuses what it built of {self._network}: {self._log.cause()}")
        return plan

    def _check_contract(self, trt: Any) -> None:
        """Names, types and ranks are those of `model_card`, and the size is fixed."""
        types = {IMAGES: trt.DataType.UINT8, MODALITY: trt.DataType.INT64}
        expected = {IMAGES: 4, MODALITY: 1, LABELS: 2, CONFIDENCE: 2}
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        sound = (
            {name: len(shape) for name, shape in shapes.items()} == expected
            and all(self._engine.get_tensor_dtype(n) == types.get(n, trt.DataType.UINT8) for n in names)
            and all(side > 0 for side in shapes[IMAGES][1:])
            and shapes[LABELS] == shapes[CONFIDENCE] == shapes[IMAGES][1:3]
        )
        if not sound:
            found = ", ".join(f"{n} {self._engine.get_tensor_dtype(n)} {list(shapes[n])}" for n in names)
            raise EngineError(
                f"{self._network} is not a network of the student contract: it has {found}. "
                "Export the student again with `anyseg export`."
            )
        self._size: tuple[int, int] = shapes[LABELS]

    def _take_memory(self, max_modalities: int) -> None:
        """Everything that the runs use; freed with `_resources`."""
        height, width = self._size
        image = (height, width, 3)
        self._stream = self._device.create_stream()
        self._resources.callback(self._stream.free)
        self._done = self._device.create_event()
        self._resources.callback(self._done.free)
        self._images = DeviceImages(self._device, image, self._resources)
        self._work = [self._images, self._stream]
        self._batch = self._allocate(max_modalities * int(np.prod(image)))
        self._modality = self._allocate(max_modalities * INT64_BYTES)
        self._modality_host = self._allocate_pinned(max_modalities * INT64_BYTES)
        self._modality_host.array[:] = 0
        self._outputs = [
            _Output(name, self._allocate(height * width), self._allocate_pinned(height * width))
            for name in (LABELS, CONFIDENCE)
        ]

    def _allocate(self, size: int) -> DeviceMemory:
        memory = self._device.allocate(size)
        self._resources.callback(memory.free)
        return memory

    def _allocate_pinned(self, size: int) -> PinnedMemory:
        memory = self._device.allocate_pinned(size)
        self._resources.callback(memory.free)
        return memory

    def _prepare_launches(self, trt: Any, counts: Sequence[int]) -> str:
        """A context for each profile, run once, and its graph; returns in words whether there are graphs."""
        count_of_profiles = self._engine.num_optimization_profiles
        sizes = [self._engine.get_device_memory_size_for_profile_v2(i) for i in range(count_of_profiles)]
        shared = self._allocate(max([1, *sizes]))
        # The first runs must not gather with whatever the memory holds.
        self._device.copy_to_device(self._modality.address, self._modality_host.array, self._stream)
        no_graphs: set[str] = set()
        for profile, count in enumerate(counts):
            context = self._create_context(trt, profile, count, shared)
            enqueue = self._enqueue(context)
            enqueue()  # allocates what TensorRT allocates lazily, which must not happen while a graph is recorded
            self._stream.synchronize()
            self._launches[count] = enqueue
            try:
                graph = Graph(self._stream, enqueue)
            except EngineError as error:
                no_graphs.add(str(error))
                continue
            self._resources.callback(graph.free)
            self._launches[count] = graph.launch
        return "; ".join(["no", *sorted(no_graphs)]) if no_graphs else "one for each profile"

    def _create_context(self, trt: Any, profile: int, count: int, shared: DeviceMemory) -> Any:
        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise EngineError(f"no execution context for {count} modalities: {self._log.cause()}")
        self._contexts.append(context)
        height, width = self._size
        addresses = {
            IMAGES: self._batch.address,
            MODALITY: self._modality.address,
            **{output.name: output.memory.address for output in self._outputs},
        }
        accepted = (
            context.set_optimization_profile_async(profile, self._stream.handle)
            and context.set_input_shape(IMAGES, (count, height, width, 3))
            and context.set_input_shape(MODALITY, (count,))
            and all(context.set_tensor_address(name, address) for name, address in addresses.items())
        )
        if not accepted or context.infer_shapes():
            raise EngineError(f"the engine does not take {count} modalities: {self._log.cause()}")
        context.set_device_memory(shared.address, shared.size)
        return context

    def _enqueue(self, context: Any) -> Callable[[], None]:
        def enqueue() -> None:
            if not context.execute_async_v3(self._stream.handle):
                raise EngineError(f"inference with {self._network} failed: {self._log.cause()}")

        return enqueue
