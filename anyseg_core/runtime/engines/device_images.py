"""Images on their way to the device: each modality has its own place, so the next travels while the network runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.engines.cuda.device import Device, Stream
from anyseg_core.runtime.engines.protocol import EngineError


class _Place:
    """Where the newest image of one modality is kept: pinned on the host, then on the device."""

    def __init__(self, device: Device, size: int, resources: ExitStack) -> None:
        self.pinned = device.allocate_pinned(size)
        resources.callback(self.pinned.free)
        self.memory = device.allocate(size)
        resources.callback(self.memory.free)
        self.arrived = device.create_event()
        resources.callback(self.arrived.free)
        self.image: NDArray[np.uint8] | None = None


class DeviceImages:
    """Brings images uint8 [H, W, 3] to the device on a stream of its own and gathers those of one run.

    A modality's memory is taken at its first image and kept. Everything is freed with `resources`.
    """

    def __init__(self, device: Device, shape: tuple[int, int, int], resources: ExitStack) -> None:
        self._device = device
        self._shape = shape
        self._size = int(np.prod(shape))
        self._resources = resources
        self._stream = device.create_stream()
        resources.callback(self._stream.free)
        self._gathered = device.create_event()
        resources.callback(self._gathered.free)
        self._places: dict[int, _Place] = {}

    def upload(self, modality: int, image: NDArray[np.uint8]) -> None:
        """Begin to copy a modality's image; returns at once. The image may be changed afterwards."""
        if image.shape != self._shape or image.dtype != np.uint8:
            raise EngineError(f"image is {image.dtype} {image.shape}, the network takes uint8 {self._shape}")
        place = self._place(modality)
        place.arrived.wait()  # the copy before this one still reads the pinned memory
        place.pinned.array.reshape(self._shape)[...] = image
        self._stream.wait_for(self._gathered)  # the run before still reads the device's memory
        self._device.copy_to_device(place.memory.address, place.pinned.array, self._stream)
        self._stream.record(place.arrived)
        place.image = image

    def gather(
        self, images: Sequence[NDArray[np.uint8]], modality: NDArray[np.int64], batch: int, stream: Stream
    ) -> None:
        """Put on `stream`: the images, one after the other, at the address `batch`. Uploads what is not there."""
        for row, (image, index) in enumerate(zip(images, modality.tolist(), strict=True)):
            if index not in self._places or self._places[index].image is not image:
                self.upload(index, image)
            place = self._places[index]
            stream.wait_for(place.arrived)
            self._device.copy_on_device(batch + row * self._size, place.memory.address, self._size, stream)
        stream.record(self._gathered)

    def forget(self) -> None:
        """Upload every image anew: the caller may have changed the arrays."""
        for place in self._places.values():
            place.image = None

    def _place(self, modality: int) -> _Place:
        if modality not in self._places:
            self._places[modality] = _Place(self._device, self._size, self._resources)
        return self._places[modality]

    def synchronize(self) -> None:
        """Until every upload is done."""
        self._stream.synchronize()
