"""Speed of EVT3 decoding, beside the obvious Python loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from anyseg_core.runtime import event_kernel
from anyseg_core.runtime.events import EventDecoder
from anyseg_ros.bench.results import Benchmark, Figure

WIDTH, HEIGHT = 1280, 720
REPEATS = 9
BAR = 50.0
"""Million events a second on one core."""


def run(console: Console, json_path: Path | None = None) -> Benchmark:
    """Measures dense and sparse streams, in one piece and in packets, prints the table, writes it where asked."""
    bench = Benchmark("EVT3 decoding, one core")
    streams = {"dense (vectors)": synthetic_stream(150_000, 4), "sparse (single events)": synthetic_stream(300_000, 0)}
    compiled = event_kernel.compiled()
    for name, stream in streams.items():
        _rate(bench, f"{name}: decoder", lambda data=stream: _decode(data, len(data)), REPEATS, bar=BAR)
        _rate(bench, f"{name}: decoder, packets of 2 kB", lambda data=stream: _decode(data, 2048), REPEATS)
        loop = _rate(bench, f"{name}: Python loop", lambda data=stream[:100_000]: _python_loop(data), 3)
        ratio = bench.figures[-3].percentile(50) / loop.percentile(50)
        bench.notes.append(
            f"{name}: {len(stream) / 2 / _decode(stream, len(stream)):.2f} words an event, {ratio:.0f} x the loop"
        )
    bench.notes.append("numba: " + ("used" if compiled else "not installed; the numpy form was measured"))
    bench.print(console)
    if json_path:
        bench.write(json_path)
    return bench


def synthetic_stream(rows: int, vectors: int, seed: int = 0) -> bytes:
    """EVT3 bytes: a time and a row address, then `vectors` vectors of 12 half full, or a single event where 0."""
    random = np.random.default_rng(seed)
    us = 5 * np.arange(rows)
    words = np.empty((rows, 4 + vectors), np.uint16)
    words[:, 0], words[:, 1] = 0x8000 | us >> 12 & 0xFFF, 0x6000 | us & 0xFFF
    words[:, 2] = random.integers(0, HEIGHT, rows)
    x, polarity = random.integers(0, WIDTH - 12 * vectors, rows), random.integers(0, 2, rows) << 11
    words[:, 3] = (0x3000 if vectors else 0x2000) | polarity | x
    words[:, 4:] = 0x4000 | random.integers(0, 1 << 12, (rows, vectors))
    is_news = np.ones(words.shape, np.bool_)
    is_news[1:, 0] = words[1:, 0] != words[:-1, 0]  # the upper time bits only where they change
    return words[is_news].astype("<u2").tobytes()


def _decode(stream: bytes, packet_bytes: int) -> int:
    decoder = EventDecoder("evt3", WIDTH, HEIGHT)
    return sum(len(decoder.decode(stream[at : at + packet_bytes])) for at in range(0, len(stream), packet_bytes))


def _python_loop(stream: bytes) -> int:
    """Events found by a loop that does what the format's description says, word by word."""
    events: list[tuple[int, int, int, int]] = []
    y = base = polarity = high = low = 0
    for word in memoryview(stream).cast("H"):
        kind, content = word >> 12, word & 0xFFF
        if kind == 0x0:
            y = content & 0x7FF
        elif kind == 0x2:
            events.append((content & 0x7FF, y, content >> 11, (high << 12 | low) * 1000))
        elif kind == 0x3:
            base, polarity = content & 0x7FF, content >> 11
        elif kind == 0x4:
            events += [(base + i, y, polarity, (high << 12 | low) * 1000) for i in range(12) if content >> i & 1]
            base += 12
        elif kind == 0x6:
            low = content
        elif kind == 0x8:
            high = content
    return len(events)


def _rate(bench: Benchmark, name: str, decode: Callable[[], int], repeats: int, bar: float | None = None) -> Figure:
    """Million events a second of processor time, so that a busy machine does not count."""
    decode()
    samples = []
    for _ in range(repeats):
        start = time.process_time()
        events = decode()
        samples.append(events / (time.process_time() - start) / 1e6)
    if bar is None:
        return bench.add(name, "M events/s", samples)
    return bench.add(name, "M events/s", samples, f"p50 >= {bar:g}", float(np.median(samples)) >= bar)
