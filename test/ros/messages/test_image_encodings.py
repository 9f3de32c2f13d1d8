"""Encodings that camera and depth drivers use, raw and compressed: the right colours and metres come out."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from anyseg_core.runtime.full_scale import GREY_16_SCALES, FullScale
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.messages import conversions
from anyseg_ros.messages.conversions import ConversionError
from anyseg_ros.messages.pixel_formats import BAYER_TO_RGB
from anyseg_ros.messages.sensor_messages import COMPRESSED_IMAGE, IMAGE, reader_of

HEADER = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=0), frame_id="optical")
RED, BLUE = (200, 40, 20), (20, 40, 200)
YUV_RED = (81, 90, 240)
"""Pure red in BT.601 of limited range, as cameras send it: Y, U, V."""


def image(pixels: np.ndarray, encoding: str, height: int | None = None) -> Any:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    return SimpleNamespace(
        header=HEADER, encoding=encoding, height=height or len(pixels), width=pixels.shape[1],
        step=rows.shape[1], is_bigendian=0, data=rows.tobytes(),
    )  # fmt: skip


def compressed(pixels: np.ndarray, kind: str, text: str, header: bytes = b"") -> Any:
    options = [cv2.IMWRITE_JPEG_QUALITY, 100] if kind == ".jpg" else []
    return SimpleNamespace(header=HEADER, format=text, data=header + cv2.imencode(kind, pixels, options)[1].tobytes())


def red_and_blue(size: int = 32) -> np.ndarray:
    """RGB [size, size, 3], red at the left and blue at the right."""
    rgb = np.empty((size, size, 3), np.uint8)
    rgb[:, : size // 2], rgb[:, size // 2 :] = RED, BLUE
    return rgb


def mosaic_of(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor measures behind such filters: `pattern` is the first row and the second."""
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for number, letter in enumerate(pattern):
        at = slice(number // 2, None, 2), slice(number % 2, None, 2)
        mosaic[at] = rgb[..., "rgb".index(letter)][at]
    return mosaic


def assert_red_and_blue(frame: Any, tolerance: float = 3) -> None:
    half = frame.data.shape[1] // 2
    left, right = frame.data[2:-2, 2 : half - 3], frame.data[2:-2, half + 3 : -2]
    np.testing.assert_allclose(left.mean((0, 1)), RED, atol=tolerance)
    np.testing.assert_allclose(right.mean((0, 1)), BLUE, atol=tolerance)


@pytest.mark.parametrize("pattern", BAYER_TO_RGB)
def test_a_bayer_mosaic_has_the_colours_of_its_pattern(pattern: str) -> None:
    mosaic = mosaic_of(red_and_blue(), pattern)
    assert_red_and_blue(conversions.camera_frame(image(mosaic, f"bayer_{pattern}8")))
    assert_red_and_blue(conversions.camera_frame(image(mosaic * np.uint16(257), f"bayer_{pattern}16")))
    for text in (f"bayer_{pattern}8; jpeg compressed ", f"bayer_{pattern}8; jpeg compressed"):
        assert_red_and_blue(conversions.compressed_camera_frame(compressed(mosaic, ".jpg", text)))
    deep = compressed(mosaic * np.uint16(257), ".png", f"bayer_{pattern}16; png compressed ")
    assert_red_and_blue(conversions.compressed_camera_frame(deep))


def test_a_mosaic_that_its_publisher_has_made_colours_of_is_taken_as_it_is() -> None:
    sent = compressed(red_and_blue()[..., ::-1], ".jpg", "bayer_rggb8; jpeg compressed bgr8")
    assert_red_and_blue(conversions.compressed_camera_frame(sent))


def test_a_mosaic_without_colours_is_refused() -> None:
    with pytest.raises(ConversionError, match="2x2 has no colours"):
        conversions.camera_frame(image(np.zeros((2, 2), np.uint8), "bayer_rggb8"))
    with pytest.raises(ConversionError, match="'bayer_xxxx8' is not known; known: bayer_rggb8"):
        conversions.compressed_camera_frame(
            compressed(np.zeros((8, 8), np.uint8), ".jpg", "bayer_xxxx8; jpeg compressed ")
        )


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuyv", "yuyv"), ("yuv422_yuy2", "yuyv")]
)
def test_yuv_in_twos(encoding: str, order: str) -> None:
    y, u, v = YUV_RED
    two = {"uyvy": [[u, y], [v, y]], "yuyv": [[y, u], [y, v]]}[order]
    pixels = np.tile(np.array(two, np.uint8), (4, 3, 1))  # [4, 6, 2]
    rgb = conversions.camera_frame(image(pixels, encoding)).data
    assert rgb.shape == (4, 6, 3)
    np.testing.assert_allclose(rgb.reshape(-1, 3), [(254, 0, 0)] * 24, atol=2)


@pytest.mark.parametrize(("encoding", "order"), [("nv12", (1, 2)), ("nv21", (2, 1))])
def test_yuv_with_colours_below(encoding: str, order: tuple[int, int]) -> None:
    grey = np.full((4, 6), YUV_RED[0], np.uint8)
    colours = np.tile(np.array([YUV_RED[i] for i in order], np.uint8), (2, 3))  # [2, 6]
    rgb = conversions.camera_frame(image(np.vstack([grey, colours]), encoding, height=4)).data
    np.testing.assert_allclose(rgb.reshape(-1, 3), [(254, 0, 0)] * 24, atol=2)


@pytest.mark.parametrize(("encoding", "size"), [("yuyv", (4, 5)), ("nv12", (3, 4)), ("nv21", (4, 5))])
def test_pixels_that_share_colours_come_in_twos(encoding: str, size: tuple[int, int]) -> None:
    with pytest.raises(ConversionError, match="sizes are even"):
        conversions.camera_frame(image(np.zeros((*size, 2), np.uint8), encoding))


@pytest.mark.parametrize(
    ("encoding", "channels"),
    [
        ("8UC3", "bgr"), ("8UC4", "bgra"), ("8UC1", "g"),
        ("rgb16", "rgb"), ("bgr16", "bgr"), ("rgba16", "rgba"), ("bgra16", "bgra"), ("mono16", "g"),
    ],
)  # fmt: skip
def test_other_orders_and_depths(encoding: str, channels: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    expected = np.repeat(rgb[..., 1:2], 3, axis=-1) if channels == "g" else rgb
    rgba = np.dstack([rgb, rgb[..., :1]])
    sent = np.dstack([rgba[..., "rgba".index(letter)] for letter in channels])
    sent = sent * np.uint16(257) if "16" in encoding else sent
    read = conversions.camera_frame(image(sent[..., 0] if channels == "g" else sent, encoding)).data
    np.testing.assert_array_equal(read, expected)


def test_an_encoding_that_is_not_that_of_the_rows_is_refused() -> None:
    rgb = np.zeros((4, 50, 3), np.uint8)
    for encoding in ("mono8", "bayer_rggb8", "yuyv", "mono16"):
        with pytest.raises(ConversionError, match="another encoding than it sends") as raised:
            conversions.camera_frame(image(rgb, encoding))
        assert raised.value.fault is Fault.WRONG_SIZE


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "nv24", "32SC1", "yuv444", ""])
def test_other_encodings_of_a_camera_are_named_with_the_known_ones(encoding: str) -> None:
    with pytest.raises(ConversionError, match=f"encoding '{encoding}' is not known; known here: rgb8, .*bayer_grbg16"):
        conversions.camera_frame(image(np.zeros((4, 4, 4), np.uint8), encoding))


# --- 16 bits of which a camera uses fewer ----------------------------------------------------------------------------


def ramp(bits: int) -> np.ndarray:
    return np.tile(np.linspace(0, 2**bits - 1, 64).astype(np.uint16), (8, 1))


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_bits_of_a_camera_are_learnt(bits: int) -> None:
    sent = compressed(ramp(bits), ".png", "mono16; png compressed ")
    for frame in (reader_of(Sensor.CAMERA, IMAGE)(image(ramp(bits), "mono16")),
                  reader_of(Sensor.CAMERA, COMPRESSED_IMAGE)(sent)):  # fmt: skip
        assert (frame.data.min(), frame.data.max()) == (0, 255)


def test_white_may_be_set_and_never_falls() -> None:
    read = reader_of(Sensor.CAMERA, IMAGE, 65535.0)
    assert read(image(ramp(12), "mono16")).data.max() == 15
    read = reader_of(Sensor.CAMERA, IMAGE)
    for _ in range(3):
        assert read(image(ramp(16), "mono16")).data.max() == 255
    for _ in range(9):  # the light goes out
        assert read(image(ramp(12), "mono16")).data.max() == 15


def test_one_torn_picture_teaches_nothing() -> None:
    scale = FullScale(GREY_16_SCALES)
    for _ in range(3):
        scale.learn(ramp(12))
    assert scale.learn(ramp(16)) == 4095
    assert FullScale(GREY_16_SCALES).learn(np.zeros(4, np.uint16)) == 0


def test_a_black_picture_is_black() -> None:
    assert not reader_of(Sensor.CAMERA, IMAGE)(image(np.zeros((4, 4), np.uint16), "mono16")).data.any()


# --- what `format` says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [".jpg", ".png"])
@pytest.mark.parametrize("encoded", ["rgb8", "bgr8"])
def test_red_is_red_in_whatever_order_the_codec_was_given_it(kind: str, encoded: str) -> None:
    given = red_and_blue() if encoded == "rgb8" else red_and_blue()[..., ::-1]
    for raw in ("rgb8", "bgr8"):
        sent = compressed(given, kind, f"{raw}; {kind[1:].replace('jpg', 'jpeg')} compressed {encoded}")
        assert_red_and_blue(conversions.compressed_camera_frame(sent), tolerance=6)


@pytest.mark.parametrize("text", ["jpeg", "", "bgr8; jpeg compressed ", "rgb8; jpeg", "yuyv; jpeg compressed bgr8"])
def test_a_jpeg_by_itself_has_its_own_colours(text: str) -> None:
    frame = conversions.compressed_camera_frame(compressed(red_and_blue()[..., ::-1], ".jpg", text))
    assert_red_and_blue(frame, tolerance=6)


@pytest.mark.parametrize("text", ["16UC1; png compressed ", "32FC1; compressedDepth png"])
def test_depth_is_no_camera(text: str) -> None:
    with pytest.raises(ConversionError, match="is depth, not a camera's"):
        conversions.compressed_camera_frame(compressed(ramp(16), ".png", text))


@pytest.mark.parametrize(
    ("start", "name"),
    [(b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"RIFF....WEBP", "WebP"), (b"\0\0\0\x01g", "H.264")],
)
def test_what_else_a_driver_may_send_is_named(start: bytes, name: str) -> None:
    message = SimpleNamespace(header=HEADER, format="jxl", data=start + bytes(64))
    with pytest.raises(ConversionError, match=f"{name}.*have the driver send JPEG or PNG"):
        conversions.compressed_camera_frame(message)


def jpeg() -> bytes:
    return cv2.imencode(".jpg", red_and_blue(64))[1].tobytes()


@pytest.mark.parametrize("after", [b"", bytes(500), b"\r\n", b"\n\0\xff", b"--boundary\r\n"])
def test_a_jpeg_is_whole_whatever_comes_after_its_end(after: bytes) -> None:
    message = SimpleNamespace(header=HEADER, format="jpeg", data=jpeg() + after)
    assert conversions.compressed_camera_frame(message).data.shape == (64, 64, 3)


@pytest.mark.parametrize("after", [b"", bytes(500), b"\r\n"])
def test_a_jpeg_that_is_cut_is_not_whole(after: bytes) -> None:
    message = SimpleNamespace(header=HEADER, format="jpeg", data=jpeg()[:-40] + after)
    with pytest.raises(ConversionError, match="truncated"):
        conversions.compressed_camera_frame(message)


def test_a_picture_is_not_turned_as_its_exif_says() -> None:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    exif = b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    whole = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    turned = cv2.imdecode(np.frombuffer(whole[:2] + exif + whole[2:], np.uint8), cv2.IMREAD_COLOR)
    assert turned is not None
    assert turned.shape == (64, 48, 3)
    message = SimpleNamespace(header=HEADER, format="jpeg", data=whole[:2] + exif + whole[2:])
    assert conversions.compressed_camera_frame(message).data.shape == (48, 64, 3)


# --- compressed depth ------------------------------------------------------------------------------------------------


def test_inverse_depth_is_read_by_the_steps_of_its_header() -> None:
    depth_m = np.linspace(0.5, 9.5, 48, dtype=np.float32).reshape(6, 8)
    a = 100.0 * (100.0 + 1.0)  # compressed_depth_image_transport: depth quantisation 100, depth_max 10
    b = 1.0 - a / 10.0
    values = np.round(a / depth_m + b).astype(np.uint16)
    values[0, 0] = 0  # not measured
    sent = compressed(values, ".png", "32FC1; compressedDepth png", struct.pack("<iff", 0, a, b))
    read = conversions.compressed_depth_frame(sent).data
    assert read[0, 0] == 0
    np.testing.assert_allclose(read.ravel()[1:], depth_m.ravel()[1:], rtol=5e-3)


@pytest.mark.parametrize("text", ["16UC1; compressedDepth", "16UC1; compressedDepth png", "16UC1; png compressed ", ""])
@pytest.mark.parametrize("header", [b"", bytes(12)])
def test_millimetres_in_png(text: str, header: bytes) -> None:
    millimetres = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
    read = conversions.compressed_depth_frame(compressed(millimetres, ".png", text, header)).data
    np.testing.assert_allclose(read, millimetres / 1000)


@pytest.mark.parametrize(
    ("text", "header", "words"),
    [
        ("16UC1; compressedDepth rvl", b"", "RVL is not read here: set .*compressedDepth.format to png"),
        ("32FC1; compressedDepth png", b"", "lacks the header"),
        ("32FC1; compressedDepth png", struct.pack("<iff", 0, float("nan"), 1.0), "lacks the header"),
        ("png", struct.pack("<iff", 0, 1000.0, 1.0), "does not say whether this is 16UC1"),
        ("rgb8; png compressed bgr8", b"", "is no depth"),
    ],
)
def test_depth_whose_unit_is_not_known_is_refused(text: str, header: bytes, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        conversions.compressed_depth_frame(compressed(np.ones((4, 4), np.uint16), ".png", text, header))


@pytest.mark.parametrize("encoding", ["mono16", "32SC1", "64FC1", "16FC1"])
def test_other_encodings_of_depth_are_named(encoding: str) -> None:
    with pytest.raises(ConversionError, match=f"'{encoding}' is not known; known here: 16UC1, 32FC1"):
        conversions.depth_frame(image(np.zeros((4, 4, 8), np.uint8), encoding))
