"""Fuzz the conversions and the event decoders: `python test/fuzz/run.py --runs 1000000`, or `make fuzz`.

With atheris (coverage-guided; `pip install atheris`, Python 3.11 or newer) libFuzzer looks for inputs that reach new
code. Without it, or with --plain, inputs come from a seeded generator. The exit code is 0 when all inputs passed; an
input that did not is written to the folder of --corpus and its error printed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]  # the tests, and the packages where they are not installed

INSTRUMENTED = [
    "anyseg_ros.messages.conversions",
    *(f"anyseg_core.runtime.{m}" for m in ("events", "event_codecs", "event_stream")),
]
"""Where new code is looked for: instrumenting everything makes a run five times as long."""
MAX_BYTES = 768
SLOW_S = 60
"""An input that takes longer hangs; generous, as libFuzzer's clock runs on while others have the processor."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz as the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="inputs in total")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=Path("out/fuzz"), help="inputs found so far; grows")
    parser.add_argument("--plain", action="store_true", help="no coverage, even where atheris is installed")
    options = parser.parse_args(arguments)
    options.corpus.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", RuntimeWarning)  # overflows of absurd coordinates are expected
    if options.plain or find_spec("atheris") is None:
        return _fuzz_plainly(options.runs, options.seed, options.corpus)
    return _fuzz_by_coverage(options.runs, options.seed, options.corpus)


class _Tally:
    """How many inputs each target got and how many of them it refused."""

    def __init__(self) -> None:
        self.inputs: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._start_s = time.monotonic()

    def add(self, name: str, refused: bool) -> None:
        self.inputs[name] += 1
        self.refused[name] += refused

    def report(self) -> None:
        """Print what was done."""
        total, seconds = self.inputs.total(), time.monotonic() - self._start_s
        for name, count in sorted(self.inputs.items()):
            print(f"{name:20} {count:9} inputs, {self.refused[name] / count:4.0%} refused")
        print(f"{'all':20} {total:9} inputs in {seconds:.0f} s ({total / max(seconds, 1e-9):.0f}/s)", flush=True)


def _fuzz_plainly(runs: int, seed: int, corpus: Path) -> int:
    """Seeded random inputs; the decoders' own complaints on stderr are silenced."""
    rng, tally, failures = random.Random(seed), _Tally(), 0
    silenced = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silenced, 2)
    try:
        for _ in range(runs):
            failures += not _passes(rng.randbytes(rng.choice((16, 64, 200, MAX_BYTES))), tally, corpus)
    except KeyboardInterrupt:
        print("interrupted")
    tally.report()
    return 1 if failures else 0


def _passes(data: bytes, tally: _Tally, corpus: Path) -> bool:
    """Whether an input is read or refused, in time; one that is not is kept."""
    from fuzz.targets import run_target

    begin_s = time.process_time()
    problem = ""
    try:
        tally.add(*run_target(data))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if time.process_time() - begin_s > SLOW_S:
        problem += f" took {time.process_time() - begin_s:.0f} s"
    if problem:
        print(f"{problem}: {_kept(data, corpus)}", flush=True)
    return not problem


def _kept(data: bytes, corpus: Path) -> Path:
    path = corpus / f"failure-{hashlib.sha1(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def _fuzz_by_coverage(runs: int, seed: int, corpus: Path) -> int:
    """libFuzzer, which ends this process itself, whatever it has found."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz.targets import run_target
    tally = _Tally()

    def one_input(data: bytes) -> None:
        tally.add(*run_target(data))
        if tally.inputs.total() == runs:
            tally.report()

    libfuzzer = [f"-runs={runs}", f"-seed={seed + 1}", f"-max_len={MAX_BYTES}", f"-timeout={SLOW_S}", "-len_control=0"]
    # close_fd_mask=2: JPEG and PNG decoders complain on stderr; the memory of a picture of 8192x8192 is no leak.
    libfuzzer += ["-rss_limit_mb=4096", "-close_fd_mask=2", f"-artifact_prefix={corpus}/failure-", str(corpus)]
    atheris.Setup([sys.argv[0], *libfuzzer], one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
