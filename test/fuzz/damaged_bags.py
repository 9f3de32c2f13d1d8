"""Read truncated and bit-flipped bags: `python test/fuzz/damaged_bags.py --runs 100000`.

Of every damaged bag either an error names the file, or messages come and whatever is missing is said. Inputs come from
a seeded generator; one that crashed, hung or lost messages without a word is written to the folder of --out.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]  # the tests, and the packages where they are not installed

import numpy as np  # noqa: E402
from mcap_bytes import McapForm, write_mcap  # noqa: E402
from rosbags.rosbag2 import CompressionMode  # noqa: E402
from small_bags import Written, header, image, storage_file, write_ros1, write_ros2  # noqa: E402

from anyseg_ros.bags.reader import BagError, BagReader  # noqa: E402

SLOW_S = 5.0
"""An input that takes longer hangs."""
_MESSAGES = 24


class UnsaidLossError(AssertionError):
    """Messages are missing of a bag that has no problem, or reading it took too long."""


def whole_bags(folder: Path) -> dict[str, bytes]:
    """Small bags of every storage, by the name of their file."""
    written = list(_drive())
    files = {
        "chunks.mcap": write_mcap(folder / "chunks.mcap", written),
        "no_chunks.mcap": write_mcap(folder / "no_chunks.mcap", written, McapForm(is_chunked=False)),
        "no_index.mcap": write_mcap(folder / "no_index.mcap", written, McapForm(has_message_index=False)),
        "zstd.mcap": storage_file(write_ros2(folder / "zstd", written, "mcap", CompressionMode.STORAGE)),
        "rows.db3": storage_file(write_ros2(folder / "rows", written, "sqlite3")),
        "packed.db3.zstd": storage_file(write_ros2(folder / "packed", written, "sqlite3", CompressionMode.FILE)),
        "ros1.bag": write_ros1(folder / "ros1.bag", written),
    }
    return {name: path.read_bytes() for name, path in files.items()}


def _drive() -> Iterator[Written]:
    rng = np.random.default_rng(0)
    for index in range(_MESSAGES):
        stamp = 1_700_000_000_000_000_000 + index * 10**8
        picture = image(rng.integers(0, 255, (4, 6, 3), np.uint8), "rgb8", stamp)
        picture.header = header(stamp)
        yield Written(("/a", "/b")[index % 2], stamp, picture)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Up to four changed bytes or bits, and perhaps an end that is missing."""
    data = bytearray(content)
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(data))
        data[at] = data[at] ^ (1 << rng.randrange(8)) if rng.random() < 0.7 else rng.randrange(256)
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data)


def read_damaged(path: Path) -> str:
    """`refused`, `complete` or `said`; raises UnsaidLossError."""
    started = time.monotonic()
    try:
        reader = BagReader(path)
        delivered = sum(1 for _ in reader.messages({choice.topic for choice in reader.topics}))
    except BagError:
        return "refused"
    finally:
        if time.monotonic() - started > SLOW_S:
            raise UnsaidLossError(f"{path.name} took {time.monotonic() - started:.1f} s")
    if delivered >= _MESSAGES:
        return "complete"
    if not any(problem.lost for problem in reader.problems):
        raise UnsaidLossError(f"{path.name}: {delivered} of {_MESSAGES} messages, {reader.problems}")
    return "said"


def fuzz(runs: int, seed: int, out: Path) -> tuple[Counter[str], list[str]]:
    """Read so many damaged bags; returns what became of them, and the failures."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bags = whole_bags(folder)
        for number in range(runs):
            kind = rng.choice(list(bags))
            path = folder / f"damaged_{kind}"
            path.write_bytes(damaged(bags[kind], rng))
            try:
                outcomes[f"{kind} {read_damaged(path)}"] += 1
            except Exception as error:  # whatever it is, it is what is looked for
                failures.append(f"{number} {kind}: {type(error).__name__}: {error}")
                out.mkdir(parents=True, exist_ok=True)
                (out / f"{number}_{kind}").write_bytes(path.read_bytes())
    return outcomes, failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz as the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/damaged_bags"), help="inputs that failed")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    outcomes, failures = fuzz(options.runs, options.seed, options.out)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:8} {outcome}")
    for failure in failures[:20]:
        print(f"FAILED {failure}")
    print(f"{options.runs} damaged bags in {time.monotonic() - started:.0f} s, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
