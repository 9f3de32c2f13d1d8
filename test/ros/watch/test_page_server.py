"""The page over HTTP, and in a browser."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anyseg_ros.watch import page_server
from anyseg_ros.watch.page_server import NewestPictures, PageServer, WatchError

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
STATE: dict[str, Any] = {
    "node": "/car/segmentation_node",
    "silent_s": 0.1,
    "is_there": True,
    "history_s": 60.0,
    "inference": {"level": "WARN", "message": "segmenting without camera", "latency_ms": "7.5"},
    "engine": {"backend": "onnxruntime", "device": "CPU", "student": "vehicle_sim"},
    "mask": {"used": "depth,lidar", "lost_classes": "without camera: TrafficLight 27 -> 3"},
    "mask_hz": 9.9,
    "sensors": [
        {
            "name": "camera", "state": "failed", "used": "false", "rate_hz": "", "age_ms": "4210.0",
            "fault": "silent", "left_out": "", "remark": "", "message": "failed: <silent> for 4210 ms",
            "spans": [{"state": "failed", "used": False, "from_s": 5.0, "to_s": 0.0}],
        }
    ],
}  # fmt: skip


@pytest.fixture
def pictures() -> NewestPictures:
    return NewestPictures()


@pytest.fixture
def address(pictures: NewestPictures) -> Iterator[str]:
    server = PageServer("127.0.0.1", 0, lambda: STATE, pictures)
    yield f"http://127.0.0.1:{server.port}"
    server.close()


def get(url: str) -> tuple[int, str, bytes]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read()


def test_page_and_state(address: str) -> None:
    status, content_type, body = get(address)
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    assert body.startswith(b"<!doctype html>")
    status, content_type, body = get(f"{address}/state.json?again")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body) == STATE


def test_a_picture_is_the_newest_one_and_none_is_no_picture(address: str, pictures: NewestPictures) -> None:
    assert get(f"{address}/overlay.jpg")[0] == 204
    pictures.put("overlay", b"first")
    pictures.put("overlay", b"second")
    assert get(f"{address}/overlay.jpg") == (200, "image/jpeg", b"second")
    pictures.drop("overlay")
    assert get(f"{address}/overlay.jpg")[0] == 204


def test_an_old_picture_is_not_shown(pictures: NewestPictures, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.put("camera", b"old")
    now_s = time.monotonic()
    monkeypatch.setattr(page_server.time, "monotonic", lambda: now_s + page_server.PICTURE_S + 0.1)
    assert pictures.get("camera") is None


def test_pictures_are_wanted_only_while_somebody_asks(pictures: NewestPictures) -> None:
    assert not pictures.asked_within(1e9)
    pictures.get("camera")
    assert pictures.asked_within(60.0)


@pytest.mark.parametrize("path", ["/secret", "/../setup.py", "/camera.png", "/page.html"])
def test_nothing_else_is_served(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(address + path)


def test_a_browser_that_goes_away_or_never_asks_leaves_no_traceback(
    address: str, pictures: NewestPictures, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once, with a picture larger than the sockets' buffers."""
    pictures.put("overlay", bytes(64 << 20))
    place = ("127.0.0.1", int(address.rpartition(":")[2]))
    before = threading.active_count()
    for request in [b"GET /overlay.jpg HTTP/1.0\r\n\r\n"] * 20 + [b"\x16\x03\x01\x00\r\n\r\n", b"GET\r\n\r\n"]:
        with socket.create_connection(place) as browser:
            browser.sendall(request)
            browser.recv(16)
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # gone: reset
    end = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() == before
    assert get(address)[0] == 200
    assert capfd.readouterr().err == ""


def test_a_browser_that_asks_for_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "REQUEST_S", 0.2)
    server = PageServer("127.0.0.1", 0, lambda: STATE, NewestPictures())
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as browser:
            assert browser.recv(16) == b""
    finally:
        server.close()


def test_a_port_that_is_taken_is_an_error_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(WatchError, match="--port"):
        PageServer("127.0.0.1", taken.getsockname()[1], lambda: STATE, NewestPictures())


@pytest.mark.skipif(BROWSER is None, reason="no chromium: apt install chromium")
def test_a_browser_shows_it_and_runs_no_markup_from_messages(address: str, tmp_path: Path) -> None:
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
    result = subprocess.run(
        [*command, f"--user-data-dir={tmp_path}", "--dump-dom", address],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    page = result.stdout
    assert "segmenting without camera" in page, result.stderr[-2000:]
    assert 'class="verdict WARN"' in page
    assert "9.9 label images/s · vehicle_sim, onnxruntime on CPU · 7.5 ms after the stamp" in page
    assert "failed: &lt;silent&gt; for 4210 ms" in page
    assert "label image of depth, lidar" in page
    assert "without camera: TrafficLight 27 -&gt; 3" in page
    assert "4210 ms" in page
