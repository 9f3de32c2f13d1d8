"""sensor_msgs/CompressedImage -> pixels, as image_transport's own subscribers read them.

`format` is free text in practice. The plugins write `RAW; jpeg compressed ENCODED`: the encoding of the picture before
it was compressed, and that of what was given to the codec; drivers write `jpeg`, or nothing.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.full_scale import FullScale
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.image_files import PNG_MAGIC, ImageFileError, ImageSizeError, decode_picture
from anyseg_ros.messages.conversion_error import ConversionError
from anyseg_ros.messages.pixel_formats import BAYER_TO_RGB, CAMERA_FORMATS, PixelFormat, to_rgb

DEPTH_HEADER = struct.Struct("<iff")
"""What compressed_depth_image_transport puts before the picture: a number, and two parameters of inverse depth."""
_BY_CHANNELS = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
_RAW_DEPTHS = ("", "16UC1", "mono16", "32FC1")


class CompressedFormat(NamedTuple):
    """What the text of a CompressedImage's `format` says."""

    raw: str
    """Encoding of the picture before it was compressed; "" where it is not told."""
    encoded: str
    """Encoding of what was given to the codec; "" where it is not told."""
    codec: str
    """The whole of what says how it is compressed."""

    @property
    def is_rgb(self) -> bool:
        """Whether the codec was given red first and took it for blue."""
        return self.encoded.startswith("rgb")

    @property
    def bayer(self) -> str:
        """The pattern of a mosaic that was compressed as it is, such as `rggb`; "" of other pictures."""
        return self.raw.removeprefix("bayer_")[:4] if self.raw.startswith("bayer_") and not self.encoded else ""


def parse_format(text: str) -> CompressedFormat:
    """`bgr8; jpeg compressed bgr8`, `16UC1; compressedDepth png`, `jpeg`, ... -> what they say."""
    raw, separator, codec = text.partition(";")
    if not separator:
        return CompressedFormat("", "", text.strip())
    return CompressedFormat(raw.strip(), codec.partition("compressed ")[2].strip(), codec.strip())


def rgb_of(data: NDArray[np.uint8], text: str, scale: FullScale | None = None) -> NDArray[np.uint8]:
    """The bytes of a JPEG or PNG and the message's `format` -> RGB [h, w, 3].

    `scale` learns what 16-bit pictures have for white; None: from this one alone. Raises ConversionError.
    """
    said = parse_format(text)
    if said.raw in ("16UC1", "32FC1"):
        raise ConversionError(
            Fault.DECODE_ERROR, f"format {text!r} is depth, not a camera's: set the topic of a depth sensor to it"
        )
    pixels = decoded(data)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return to_rgb(pixels, PixelFormat(pixels.dtype.str, channels, _conversion(said, channels)), scale)


def _conversion(said: CompressedFormat, channels: int) -> int | None:
    """How what the codec gives becomes RGB."""
    if channels == 1 and said.bayer:
        if said.bayer not in BAYER_TO_RGB:
            known = ", ".join(name for name in CAMERA_FORMATS if name.startswith("bayer"))
            raise ConversionError(Fault.DECODE_ERROR, f"a mosaic of {said.raw!r} is not known; known: {known}")
        return BAYER_TO_RGB[said.bayer]
    if said.is_rgb and channels >= 3:
        return None if channels == 3 else cv2.COLOR_RGBA2RGB
    return _BY_CHANNELS[channels]


def metres_of(data: NDArray[np.uint8], text: str) -> NDArray[np.float32]:
    """The bytes of a 16-bit PNG, and the message's `format` -> depth in metres [h, w]; 0 = no measurement.

    16UC1 is in millimetres; 32FC1 is inverse depth, in steps that the header tells. Raises ConversionError.
    """
    said = parse_format(text)
    if "rvl" in said.codec.lower():
        raise ConversionError(
            Fault.DECODE_ERROR,
            "compressed depth as RVL is not read here: set the publisher's parameter <topic>.compressedDepth.format "
            "to png",
        )
    if said.raw not in _RAW_DEPTHS:
        raise ConversionError(
            Fault.DECODE_ERROR,
            f"format {text!r} is no depth; read are 16UC1 (millimetres) and 32FC1 (metres), compressed as 16-bit PNG",
        )
    start = DEPTH_HEADER.size if bytes(data[DEPTH_HEADER.size :][:8]) == PNG_MAGIC else 0
    steps = DEPTH_HEADER.unpack(bytes(data[:start]))[1:] if start else (0.0, 0.0)
    _require_known_unit(said, text, steps)
    values = decoded(data[start:])
    if values.dtype != np.uint16 or values.ndim != 2:
        raise ConversionError(
            Fault.DECODE_ERROR,
            f"compressed depth must be a 16-bit grey PNG, not {values.dtype} of shape {values.shape}",
        )
    return _from_inverse(values, *steps) if said.raw == "32FC1" else values * np.float32(0.001)


def _require_known_unit(said: CompressedFormat, text: str, steps: tuple[float, float]) -> None:
    """Raises ConversionError where nobody can know what the numbers mean."""
    is_inverse = bool(np.isfinite(steps).all()) and steps[0] > 0
    if said.raw == "32FC1" and not is_inverse:
        raise ConversionError(
            Fault.DECODE_ERROR, f"compressed depth of format {text!r} lacks the header that tells its steps; send 16UC1"
        )
    if not said.raw and is_inverse:
        raise ConversionError(
            Fault.DECODE_ERROR,
            f"format {text!r} does not say whether this is 16UC1 in millimetres or inverse depth of 32FC1, as its "
            "header suggests: write `16UC1; compressedDepth png`",
        )


def _from_inverse(values: NDArray[np.uint16], a: float, b: float) -> NDArray[np.float32]:
    """depth = a / (value - b), as compressed_depth_image_transport has it; 0 where there is no measurement."""
    inverse = values.astype(np.float32) - np.float32(b)
    measured = (values > 0) & (inverse > 0)
    return np.where(measured, np.float32(a) / np.where(measured, inverse, 1), 0).astype(np.float32)


def decoded(data: NDArray[np.uint8]) -> NDArray[Any]:
    """JPEG or PNG -> pixels as OpenCV has them, never turned. Raises ConversionError."""
    try:
        return decode_picture(data)
    except ImageFileError as error:
        fault = Fault.WRONG_SIZE if isinstance(error, ImageSizeError) else Fault.DECODE_ERROR
        raise ConversionError(fault, str(error)) from None
