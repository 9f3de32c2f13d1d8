"""The one reader of label images: a PNG of class indices -> uint8 [H, W], for bags, replays and every data set.

A label image is a grey or palette PNG of 1 to 16 bits; of a palette the index counts, not the colour. 255 means
unlabelled. What would give wrong classes in silence is refused by name: a JPEG, a truncated file, a label of no class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.files import files_below
from anyseg_core.runtime.image_files import JPEG_MAGIC, PNG_MAGIC, ImageFileError, PngChunk, decode_picture, png_chunks
from anyseg_core.runtime.label_sets import UNLABELLED

Labels = NDArray[np.uint8]
_GREY, _PALETTE = 0, 3
"""Colour types of PNG."""
_ROUNDING_PX = 2.0
"""A picture that was scaled has sides of whole pixels."""


class LabelFileError(ValueError):
    """Labels that cannot be used; the message names the file and the remedy."""


def read_labels(path: Path, num_classes: int | None = None, *, first_channel: bool = False) -> Labels:
    """The label image of a file; see `decode_labels`. Raises LabelFileError, also where the file is missing."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabelFileError(f"{path} cannot be read: {error.strerror}") from None
    return decode_labels(content, str(path), num_classes, first_channel=first_channel)


def decode_labels(content: bytes, name: str, num_classes: int | None = None, *, first_channel: bool = False) -> Labels:
    """A PNG of class indices with 1, 2, 4, 8 or 16 bits -> uint8 [H, W], 255 = unlabelled.

    Args:
        content: the bytes of the file.
        name: of the file, for errors.
        num_classes: where given, every index must be below it, or 255.
        first_channel: of a colour PNG the red channel holds the index, as CARLA and DELIVER write it; else such a PNG
            is refused.

    Raises LabelFileError.
    """
    header, data = _intact_png(content, name)
    depth, color = header[8], header[9]
    if color not in (_GREY, _PALETTE):
        if not first_channel:
            raise LabelFileError(
                f"{name} is a colour PNG, not one of class indices: `anyseg data import-labels` converts colour codes"
            )
        return _within(_decoded(content, name)[..., 2], name, num_classes)  # OpenCV's order: red is the third
    samples = _decoded(_grey_png(header, data), name)
    if depth < 8:  # spread over 0..255 by the decoder
        samples = samples // (255 // ((1 << depth) - 1))
    return _within(samples, name, num_classes)


def files_at_other_depths(folder: Path, ending: str, depth: int) -> list[Path]:
    """Files below `folder` whose names end so and that are not in a folder `depth` below it, sorted: what lies a folder
    too deep is found by nobody who looks at one depth.
    """
    own = len(folder.parts) + depth + 1
    return [path for path in files_below(folder, f"**/*{ending}") if len(path.parts) != own]


def check_classes(labels: Labels, num_classes: int, name: str) -> None:
    """Raises LabelFileError that names a label which is neither a class nor 255."""
    counts = cv2.calcHist([np.ascontiguousarray(labels)], [0], None, [256], [0, 256]).ravel()
    counts[:num_classes] = counts[UNLABELLED] = 0
    wrong = np.flatnonzero(counts)
    if wrong.size:
        raise LabelFileError(
            f"{name} has label {wrong[0]}, but there are {num_classes} classes: 0 to {num_classes - 1}, 255 = "
            "unlabelled. It is of another set of classes, or no label image"
        )


def is_same_view(size: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two images (height, width, ...) can show the same view: one is the other, scaled evenly."""
    (height, width), (other_height, other_width) = size[:2], other[:2]
    return abs(height * other_width - width * other_height) <= _ROUNDING_PX * max(*size[:2], *other[:2])


def _intact_png(content: bytes, name: str) -> tuple[bytes, list[PngChunk]]:
    """The header's content and the data chunks of a whole PNG."""
    if content.startswith(JPEG_MAGIC):
        raise LabelFileError(f"{name} is a JPEG, whose compression changes class indices: save labels as PNG")
    if not content.startswith(PNG_MAGIC):
        raise LabelFileError(f"{name} is no PNG: labels are PNGs of class indices, 255 = unlabelled")
    chunks = list(png_chunks(content))
    if not chunks or chunks[-1].kind != b"IEND" or chunks[0].kind != b"IHDR" or len(chunks[0].content) != 13:
        raise LabelFileError(f"{name} is truncated: {len(content)} bytes of a PNG without its end. Copy it again")
    if not all(chunk.is_intact for chunk in chunks):
        raise LabelFileError(f"{name} is damaged: a checksum in it is wrong. Copy it again")
    return chunks[0].content, [chunk for chunk in chunks if chunk.kind == b"IDAT"]


def _grey_png(header: bytes, data: list[PngChunk]) -> bytes:
    """The same samples as a grey PNG: without palette, transparency and colour profile, which are no labels."""
    chunks = [_chunk(b"IHDR", header[:9] + bytes([_GREY]) + header[10:])]
    chunks += [_chunk(part.kind, part.content) for part in data]
    return PNG_MAGIC + b"".join([*chunks, _chunk(b"IEND", b"")])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + crc32(kind + content).to_bytes(4, "big")


def _decoded(content: bytes, name: str) -> NDArray[Any]:
    try:
        return decode_picture(np.frombuffer(content, np.uint8))
    except ImageFileError as error:
        raise LabelFileError(f"{name}: {error}") from None


def _within(samples: NDArray[Any], name: str, num_classes: int | None) -> Labels:
    """Samples of 8 or 16 bits -> labels."""
    if samples.dtype != np.uint8 and samples.max() > UNLABELLED:
        raise LabelFileError(f"{name} has 16 bits and the label {samples.max()}: class indices are below 255")
    labels = np.ascontiguousarray(samples, np.uint8)
    if num_classes is not None:
        check_classes(labels, num_classes, name)
    return labels
