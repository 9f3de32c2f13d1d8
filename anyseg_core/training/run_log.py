"""What a run writes down while it trains: TensorBoard's log, and a line per validation in `history.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

HISTORY_NAME = "history.jsonl"


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
        self._history.write_text("".join(json.dumps(entry) + "\n" for entry in kept))

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

    A line that a kill has cut off is left out.
    """
    path = run / HISTORY_NAME
    entries = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def curves(history: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[float | None]]:
    """The values of `miou` or `iou` by name, one per validation; None where a validation has none."""
    names = dict.fromkeys(name for entry in history for name in entry[key])
    return {name: [entry[key].get(name) for entry in history] for name in names}
