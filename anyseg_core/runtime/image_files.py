"""JPEG and PNG -> pixels, the same for the robot's messages and for the files of training.

OpenCV fills the missing part of a truncated picture with grey or zeros, turns a JPEG as its EXIF orientation says, of
which a calibrated camera's intrinsics know nothing, and takes the length of a PNG chunk at its word: 700 bytes that
promise 4 GB cost 4 GB and many seconds. So pictures are looked through before they are decoded, and are never turned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 1 << 26
"""Pixels or points; a larger size (8192 x 8192) is a corrupt header, not a sensor."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
_FOREIGN_MAGIC = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x01": "a video stream (H.264 or H.265)",
    b"\0\0\x01": "a video stream (H.264 or H.265)",
}
"""What else a driver may send, by its first bytes."""
_JPEG_END = b"\xff\xd9"
_MAX_PNG_CHUNKS = 1 << 16  # encoders write 8 kB and more in each: more than this is a message made to keep us busy
_MAX_JPEG_SEGMENTS = 1 << 12  # before the one that tells the size; bytes of padding count
_JPEG_PIXELS = 0xDA
"""Marker of the segment behind which the coded pixels follow."""


class ImageFileError(ValueError):
    """Bytes that are no whole JPEG or PNG; the message says what is wrong with them."""


class ImageSizeError(ImageFileError):
    """A picture without pixels, or larger than any sensor's."""


class PngChunk(NamedTuple):
    """A part of a PNG."""

    kind: bytes
    content: bytes
    is_intact: bool
    """Whether its checksum is right."""


def decode_picture(data: NDArray[np.uint8], flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[Any]:
    """The bytes of a JPEG or PNG [n] -> pixels, colour in OpenCV's order (BGR), never turned.

    `flags` are those of `cv2.imdecode`. Raises ImageFileError for anything but a whole picture of a sane size.
    """
    kind = _picture_kind(bytes(data[:8]))
    size = kind.size_of(data)
    if size is None:
        raise ImageFileError("compressed image has a corrupt header: no size in it")
    check_picture_size("compressed image", *size)
    if not kind.is_complete(data):
        raise ImageFileError(f"compressed image of {len(data)} bytes is truncated: no end mark")
    if flags != cv2.IMREAD_UNCHANGED:  # which never turns a picture
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise ImageFileError(f"compressed image cannot be decoded: {error}") from None
    if pixels is None:
        raise ImageFileError(f"compressed image of {len(data)} bytes cannot be decoded")
    return pixels


def announced_size(data: NDArray[np.uint8]) -> tuple[int, int] | None:
    """(height, width) by the header of a JPEG or PNG [n], also behind a few other bytes; None where there is none."""
    start = bytes(data[:32])
    begin = max(start.find(PNG_MAGIC), 0)
    try:
        return _picture_kind(bytes(data[begin : begin + 8])).size_of(data[begin:])
    except ImageFileError:
        return None


def check_picture_size(what: str, height: int, width: int) -> None:
    """Raises ImageSizeError for a picture (or point cloud) that no sensor sends."""
    if height <= 0 or width <= 0:
        raise ImageSizeError(f"{what} is empty: {width}x{height}")
    if height * width > MAX_PIXELS:
        raise ImageSizeError(f"{what} of {width}x{height} is larger than any sensor's")


def png_chunks(data: bytes) -> Iterator[PngChunk]:
    """The chunks of a PNG, as far as they lie whole within the data."""
    at = len(PNG_MAGIC)
    for _ in range(_MAX_PNG_CHUNKS):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if at + 12 > len(data) or end > len(data):
            return
        checksum = int.from_bytes(data[end - 4 : end], "big")
        yield PngChunk(data[at + 4 : at + 8], data[at + 8 : end - 4], crc32(data[at + 4 : end - 4]) == checksum)
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end


class _PictureKind(NamedTuple):
    """How to look through a picture without decoding it."""

    size_of: Callable[[NDArray[np.uint8]], tuple[int, int] | None]
    is_complete: Callable[[NDArray[np.uint8]], bool]


def _picture_kind(start: bytes) -> _PictureKind:
    """What a picture is that starts with these bytes."""
    if start.startswith(JPEG_MAGIC):
        return _PictureKind(_jpeg_size, _jpeg_is_complete)
    if start.startswith(PNG_MAGIC):
        return _PictureKind(_png_size, _png_is_complete)
    foreign = next((name for magic, name in _FOREIGN_MAGIC.items() if start.startswith(magic)), "")
    named = f"compressed image is {foreign}, which is not read here" if foreign else "compressed image is no picture"
    raise ImageFileError(f"{named}: have the driver send JPEG or PNG")


def _png_size(data: NDArray[np.uint8]) -> tuple[int, int] | None:
    """(height, width) from the IHDR chunk, None where it is cut off."""
    header = bytes(data[16:24])
    if len(header) < 8:
        return None
    return int.from_bytes(header[4:], "big"), int.from_bytes(header[:4], "big")


def _png_is_complete(data: NDArray[np.uint8]) -> bool:
    """Whether every chunk (length, type, content, checksum) lies within the data, up to IEND."""
    at = len(PNG_MAGIC)
    for _ in range(_MAX_PNG_CHUNKS):
        start = bytes(data[at : at + 8])
        if at + 12 > len(data) or start[4:] == b"IEND":
            break
        at += 12 + int.from_bytes(start[:4], "big")
    return bytes(data[at + 4 : at + 12]) == b"IEND\xaeB`\x82"


def _jpeg_is_complete(data: NDArray[np.uint8]) -> bool:
    """Whether the end mark comes after the start of the pixels; previews before and notes behind do not matter."""
    pixels_at = next((at for marker, at in _jpeg_segments(data) if marker == _JPEG_PIXELS), None)
    return pixels_at is not None and data[pixels_at:].tobytes().rfind(_JPEG_END) >= 0


def _jpeg_size(data: NDArray[np.uint8]) -> tuple[int, int] | None:
    """(height, width) from the first start-of-frame segment, None where there is none."""
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = bytes(data[at + 5 : at + 9])
            return int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")
    return None


def _jpeg_segments(data: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """(marker, where it begins) of each segment, up to that of the pixels."""
    at = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return
        marker, length = int(data[at + 1]), int(data[at + 2]) << 8 | int(data[at + 3])
        if marker != 0xFF:
            yield marker, at
        if marker == _JPEG_PIXELS:
            return
        at += 1 if marker == 0xFF else 2 + length
