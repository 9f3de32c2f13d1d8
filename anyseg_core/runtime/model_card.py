"""model.json: all that a robot needs to know of a student, beside its network files.

A student is a folder: `model.json` (this card) and one or more ONNX files. Classes, colours, input size,
encodings, normalisation, training data and hashes live here and nowhere else.

Network contract (ONNX, TensorRT and the robot share it):

- inputs `images` uint8 [M, H, W, 3] and `modality` int64 [M] (index into the card's `inputs`), M dynamic, from 1 to
  the number of `inputs`; absent modalities are not in the batch.
- outputs `labels` uint8 [H, W] and `confidence` uint8 [H, W] (255 = certain). Normalisation, upsampling,
  softmax and argmax are inside the graph.

A network may come in two parts as well, which together give the same labels and borrow their weights from its file:

- encoder: `images` uint8 [1, H, W, 3], `modality` int64 [1] -> `features` float32 [F];
- decoder: `features` float32 [F], the mean over the modalities that are there -> `labels`, `confidence`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from anyseg_core.runtime.known_answer import KnownAnswer
from anyseg_core.runtime.label_sets import UNLABELLED, Surface
from anyseg_core.runtime.model_faults import told
from anyseg_core.runtime.network_content import NetworkContent, NetworkFileError, inside
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, Sensor, SensorKind, point_sensor
from anyseg_core.runtime.user_paths import from_home

CARD_NAME = "model.json"
STUDENTS = Path(__file__).resolve().parent.parent / "students"
"""Where the bundled students are, a folder each."""
SCHEMA_VERSION = 1

Triple = tuple[float, float, float]
Channel = Annotated[int, Field(ge=0, le=255)]


class StudentError(Exception):
    """A student folder that cannot be used; the message names the file and the remedy."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Encoding(_Strict):
    """How raw data become the uint8 [H, W, 3] image of the network. `input_images` encodes."""

    kind: Any = ""
    """The encoding's name in a card."""


class RgbEncoding(Encoding):
    """Camera: the RGB image itself."""

    kind: Literal["rgb"] = "rgb"


class DepthEncoding(Encoding):
    """Depth in metres -> [scaled depth, inverse depth, valid].

    Scaled depth runs from 0 at `near_m` to 1 at `far_m`, logarithmically, linearly, or linearly in the inverse depth,
    as a stereo camera's disparity does.
    """

    kind: Literal["depth"] = "depth"
    scale: Literal["log", "linear", "inverse"] = "log"
    near_m: float = Field(default=1.0, gt=0)
    far_m: float = Field(default=80.0, gt=0)

    @model_validator(mode="after")
    def _near_before_far(self) -> DepthEncoding:
        if self.near_m >= self.far_m:
            raise ValueError(f"near_m {self.near_m} must be less than far_m {self.far_m}")
        return self


class HhaEncoding(Encoding):
    """Depth in metres -> [horizontal disparity, height above ground, angle with gravity]; 0 where it is not known.

    Disparity is `near_m` / depth; height linear from `min_height_m` to `max_height_m` above the ground plane
    `camera_height_m` below the camera; angle linear from 0 (floor) over 90 (wall) to 180 degrees. Gravity is that of a
    level camera, or estimated from the surfaces of each image. Needs the camera's intrinsics.
    """

    kind: Literal["hha"] = "hha"
    near_m: float = Field(default=1.0, gt=0)
    camera_height_m: float = 1.6
    min_height_m: float = -1.0
    max_height_m: float = 7.0
    estimate_gravity: bool = False
    normals: Literal["slopes", "fitted"] = "slopes"
    """How surfaces are found. `fitted`: planes through the measurements within 7x7 pixels, and for gravity within
    21x21, as in Gupta's code; what is known is at least 1, so that a floor is not taken for an unknown angle.
    `slopes`: over 3x3 pixels, all of them measured, as for students whose card does not say it."""

    @model_validator(mode="after")
    def _lowest_before_highest(self) -> HhaEncoding:
        if self.min_height_m >= self.max_height_m:
            raise ValueError(f"min_height_m {self.min_height_m} must be less than max_height_m {self.max_height_m}")
        return self


class EventEncoding(Encoding):
    """Event counts -> [positive, negative, 0], each count times `gain`, saturating (MUSES form)."""

    kind: Literal["event_counts"] = "event_counts"
    gain: float = Field(default=40.0, gt=0)


class LidarEncoding(Encoding):
    """Projected points -> [range, intensity, height above ground]; 0 where no point falls.

    Range is logarithmic up to `max_range_m` (near = bright), intensity linear up to `max_intensity`, height
    linear from `min_height_m` to `max_height_m` above the ground plane `camera_height_m` below the camera.
    A point is drawn as a square of `2 * point_radius + 1` pixels of an image of `drawn_at` (height, width), which is
    then resized to the network's, nearest pixel; None = drawn at the network's size. A network that was trained on
    images drawn at another size knows another look of the points.
    """

    kind: Literal["lidar_projection"] = "lidar_projection"
    max_range_m: float = Field(default=80.0, gt=1.0)
    max_intensity: float = Field(default=255.0, gt=0)
    camera_height_m: float = 1.6
    min_height_m: float = -1.0
    max_height_m: float = 7.0
    point_radius: int = Field(default=1, ge=0, le=8)
    drawn_at: tuple[Annotated[int, Field(ge=1, le=16384)], Annotated[int, Field(ge=1, le=16384)]] | None = None


ENCODINGS: dict[SensorKind, tuple[type[Encoding], ...]] = {
    CAMERA: (RgbEncoding,),
    DEPTH: (DepthEncoding, HhaEncoding),
    EVENT: (EventEncoding,),
    LIDAR: (LidarEncoding,),
}
"""What the frames of each kind of sensor can be encoded as, the default first."""


def _parsed_encoding(content: Any) -> Any:
    """The encoding whose `kind` the content names. Raises ValueError that lists the known ones."""
    if not isinstance(content, Mapping):
        return content
    known = {each.model_fields["kind"].default: each for encodings in ENCODINGS.values() for each in encodings}
    name = content.get("kind")
    if name not in known:
        raise ValueError(f"unknown encoding kind {name!r}; known: {', '.join(known)}")
    return known[name].model_validate(content)


class InputSpec(_Strict):
    """How one modality reaches the network: encoded to uint8, then (x / 255 - mean) / std in the graph."""

    modality: Sensor
    kind: str = ""
    """Of the sensor; may be left out where it is named as its kind."""
    encoding: Annotated[SerializeAsAny[Encoding], BeforeValidator(_parsed_encoding)]
    mean: Triple = (0.0, 0.0, 0.0)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)

    @model_validator(mode="before")
    @classmethod
    def _declare_sensor(cls, content: Any) -> Any:
        """A name and a kind make the sensor; the kind of a sensor is written down whoever made it."""
        if not isinstance(content, Mapping) or not isinstance(content.get("modality"), str):
            return content
        sensor = Sensor(content["modality"], content.get("kind") or None)
        return {**content, "modality": sensor, "kind": sensor.kind.name}

    def encoded_with(self, **changes: Any) -> InputSpec:
        """The same with some fields of its encoding changed."""
        return self.model_copy(update={"encoding": self.encoding.model_copy(update=changes)})

    @model_validator(mode="after")
    def _encoding_fits(self) -> InputSpec:
        if not isinstance(self.encoding, ENCODINGS.get(self.modality.kind, ())):
            raise ValueError(f"{self.modality} cannot be encoded as {self.encoding.kind!r}")
        return self


class ClassSpec(_Strict):
    """One class; its label is its position in the card's list."""

    name: str
    color: tuple[Channel, Channel, Channel]
    surface: Surface = ""
    """What a planner takes it for, see `LabelClass`."""


class NetworkFile(_Strict):
    """An ONNX file of the student's folder."""

    file: str
    """Its name in the folder."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("file")
    @classmethod
    def _inside_the_folder(cls, file: str) -> str:
        return inside(file)


class NetworkParts(_Strict):
    """The same network in two: a frame is encoded when it arrives, whatever set it will be in."""

    encoder: NetworkFile
    decoder: NetworkFile
    first_map: tuple[int, int, int] | None = None
    """(h, w, c) of the map that the features begin with, whose last channel is how much the image counts at each place,
    positive; None where all images count alike."""


class NetworkSpec(NetworkFile):
    """A network and the modalities it takes, alone or in any combination."""

    modalities: tuple[Sensor, ...] = Field(min_length=1)
    count: int | None = Field(default=None, ge=1)
    """The only number of images that it takes at once; None = any."""
    parts: NetworkParts | None = None
    known_answers: tuple[KnownAnswer, ...] = ()
    """Checked whenever it is opened; `anyseg known-answer` writes them into a card that has none."""

    @property
    def files(self) -> tuple[NetworkFile, ...]:
        """Every file that it needs or may be run from."""
        return (self, self.parts.encoder, self.parts.decoder) if self.parts else (self,)

    def serves(self, live: Collection[Sensor]) -> bool:
        """Whether it takes these modalities together."""
        return set(live) <= set(self.modalities) and self.count in (None, len(live))

    @property
    def counts(self) -> range:
        """The numbers of images that it takes at once."""
        return range(1, len(self.modalities) + 1) if self.count is None else range(self.count, self.count + 1)


class TrainingRecord(_Strict):
    """Where the weights come from. `metrics` holds what was measured, by name."""

    method: str
    data: str
    git_revision: str
    command: str = ""
    metrics: dict[str, Any] = {}
    licence: str = ""
    """Of the training data, which limits what the student may be used for; "" where none is recorded."""
    non_commercial: bool = False
    """Whether that licence allows research and non-commercial use only."""


class ExpectedAgreement(_Strict):
    """How far what the network makes of one sensor alone agrees with what it makes of others, on data it was not
    trained on: `cross_examination` holds a sensor against it. `anyseg expect-agreement` writes it."""

    key: str
    """The sensor and the others, as in `camera|depth+lidar`."""
    mean: Triple
    """Of the logarithms of disagreement in the whole picture, by class, and in the worst quarter."""
    spread: Triple
    """Their standard deviations."""


class ModelCard(_Strict):
    """The card of a student folder."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    description: str
    input_size: tuple[int, int]
    """(height, width) of the network's input and output, multiples of 32."""
    inputs: tuple[InputSpec, ...] = Field(min_length=1)
    classes: tuple[ClassSpec, ...] = Field(min_length=2, max_length=UNLABELLED)
    networks: tuple[NetworkSpec, ...] = Field(min_length=1)
    data_files: tuple[NetworkFile, ...] = ()
    """Files that networks take weights from, beside the networks themselves (ONNX external data)."""
    agreement: tuple[ExpectedAgreement, ...] = ()
    """What its sensors are expected to agree on; empty = it is learnt while driving."""
    label_stride: int = Field(default=1, ge=1, le=4)
    """Labels are decided on a grid of this stride and repeated: 1 is exact, 2 is cheaper."""
    training: TrainingRecord

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        modalities = self.modalities
        if len(set(modalities)) != len(modalities):
            raise ValueError("a modality is listed twice in `inputs`")
        point_sensor(modalities)
        for network in self.networks:
            unknown = set(network.modalities) - set(modalities)
            if unknown:
                raise ValueError(f"network {network.file} takes {sorted(unknown)}, absent from `inputs`")
        unserved = [m for m in modalities if not any(network.serves([m]) for network in self.networks)]
        if unserved:
            raise ValueError(f"no network takes {', '.join(sorted(unserved))} alone, listed in `inputs`")
        if len(self.networks) > 1 and any(network.parts for network in self.networks):
            raise ValueError("a network in parts must be the only one")
        if any(side <= 0 or side % 32 for side in self.input_size):
            raise ValueError(f"input_size {self.input_size} must be positive multiples of 32")
        return self

    @property
    def modalities(self) -> tuple[Sensor, ...]:
        return tuple(spec.modality for spec in self.inputs)

    @property
    def encodings(self) -> dict[Sensor, Encoding]:
        """How each sensor's frames become images."""
        return {spec.modality: spec.encoding for spec in self.inputs}

    def index_of(self, modality: Sensor) -> int:
        """The network's `modality` value; raises ValueError for one the student does not take."""
        return self.modalities.index(modality)

    def write(self, folder: Path) -> None:
        """Write model.json into `folder`."""
        content = json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False)
        (folder / CARD_NAME).write_text(content + "\n")


@contextmanager
def edited_card(folder: Path) -> Iterator[dict[str, Any]]:
    """The content of a student's model.json, to be changed in the block, and written after it unless that raises.

    Nothing else of the card changes, as it would if it were written anew. Raises OSError.
    """
    path = folder / CARD_NAME
    content = json.loads(path.read_bytes())
    yield content
    path.write_text(json.dumps(content, indent=2) + "\n")


def bundled_students() -> tuple[str, ...]:
    """Names of the students that come with the package, sorted."""
    return tuple(sorted(card.parent.name for card in STUDENTS.glob(f"*/{CARD_NAME}")))


def find_student(student: str | Path) -> Path:
    """The folder of a student: the name of a bundled one, or the path of a folder with a model.json.

    Raises StudentError that lists the bundled students.
    """
    if str(student) in bundled_students():
        return STUDENTS / str(student)
    folder = from_home(student)
    if student and (folder / CARD_NAME).is_file():
        return folder
    names = ", ".join(bundled_students()) or "none"
    raise StudentError(
        f"no student {str(student)!r}: neither a bundled student ({names}) nor a folder with a {CARD_NAME}. "
        "Set model.student to one of those names or to the folder that `anyseg export` wrote."
    )


def introduction(card: ModelCard) -> str:
    """A student in a line: its name, what it knows, and by which data; of a mixture the names of its parts."""
    parts = card.training.data.removeprefix("mixture of ").split("; ")
    data = ", ".join(part.partition(":")[0] for part in parts) or "data that its card does not name"
    about = f": {card.description.rstrip('. ')}" if card.description else ""
    return f"student {card.name}{about}; trained on {data}"


def usage_notice(card: ModelCard) -> str | None:
    """What a user must know before he uses a student: that its data forbids commercial use, and which bundled students
    have no such limit. None where nothing limits it.
    """
    if not card.training.non_commercial:
        return None
    free = [
        name for name in bundled_students() if not load_card(find_student(name), verify=False).training.non_commercial
    ]
    return (
        f"student {card.name} is for research and non-commercial use only: {card.training.licence}. "
        f"Without that limit: {', '.join(free) or 'none of the bundled students'}"
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_card(folder: Path, *, verify: bool = True) -> ModelCard:
    """Read and check the card of a student folder; with `verify`, its networks' hashes too.

    Raises StudentError that names the file and the remedy.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        raise StudentError(f"no student at {folder}: {CARD_NAME} is missing. Run `anyseg doctor` to list the students.")
    try:
        card = ModelCard.model_validate(_card_content(path.read_bytes()))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        faults = told(error, ModelCard)
        raise StudentError(f"{path} is not a valid model card ({faults}). Export the student again.") from None
    if verify:
        read_networks(folder, card)
    return card


def _card_content(text: bytes) -> Any:
    """JSON -> objects. Raises ValueError where a number is not finite, or a name is given twice."""
    content = json.loads(text, object_pairs_hook=_without_repetition)
    for name, value in _leaves(content):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}, no finite number")
    return content


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = {name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1}
    if repeated:
        raise ValueError(f"{', '.join(sorted(repeated))} given twice")
    return dict(pairs)


def _leaves(content: Any, name: str = "card") -> Iterator[tuple[str, Any]]:
    """Every value of nested JSON objects and lists, with its dotted name."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    yield name, content
    for key, value in inside:
        yield from _leaves(value, str(key) if name == "card" else f"{name}.{key}")


def read_networks(folder: Path, card: ModelCard) -> dict[str, NetworkContent]:
    """The content of every network file of a student, by its name, each read once and proven to be the card's.

    Raises StudentError: a file is missing, another one than the card says, or takes weights from one that the card does
    not name.
    """
    specified = {file.file: file.sha256 for spec in card.networks for file in spec.files}
    hashes = specified | {file.file: file.sha256 for file in card.data_files}
    networks = {name: _read_network(folder / name, sha256) for name, sha256 in specified.items()}
    for network in networks.values():
        for name, data in network.external.items():
            if name not in hashes:
                raise StudentError(
                    f"{network} takes weights from {name}, whose SHA-256 the card does not have: export the student "
                    "again, or add it to the card's data_files"
                )
            _verify(folder / name, hashlib.sha256(data).hexdigest(), hashes[name])
    return networks


def _read_network(file: Path, sha256: str) -> NetworkContent:
    if not file.is_file():
        raise StudentError(f"{file} is missing, though {CARD_NAME} names it. Copy the whole student folder again.")
    try:
        data = file.read_bytes()
        _verify(file, hashlib.sha256(data).hexdigest(), sha256)
        return NetworkContent.of(file, data)
    except (NetworkFileError, OSError) as error:
        raise StudentError(str(error)) from error


def _verify(file: Path, found: str, expected: str) -> None:
    if found != expected:
        raise StudentError(
            f"{file} is damaged or not the network of this card (SHA-256 differs). "
            "Copy the student folder again, or export it again."
        )
