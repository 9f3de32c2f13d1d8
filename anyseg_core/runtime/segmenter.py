"""Live frames -> labels and confidence: encode, choose the network, run it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.engines.cuda.device import DeviceError
from anyseg_core.runtime.engines.network import Parts
from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import (
    BuildOptions,
    DeviceEngine,
    Encoded,
    Engine,
    EngineError,
    EngineInfo,
    Labels,
    PartedEngine,
)
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.input_images import InputError, encode_frame
from anyseg_core.runtime.known_answer import KnownAnswer, known_images
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.model_card import ModelCard, NetworkSpec, StudentError, find_student, load_card, read_networks
from anyseg_core.runtime.network_content import NetworkContent
from anyseg_core.runtime.sensor_shares import Shares, shares_of
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.vote import fuse


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One label image, and what it was made of."""

    labels: Labels
    """uint8 [H, W] at network size."""
    confidence: Labels
    """uint8 [H, W], 255 = certain."""
    modalities: tuple[Sensor, ...]
    """The modalities that it was made from, in the card's order."""
    encode_s: float
    """Seconds spent turning frames into network images, those not counted that were encoded before."""
    engine_s: float
    """Seconds in which the engine was busy with it, also ahead, while the frames' companions were on their way. A frame
    counts in the first mask that is made of it."""
    shares: Shares = field(default_factory=dict)
    """How much each modality counts where, [h, w]; empty where the student counts all alike, or its network is not run
    in parts."""
    alone_s: float = 0.0
    """Seconds in which the engine would have been busy had this been the only mask: `engine_s` with all encodings that
    it was made from, whoever asked for them first. This one compares masks, `engine_s` adds up."""

    def unknown_below(self, min_confidence: float) -> Segmentation:
        """The same with no label (255) where the confidence is below `min_confidence`, 0..1: "I don't know"."""
        if min_confidence <= 0:
            return self
        doubtful = self.confidence < 255 * min_confidence
        return replace(self, labels=np.where(doubtful, np.uint8(UNLABELLED), self.labels))

    def resized(self, height: int, width: int) -> tuple[Labels, Labels]:
        """Labels and confidence at `height` x `width`; each pixel is that of the nearest network pixel."""
        return self.resized_labels(height, width), _resized_nearest(self.confidence, height, width)

    def resized_labels(self, height: int, width: int) -> Labels:
        """The labels alone."""
        return _resized_nearest(self.labels, height, width)


@dataclass(frozen=True)
class _Network:
    """A network of the student with the engine that runs it."""

    spec: NetworkSpec
    engine: Engine

    def serves(self, modalities: Collection[Sensor]) -> bool:
        return self.spec.serves(modalities)


@dataclass(eq=False)
class _NetworkImage:
    """uint8 [H, W, 3], and with which calibration it was made."""

    rig: Rig | None
    image: NDArray[np.uint8]
    encoded: Future[Encoded] | None = None
    """What an engine in parts makes of it, begun once."""
    counted: bool = False
    """Whether a mask's engine time has that in it."""


class Segmenter:
    """A student, ready to run. Open, use and close it on one thread; `network_image` alone is for any."""

    def __init__(self, card: ModelCard, contents: Mapping[str, NetworkContent]) -> None:
        """`contents` are the card's files by their names, as `read_networks` gives them."""
        self.card = card
        self.while_waiting: Callable[[], bool] = lambda: False
        """Called while a device runs the network and this thread is free, until it gives False. It may `encode`."""
        self._contents = contents
        self._networks: list[_Network] = []
        self._images: WeakKeyDictionary[SensorFrame, _NetworkImage] = WeakKeyDictionary()
        self._sent: dict[Sensor, NDArray[np.uint8]] = {}  # the newest of each modality

    @classmethod
    def load(cls, student: str | Path) -> Segmenter:
        """Find a student by name (bundled) or folder, and read and check its files, once; `open_engines` makes it ready
        to run, from what was read.

        Raises StudentError: no such student, or it is damaged.
        """
        folder = find_student(student)
        card = load_card(folder, verify=False)
        return cls(card, read_networks(folder, card))

    @classmethod
    def open(
        cls, student: str | Path, backend: str = "auto", threads: int = 0, build: BuildOptions | None = None
    ) -> Segmenter:
        """`load` and `open_engines` in one; raises what they raise."""
        segmenter = cls.load(student)
        segmenter.open_engines(backend, threads, build)
        return segmenter

    def open_engines(
        self, backend: str = "auto", threads: int = 0, build: BuildOptions | None = None, reason: str = "asked for"
    ) -> None:
        """Open every network, check it against the card and warm it up; those that were open are closed first.

        Args:
            backend: one of `engine.BACKENDS`.
            threads: of the engine; 0 = every core this process may use.
            build: for engines that are built first.
            reason: why this backend was chosen, for `engine_info`.

        Raises:
            StudentError: a network contradicts its card.
            EngineError: the backend cannot be used here; no engine is open then.
        """
        self.close()
        try:
            for spec in self.card.networks:
                options = options_for(spec, build or BuildOptions())
                parts = _parts_of(spec, self._contents)
                engine = open_engine(self._contents[spec.file], backend, threads, options, reason, parts)
                self._networks.append(_Network(spec, engine))
                _warm_up(self._networks[-1], self.card, self._contents[spec.file].path)
        except Exception:
            self.close()
            raise

    @property
    def modalities(self) -> tuple[Sensor, ...]:
        """What the student can use, in the card's order."""
        return self.card.modalities

    @property
    def engine_info(self) -> EngineInfo:
        """What really runs. Raises EngineError where no engine is open."""
        if not self._networks:
            raise EngineError(f"the engines of student {self.card.name} are closed")
        checked = all(network.spec.known_answers for network in self._networks)
        told = "as exported" if checked else "the card has none; `anyseg known-answer` writes it"
        info = self._networks[0].engine.info
        return replace(info, details={**info.details, "known answer": told})

    def segment(self, frames: Mapping[Sensor, SensorFrame], rig: Rig | None = None) -> Segmentation:
        """Segment from exactly these frames; `rig` is needed where LiDAR is among them.

        Where no network takes all of them together, each modality's network runs alone and the pixels are
        decided by their confidence (`fuse`).

        Raises:
            InputError: no frame, a modality the student does not take, or a frame that cannot be encoded.
            EngineError: inference failed or gave what cannot be right, or no engine is open.
        """
        self._check(frames)
        started = time.perf_counter()
        live = tuple(modality for modality in self.modalities if modality in frames)
        for modality in live:
            self.encode(frames[modality], rig)
        made = {modality: self._network_image(frames[modality], rig) for modality in live}
        encoded = time.perf_counter()
        results = [self._run(network, group, made) for network, group in self._plan(live)]
        labels, confidence = fuse(results)
        done = time.perf_counter()
        alone_s = _busy_s([(encoded, done), *_all_encoded(made.values())])
        engine_s = _busy_s([(encoded, done), *_newly_encoded(made.values())])
        return Segmentation(labels, confidence, live, encoded - started, engine_s, self._shares(live, made), alone_s)

    def _shares(self, live: tuple[Sensor, ...], made: Mapping[Sensor, _NetworkImage]) -> Shares:
        parts = self.card.networks[0].parts
        encoded = [future.result().features for m in live if (future := made[m].encoded) is not None]
        if parts is None or parts.first_map is None or not encoded:
            return {}
        return shares_of(encoded, live, parts.first_map)

    def segment_images(self, images: Mapping[Sensor, NDArray[np.uint8]]) -> tuple[Labels, Labels]:
        """Labels and confidence of network images [H, W, 3] that were encoded already, as data sets have them.

        Raises EngineError.
        """
        if not self._networks:
            raise EngineError(f"the engines of student {self.card.name} are closed")
        live = tuple(modality for modality in self.modalities if modality in images)
        results = []
        for network, group in self._plan(live):
            index = np.array([self.card.index_of(modality) for modality in group], np.int64)
            results.append(network.engine.run(np.stack([images[modality] for modality in group]), index))
        return fuse(results)

    def segment_arrays(self, rig: Rig | None = None, **arrays: NDArray[Any]) -> Segmentation:
        """Segment from the arrays of one moment, by the sensors' names: `segment_arrays(camera=rgb, depth=metres)`.

        Each array is what its sensor's kind delivers, see `sensors.SENSOR_KINDS`: camera uint8 [H, W, 3] in RGB, depth
        float32 [H, W] in metres, events uint8 [H, W, 2], LiDAR float32 [N, 4] of x, y, z and intensity.

        Raises InputError that names the argument: no sensor of the student, another type or shape; and what `segment`
        raises.
        """
        return self.segment({frame.modality: frame for frame in itertools.starmap(self._frame_of, arrays.items())}, rig)

    def _frame_of(self, name: str, data: NDArray[Any]) -> SensorFrame:
        sensor = next((sensor for sensor in self.modalities if sensor == name), None)
        if sensor is None:
            known = ", ".join(self.modalities)
            raise InputError(f"{name}: student {self.card.name} has no such sensor; it takes {known}")
        data = np.asarray(data)
        if not sensor.kind.fits(data):
            wanted = ", ".join("any" if size is None else str(size) for size in sensor.kind.shape)
            raise InputError(
                f"{name}: must be {sensor.kind.dtype} of shape [{wanted}], not {data.dtype} of shape {list(data.shape)}"
            )
        return SensorFrame(sensor, data, stamp_ns=0)

    def network_image(self, frame: SensorFrame, rig: Rig | None = None) -> NDArray[np.uint8]:
        """The network image uint8 [H, W, 3] of a frame, which is made once and kept as long as the frame is.

        On any thread: `segment` finds what was made ahead. Raises InputError where it cannot be encoded.
        """
        return self._network_image(frame, rig).image

    def _network_image(self, frame: SensorFrame, rig: Rig | None) -> _NetworkImage:
        kept = self._images.get(frame)
        if kept is None or kept.rig is not rig:
            spec = self.card.inputs[self.card.index_of(frame.modality)]
            kept = self._images[frame] = _NetworkImage(rig, encode_frame(frame, spec, self.card.input_size, rig))
        return kept

    def encode(self, frame: SensorFrame, rig: Rig | None = None) -> None:
        """Have the frame's network image made, and the engine begin with what it can do before its companions come:
        bring it to a device of its own, or encode it. Raises InputError and EngineError.
        """
        made = self._network_image(frame, rig)
        for network in self._networks:
            if network.serves([frame.modality]):
                self._begin(network.engine, frame.modality, made)

    def _begin(self, engine: Engine, modality: Sensor, made: _NetworkImage) -> None:
        index = self.card.index_of(modality)
        if isinstance(engine, PartedEngine):
            if made.encoded is None:
                made.encoded = engine.encode(made.image, index)
        elif isinstance(engine, DeviceEngine) and self._sent.get(modality) is not made.image:
            self._sent[modality] = made.image
            engine.upload(index, made.image)

    def close(self) -> None:
        """Free the engines; nothing can be segmented before `open_engines`."""
        self._images.clear()
        self._sent.clear()
        while self._networks:
            self._networks.pop().engine.close()

    def _check(self, frames: Mapping[Sensor, SensorFrame]) -> None:
        if not self._networks:
            raise EngineError(f"the engines of student {self.card.name} are closed")
        if not frames:
            raise InputError("there is no frame to segment")
        unknown = [str(modality) for modality in frames if modality not in self.modalities]
        if unknown:
            raise InputError(f"student {self.card.name} does not take {', '.join(unknown)}")

    def _plan(self, live: tuple[Sensor, ...]) -> list[tuple[_Network, tuple[Sensor, ...]]]:
        """Which network runs on which modalities: the smallest that takes all, else one per modality."""
        by_size = sorted(self._networks, key=lambda network: len(network.spec.modalities))
        for network in by_size:
            if network.serves(live):
                return [(network, live)]
        return [(next(n for n in by_size if n.serves([modality])), (modality,)) for modality in live]

    def _run(
        self, network: _Network, group: tuple[Sensor, ...], made: Mapping[Sensor, _NetworkImage]
    ) -> tuple[Labels, Labels]:
        index = np.array([self.card.index_of(modality) for modality in group], np.int64)  # [M]
        present = [made[modality].image for modality in group]
        if isinstance(network.engine, PartedEngine):
            begun = [made[modality].encoded for modality in group]  # by `encode`
            features = [future.result().features for future in begun if future is not None]
            labels, confidence = network.engine.decode(features)
        elif isinstance(network.engine, DeviceEngine):
            network.engine.start(present, index)
            while self.while_waiting():
                pass
            labels, confidence = network.engine.finish()
            if not confidence.any():  # a softmax cannot be 0 everywhere: the device has lost the numbers
                raise EngineError(f"{network.spec.file} gave bad output: no pixel has any confidence")
        else:
            labels, confidence = network.engine.run(np.stack(present), index)  # [M, H, W, 3]
        fault = _contradiction(labels, confidence, self.card)
        if fault:
            raise EngineError(f"{network.spec.file} gave bad output: {fault}")
        return labels, confidence


def _all_encoded(images: Iterable[_NetworkImage]) -> Iterator[tuple[float, float]]:
    """When each was encoded."""
    for made in images:
        if made.encoded is not None:
            yield made.encoded.result()[1:]


def _newly_encoded(images: Iterable[_NetworkImage]) -> Iterator[tuple[float, float]]:
    """When each was encoded, of those that no mask has counted yet."""
    for made in images:
        if made.encoded is not None and not made.counted:
            made.counted = True
            yield made.encoded.result()[1:]


def _busy_s(intervals: Iterable[tuple[float, float]]) -> float:
    """Seconds that at least one of the intervals (begin, end) covers."""
    total, covered_until = 0.0, -np.inf
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, covered_until))
        covered_until = max(covered_until, end)
    return total


def _parts_of(spec: NetworkSpec, contents: Mapping[str, NetworkContent]) -> Parts | None:
    if spec.parts is None:
        return None
    return contents[spec.parts.encoder.file], contents[spec.parts.decoder.file]


def options_for(spec: NetworkSpec, build: BuildOptions) -> BuildOptions:
    """The same build for one network: as many modalities as it takes, and its name in what is told."""
    return replace(
        build,
        max_modalities=spec.count or len(spec.modalities),
        only_all=spec.count is not None,
        on_progress=lambda progress: build.on_progress(replace(progress, phase=f"{spec.file}: {progress.phase}")),
    )


def _warm_up(network: _Network, card: ModelCard, file: Path) -> None:
    """Run once with each number of modalities: engines allocate and tune on the first run of a shape.

    Raises StudentError where the network contradicts the card, EngineError where its answer is not the known one.
    """
    height, width = card.input_size
    known = {answer.count: answer for answer in network.spec.known_answers}
    for count in network.spec.counts:
        index = np.array([card.index_of(m) for m in network.spec.modalities[:count]], np.int64)
        try:
            labels, confidence = network.engine.run(known_images(card.input_size, index), index)
        except DeviceError:  # not the student's fault
            raise
        except EngineError as error:
            raise StudentError(
                f"{file} does not run with {count} modalities of {height}x{width} "
                f"as its card says: {error}. Export the student again."
            ) from error
        fault = _contradiction(labels, confidence, card)
        if fault:
            raise StudentError(f"{file} contradicts its card: {fault}. Export the student again.")
        if count in known:
            _check_answer(known[count], labels, network.engine.info, file)


def _check_answer(known: KnownAnswer, labels: Labels, engine: EngineInfo, file: Path) -> None:
    """Raises EngineError where the labels of `known_images` are not those that the export had."""
    agreement = known.agreement(labels)
    if agreement < known.min_agreement:
        raise EngineError(
            f"{engine.backend} on {engine.device} computes {file} wrongly: with {known.count} images "
            f"{100 * agreement:.0f} % of the labels are those of its card's known answer, "
            f"{100 * known.min_agreement:g} % must be. Set model.backend to another one, or export the student again"
        )


def _contradiction(labels: Labels, confidence: Labels, card: ModelCard) -> str | None:
    for name, image in (("labels", labels), ("confidence", confidence)):
        if image.shape != card.input_size or image.dtype != np.uint8:
            return f"{name} is {image.dtype} {image.shape}, the card's input_size is {card.input_size}"
    highest = int(labels.max())
    if highest >= len(card.classes):
        return f"it gives label {highest}, the card has {len(card.classes)} classes"
    return None


def _resized_nearest(image: Labels, height: int, width: int) -> Labels:
    if image.shape == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
