"""What a run writes down: TensorBoard's log, a line per validation in `history.jsonl`, and at its end metrics.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from anyseg_core.runtime.files import replace_text
from anyseg_core.training.checkpoint import CheckpointError

HISTORY_NAME, METRICS_NAME = "history.jsonl", "metrics.json"
_ENTRY = {"step": int, "elapsed_s": (int, float), "mean": (int, float), "miou": dict, "iou": dict}
"""What a line of the history holds."""


class RunLog:
    """Writes to a run's folder.

    Args:
        run: the run's folder.
        step: the step that the run begins at; what an earlier attempt wrote after it is forgotten.
    """

    def __init__(self, run: Path, step: int) -> None:
        self.folder = run / "tensorboard"
        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)
        self._history = run / HISTORY_NAME
        kept = [entry for entry in read_history(run) if entry["step"] <= step]
        replace_text(self._history, "".join(json.dumps(entry) + "\n" for entry in kept))

    def scalars(self, values: Mapping[str, float], group: str, step: int) -> None:
        """Curves named `group/name`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """An RGB image [H, W, 3]."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def validation(self, metrics: Mapping[str, Any], step: int, elapsed_s: float) -> None:
        """mIoU per subset, and IoU per class with all sensors where the classes are those of all samples."""
        per_class = {name: iou for name, iou in metrics["iou"].items() if isinstance(iou, float)}
        self.scalars({"mean": metrics["mean"]} | metrics["miou"], "val_miou", step)
        self.scalars(per_class, "val_iou", step)
        entry = {"step": step, "elapsed_s": round(elapsed_s, 1)}
        entry |= {"mean": metrics["mean"], "miou": metrics["miou"], "iou": per_class}
        with self._history.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self._writer.flush()

    def close(self) -> None:
        """Everything is on the disk afterwards."""
        self._writer.close()


def read_history(run: Path) -> list[dict[str, Any]]:
    """The validations of a run, a dict of step, elapsed_s, mean, miou and iou each; nothing where there were none.

    A line that a kill has cut off, or that is damaged, is left out, and told.
    """
    path = run / HISTORY_NAME
    lines = path.read_bytes().splitlines() if path.is_file() else []
    entries = [entry for line in lines if (entry := _entry(line)) is not None]
    if len(entries) < len(lines):
        print(
            f"warning: {len(lines) - len(entries)} of {len(lines)} lines of {path} are damaged or cut off, and left "
            "out: its curves lack these validations; nothing else needs them",
            file=sys.stderr,
        )
    return entries


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in _ENTRY.items())
    return entry if is_whole else None


def write_metrics(run: Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics.json of a run that has come to its end."""
    replace_text(run / METRICS_NAME, json.dumps(metrics, indent=2) + "\n")


def read_metrics(run: Path) -> dict[str, Any]:
    """The inverse; raises CheckpointError where the file is damaged or missing."""
    path = run / METRICS_NAME
    try:
        metrics = json.loads(path.read_bytes())
        if not {"mean", "miou"} <= metrics.keys():
            raise ValueError("mean or miou is missing")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be used ({error}): remove it and resume the run, which writes it again at its end"
        ) from None
    return metrics


def curves(history: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[float | None]]:
    """The values of `miou` or `iou` by name, one per validation; None where a validation has none."""
    names = dict.fromkeys(name for entry in history for name in entry[key])
    return {name: [entry[key].get(name) for entry in history] for name in names}
