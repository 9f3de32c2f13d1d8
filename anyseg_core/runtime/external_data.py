"""The weights that an ONNX file takes from other files; without the onnx package, which a robot does not have.

ONNX is protobuf: a message is a row of fields, each a key (number and wire type) and a value. Only the fields on the
way to a tensor's `external_data` are looked into; weights are skipped. Numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "main graph", 20: "training", 25: "function"},
    "main graph": {1: "node", 5: "initializer", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Message -> the number of a field -> the message in it."""
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_TYPES = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8", 12: "u4", 13: "u8"}
"""TensorProto.DataType -> numpy's type."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class ExternalTensor:
    """An initializer of the main graph whose values are in another file."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    location: str
    """The file, relative to the folder of the ONNX file; unchecked."""
    offset: int
    """Bytes before the values."""

    def values(self, file: bytes) -> NDArray:
        """The tensor, from the file's content. Raises ValueError where that is too short."""
        count = int(np.prod(self.shape, dtype=object))
        return np.frombuffer(file, self.dtype, count, self.offset).reshape(self.shape)


def external_tensors(network: bytes) -> list[ExternalTensor]:
    """Raises ValueError where it is no ONNX, or has a tensor elsewhere than in the main graph take its values."""
    waiting, found = [("model", memoryview(network))], list[ExternalTensor]()
    while waiting:
        message, part = waiting.pop()
        if message in ("initializer", "tensor"):
            tensor = _external(part)
            if tensor is not None and message == "tensor":
                raise ValueError(f"a tensor of a node or subgraph takes its values from {tensor.location}")
            found += [tensor] if tensor is not None else []
            continue
        inside = _MESSAGES[message]
        waiting += [(inside[n], value) for n, value in _fields(part) if n in inside and isinstance(value, memoryview)]
    return found


def with_values_inside(network: bytes, files: Mapping[str, bytes]) -> bytes:
    """An ONNX file that needs no other: the initializers of its main graph have their values from `files`, by location.

    Raises what `external_tensors` and `ExternalTensor.values` raise.
    """
    return _rewritten(memoryview(network), _GRAPH, lambda graph: _with_values(graph, files))


def _with_values(graph: memoryview, files: Mapping[str, bytes]) -> bytes:
    return _rewritten(graph, _INITIALIZER, lambda tensor: _with_its_values(tensor, files))


def _with_its_values(message: memoryview, files: Mapping[str, bytes]) -> bytes:
    tensor = _external(message)
    if tensor is None:
        return bytes(message)
    kept = [f.whole for f in _whole_fields(message) if f.number not in (_EXTERNAL_DATA, _DATA_LOCATION)]
    return b"".join([*kept, _field_of_bytes(_RAW_DATA, tensor.values(files[tensor.location]).tobytes())])


def _rewritten(message: memoryview, number: int, rewrite: Callable[[memoryview], bytes]) -> bytes:
    """A message with each message in it of that field number rewritten."""
    return b"".join(
        _field_of_bytes(number, rewrite(field.value))
        if field.number == number and isinstance(field.value, memoryview)
        else field.whole
        for field in _whole_fields(message)
    )


def _field_of_bytes(number: int, value: bytes) -> bytes:
    return _encoded(number << 3 | _BYTES) + _encoded(len(value)) + value


def _encoded(number: int) -> bytes:
    """As a varint."""
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def _external(tensor: memoryview) -> ExternalTensor | None:
    """A TensorProto with its values elsewhere; None for one that has them."""
    fields = list(_fields(tensor))
    entries = [dict(_fields(value)) for number, value in fields if number == _EXTERNAL_DATA and not _is_number(value)]
    if not entries:
        return None
    where = {_text(entry.get(1)): _text(entry.get(2)) for entry in entries}
    types = [value for number, value in fields if number == _TYPE]
    if not types or types[-1] not in _TYPES:
        raise ValueError(f"a tensor of type {types} takes its values from {where.get('location')}")
    return ExternalTensor(
        name="".join(_text(value) for number, value in fields if number == _NAME),
        dtype=np.dtype(_TYPES[types[-1]]).newbyteorder("<"),
        shape=tuple(_dimensions(fields)),
        location=where.get("location", ""),
        offset=int(where.get("offset", "0")),
    )


def _dimensions(fields: list[tuple[int, int | memoryview]]) -> Iterator[int]:
    """Written one by one, or packed."""
    for value in (value for number, value in fields if number == _DIMS):
        if isinstance(value, int):
            yield value
            continue
        at = 0
        while at < len(value):
            dimension, at = _varint(value, at)
            yield dimension


def _is_number(value: int | memoryview) -> bool:
    return isinstance(value, int)


def _text(value: int | memoryview | None) -> str:
    return bytes(value).decode() if isinstance(value, memoryview) else ""


class _Field(NamedTuple):
    number: int
    value: int | memoryview | None
    """None for one of fixed size."""
    whole: memoryview
    """With its key."""


def _fields(message: int | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of a message's fields, without those of fixed size."""
    assert isinstance(message, memoryview)
    for field in _whole_fields(message):
        if field.value is not None:
            yield field.number, field.value


def _whole_fields(message: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        wire, value = key & 7, None
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        elif wire == _BYTES:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire} is not ONNX")
        yield _Field(key >> 3, value, message[start:at])
    if at != len(message):
        raise ValueError("it ends in the middle of a field")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where the next field begins."""
    value = 0
    for place, octet in enumerate(message[at : at + 10]):
        value |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return value, at + place + 1
    raise ValueError("it ends in the middle of a number")
