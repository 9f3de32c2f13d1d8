"""The page over HTTP: itself, the newest state as JSON, the newest pictures as JPEG. No ROS."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("page.html")
PICTURES = ("camera", "overlay")
PICTURE_S = 2.0
"""An older picture is not shown as if it were of now."""

REQUEST_S = 10.0
"""A browser that takes longer to ask, or to take its answer, is let go: each holds a thread."""


class WatchError(Exception):
    """The page cannot be served; the message has the remedy."""


class NewestPictures:
    """The newest JPEG of each name, and when a browser asked last, so that nobody works for a page that is closed."""

    def __init__(self) -> None:
        self._jpegs: dict[str, tuple[float, bytes]] = {}
        self._asked_s = float("-inf")

    def put(self, name: str, jpeg: bytes) -> None:
        """Make this the newest one."""
        self._jpegs[name] = time.monotonic(), jpeg

    def drop(self, name: str) -> None:
        """None is better than an old one."""
        self._jpegs.pop(name, None)

    def get(self, name: str) -> bytes | None:
        """The newest one, for a browser; None where there is none, or it is older than `PICTURE_S`."""
        self._asked_s = time.monotonic()
        put_s, jpeg = self._jpegs.get(name, (float("-inf"), None))
        return jpeg if self._asked_s - put_s <= PICTURE_S else None

    def asked_within(self, seconds: float) -> bool:
        """Whether a browser asked for a picture in that time."""
        return time.monotonic() - self._asked_s <= seconds


class PageServer:
    """Serves the page on a thread of its own until `close`.

    Raises WatchError where host and port cannot be listened on.
    """

    def __init__(self, host: str, port: int, state: Callable[[], dict[str, Any]], pictures: NewestPictures) -> None:
        try:
            self._server = _Server((host, port), _handler(state, pictures))
        except (OSError, OverflowError) as error:
            raise WatchError(
                f"cannot serve the page on {host}:{port}: {error}; give another --port (0 takes a free one) or --host"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """One thread a connection; the process ends without waiting for them."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes the page, or is too slow, is no fault; anything else is told as usual."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def _handler(state: Callable[[], dict[str, Any]], pictures: NewestPictures) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_S

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            name = path.removeprefix("/").removesuffix(".jpg")
            if path == "/":
                self._answer(PAGE.read_bytes(), "text/html; charset=utf-8")
            elif path == "/state.json":
                self._answer(json.dumps(state()).encode(), "application/json")
            elif name in PICTURES:
                self._answer(pictures.get(name), "image/jpeg")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, body: bytes | None, content_type: str) -> None:
            self.send_response(HTTPStatus.NO_CONTENT if body is None else HTTPStatus.OK)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body or b"")))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            """Ten requests a second are no news."""

    return Handler
