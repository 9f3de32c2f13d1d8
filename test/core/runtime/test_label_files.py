"""The reader of label images: every form of PNG gives the indices that were written, everything else is named."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.runtime.image_files import ImageFileError, decode_picture
from anyseg_core.runtime.label_files import LabelFileError, check_classes, decode_labels, is_same_view, read_labels

GREY, RGB, PALETTE = 0, 2, 3


def png(indices: NDArray[np.integer], bits: int, color: int = GREY, extra: bytes = b"") -> bytes:
    """A PNG by the letter of its specification, with samples of so many bits."""
    rows = b""
    for row in indices:
        packed = "".join(format(int(value), f"0{bits}b") for value in row)
        packed += "0" * (-len(packed) % 8)
        rows += b"\0" + int(packed, 2).to_bytes(len(packed) // 8, "big")
    header = struct.pack(">IIBBBBB", indices.shape[1], indices.shape[0], bits, color, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(value % 256 for value in range(3 << bits))) if color == PALETTE else b""
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + extra + data + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def labels(most: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, most + 1, (13, 21)).astype(np.uint8)


@pytest.mark.parametrize(
    ("bits", "color"),
    [(1, GREY), (2, GREY), (4, GREY), (8, GREY), (16, GREY), (1, PALETTE), (4, PALETTE), (8, PALETTE)],
)
def test_indices_are_those_that_were_written(bits: int, color: int) -> None:
    written = labels(min((1 << bits) - 1, 255))
    np.testing.assert_array_equal(decode_labels(png(written, bits, color), "a.png"), written)


def test_transparency_and_gamma_change_no_label() -> None:
    extra = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"tRNS", struct.pack(">H", 3))
    written = labels(7)
    np.testing.assert_array_equal(decode_labels(png(written, 8, GREY, extra), "a.png"), written)


@given(share=st.floats(0.0, 0.999))
def test_a_png_that_was_cut_off_is_named(share: float) -> None:
    whole = png(labels(20), 8)
    with pytest.raises(LabelFileError, match=r"^cut\.png"):
        decode_labels(whole[: int(share * len(whole))], "cut.png")


@given(at=st.integers(8, 200), bit=st.integers(0, 7))
def test_a_png_with_a_flipped_bit_is_named(at: int, bit: int) -> None:
    damaged = bytearray(png(labels(20), 8))
    damaged[at] ^= 1 << bit
    with pytest.raises(LabelFileError, match=r"^b\.png"):
        decode_labels(bytes(damaged), "b.png")


def test_what_is_no_label_image_is_refused_with_the_remedy(tmp_path: Path) -> None:
    picture = np.kron(labels(9), np.ones((8, 8))).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    colour = cv2.imencode(".png", np.dstack([picture] * 3))[1].tobytes()
    for content, said in (
        (jpeg, "is a JPEG, whose compression changes class indices"),
        (colour, "import-labels"),
        (b"II*\0" + bytes(50), "is no PNG"),
        (png(labels(9).astype(np.uint16) + 300, 16), "has 16 bits and the label 309"),
    ):
        path = tmp_path / "x.png"
        path.write_bytes(content)
        with pytest.raises(LabelFileError, match=said):
            read_labels(path)
    with pytest.raises(LabelFileError, match="cannot be read: No such file"):
        read_labels(tmp_path / "missing.png")


def test_the_red_channel_counts_where_that_is_the_format() -> None:
    written = labels(20)
    stored = np.dstack([np.full_like(written, 90), np.full_like(written, 80), written])  # OpenCV writes BGR
    content = cv2.imencode(".png", stored)[1].tobytes()
    np.testing.assert_array_equal(decode_labels(content, "a.png", first_channel=True), written)


def test_a_label_that_is_no_class_is_named_with_its_file() -> None:
    check_classes(np.array([[0, 24, 255]], np.uint8), 25, "a.png")
    with pytest.raises(LabelFileError, match=r"a\.png has label 28, but there are 25 classes"):
        check_classes(np.array([[0, 28, 255]], np.uint8), 25, "a.png")
    with pytest.raises(LabelFileError, match="label 4"):
        decode_labels(png(np.array([[4]]), 8), "a.png", 4)


@pytest.mark.parametrize(
    ("other", "same"),
    [((480, 640), True), ((240, 320, 3), True), ((241, 321), True), ((100, 640), False), ((640, 480), False)],
)
def test_pictures_of_one_view_have_one_shape(other: tuple[int, ...], same: bool) -> None:
    assert is_same_view((480, 640), other) is same


def test_a_jpeg_is_never_turned_and_never_half() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32] = 255
    plain = cv2.imencode(".jpg", picture)[1].tobytes()
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + struct.pack("<HHIHH", 0x112, 3, 1, 6, 0) + bytes(4)
    exif = b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    turned = np.frombuffer(plain[:2] + exif + plain[2:], np.uint8)
    for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE):
        assert decode_picture(turned, flags).shape[:2] == (48, 64)
    with pytest.raises(ImageFileError, match="truncated"):
        decode_picture(turned[: int(0.9 * len(turned))])
    noted = np.concatenate([turned, np.frombuffer(b"a note of the camera behind the picture", np.uint8)])
    assert decode_picture(noted).shape == (48, 64, 3)
