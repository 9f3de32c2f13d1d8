"""`python -m anyseg_core.training CONFIG [--resume] [--out FOLDER] [--set key=value ...]`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from anyseg_core.training.process import wait_without_spinning

wait_without_spinning()

from anyseg_core.data.sample import DataError  # noqa: E402
from anyseg_core.training.checkpoint import CheckpointError  # noqa: E402
from anyseg_core.training.config import ConfigError, load_config  # noqa: E402
from anyseg_core.training.loop import TrainingError, train  # noqa: E402
from anyseg_core.training.run_log import read_metrics  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Train from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m anyseg_core.training", description="Train a student.")
    parser.add_argument("config", type=Path, help="YAML file, such as config/train/vehicle_sim.yaml")
    parser.add_argument("--out", type=Path, default=None, help="folder of the run (default: runs/<name>)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        checkpoint = train(load_config(options.config, options.overrides), options.out, resume=options.resume)
    except (ConfigError, DataError, CheckpointError, TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return 0  # the first process reports for all
    metrics = read_metrics(checkpoint.parents[1])
    print(f"{checkpoint}\nmean mIoU over subsets {metrics['mean']}: {metrics['miou']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
