"""Malformed messages of every type through the robot's path: refused as documented, or read; never anything else.

`make fuzz` calls the same targets a million times, guided by coverage.
"""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from camera_infos import camera_info
from fuzz.byte_source import ByteSource
from fuzz.run import main as fuzz
from fuzz.targets import NETWORK_SIZE, SPECS, TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.input_images import InputError, encode_frame
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.messages import conversions
from anyseg_ros.messages.conversions import ConversionError

HEADER = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2), frame_id="optical")
PNG_START = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "pipeline"])
@settings(max_examples=60)
@given(data=st.binary(max_size=700))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # absurd coordinates overflow, and are then clipped
def test_a_malformed_message_is_read_or_refused(name: str, data: bytes) -> None:
    TARGETS[name](ByteSource(data))


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("event stream", "pipeline")])
def test_every_target_reaches_both_ends(name: str) -> None:
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        outcomes = {TARGETS[name](ByteSource(rng.bytes(300))) for _ in range(300)}
    assert outcomes == {True, False}


def test_the_fuzzer_runs_without_atheris_and_keeps_what_fails(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fuzz(["--plain", "--runs", "50", "--corpus", str(tmp_path)]) == 0
    assert "50 inputs" in capfd.readouterr().out

    def broken(_data: bytes) -> tuple[str, bool]:
        raise ZeroDivisionError("found")

    monkeypatch.setattr("fuzz.targets.run_target", broken)
    assert fuzz(["--plain", "--runs", "1", "--corpus", str(tmp_path)]) == 1
    assert "ZeroDivisionError: found" in capfd.readouterr().out
    assert len(list(tmp_path.glob("failure-*"))) == 1


# --- what fuzzing has found ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_rows_that_do_not_begin_at_whole_values_are_read(encoding: str) -> None:
    size = {"32FC1": 4, "16UC1": 2}[encoding]
    step = 5 * size + 1
    values = np.arange(15, dtype=f"<u{size}").reshape(3, 5)
    data = b"".join(row.tobytes() + b"\xff" for row in values)
    message = SimpleNamespace(header=HEADER, encoding=encoding, is_bigendian=0, width=5, height=3, step=step, data=data)
    frame = conversions.depth_frame(message)
    np.testing.assert_array_equal(conversions.image_view(message, (encoding,)).view(f"u{size}"), values)
    assert encode_frame(frame, SPECS[Sensor.DEPTH], NETWORK_SIZE).shape == (*NETWORK_SIZE, 3)


def chunk(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    """A PNG chunk, which may lie about its length."""
    head = struct.pack(">I", len(content) if length is None else length)
    return head + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    "chunks",
    [
        chunk(b"IDAT", b"x" * 600, length=3_900_000_000) + chunk(b"IEND", b""),  # OpenCV would get 3.9 GB for it
        chunk(b"tEXt", b"") * 70_000 + chunk(b"IEND", b""),
    ],
    ids=["a chunk of 4 GB", "endless chunks"],
)
def test_a_png_that_lies_about_its_chunks_is_refused_before_it_is_decoded(
    chunks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Any] = []
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decoded.append(arguments))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 17, 12, 8, 2, 0, 0, 0))
    message = SimpleNamespace(header=HEADER, format="png", data=PNG_START + header + chunks)
    with pytest.raises(ConversionError, match="truncated") as raised:
        conversions.compressed_camera_frame(message)
    assert raised.value.fault is Fault.DECODE_ERROR
    assert not decoded


def test_a_jpeg_of_endless_padding_is_refused() -> None:
    message = SimpleNamespace(header=HEADER, format="jpeg", data=b"\xff\xd8" + b"\xff" * 1_000_000 + b"\xff\xd9")
    with pytest.raises(ConversionError, match="corrupt header"):
        conversions.compressed_camera_frame(message)


K = [16.0, 0.0, 15.5, 0.0, 16.0, 11.5, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": [5e-324, *K[1:]]}, "do not belong to 32 px"),
        ({"k": [*K[:4], 1e300, *K[5:]]}, "do not belong to 24 px"),
        ({"k": [*K[:2], 1e308, *K[3:]]}, "do not belong to 32 px"),
        ({"width": 2**32 - 1}, "larger than any sensor's"),
        ({"k": [float("nan"), *K[1:]]}, "must be finite"),
    ],
)
def test_intrinsics_of_no_lens_are_refused(changes: dict[str, Any], words: str) -> None:
    message = camera_info(**{"width": 32, "height": 24, "k": K, **changes})
    with pytest.raises(ConversionError, match=words):
        conversions.pinhole_camera(message)


def test_what_cannot_be_encoded_is_named_and_ends_no_thread() -> None:
    lens = PinholeCamera(2**31, 24, 5e-324, 16.0, 15.5, 11.5)  # by parameters: no camera_info says so
    frame = SensorFrame(Sensor.LIDAR, np.ones((5, 4), np.float32), 0)
    with pytest.raises(InputError, match=r"lidar frame of shape \(5, 4\) cannot be encoded"):
        encode_frame(frame, SPECS[Sensor.LIDAR], NETWORK_SIZE, Rig(lens))
