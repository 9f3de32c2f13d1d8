"""The table of forms: every form exported and scored once, timed in turns, and the ones worth having marked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from shapes_dataset import shapes_config, write_shapes

from anyseg_core.benchmarks import pareto
from anyseg_core.benchmarks.pareto import (
    ParetoForm,
    ParetoOptions,
    ParetoRow,
    as_json,
    dominated,
    measure_forms,
    plot,
    table,
)
from anyseg_core.training.loop import train


def row(miou: float | None, ms: float) -> ParetoRow:
    form = ParetoForm("n", Path("n/student.onnx"), (64, 96), 2, "fp32", 4, miou)
    return ParetoRow(form, {"onnxruntime": ([1.0], [ms - 1, ms, ms + 1])})


def test_a_form_is_dominated_by_one_that_sees_more_in_less_time(tmp_path: Path) -> None:
    rows = [row(40, 10), row(30, 12), row(30, 5), row(50, 30), row(None, 1)]
    assert [dominated(entry, rows, "onnxruntime") for entry in rows] == [False, True, False, False, True]
    made = table(rows)
    assert list(made.columns[4].cells) == ["40.0", "30.0", "30.0", "50.0", "-"]
    assert list(made.columns[5].cells)[:2] == ["1.0 (1.0-1.0) / 10.0 (9.1-10.9) *", "1.0 (1.0-1.0) / 12.0 (11.1-12.9)"]
    plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_every_form_is_exported_and_scored_once_and_timed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = shapes_config(write_shapes(tmp_path / "shapes"), budget={"max_steps": 1})
    run = train(config, tmp_path / "run", show_progress=False)
    options = ParetoOptions(((32, 64),), (2,), samples=2, runs=1, threads=1)
    told: list[str] = []

    def copy_trained(folder: Path, *_settings: object) -> None:  # writing another one takes seconds
        shutil.copytree(tmp_path / "out/shapes_32x64_stride2_fp32", folder)

    monkeypatch.setattr(pareto, "write_untrained", copy_trained)
    monkeypatch.setattr(pareto, "MODALITIES", 4)
    rows = measure_forms([run], ["efficientnet_lite0"], options, tmp_path / "out", told.append)
    assert [(entry.form.size, entry.form.miou is None) for entry in rows] == [
        ((32, 64), False),
        ((32, 64), True),
    ]
    assert all(len(times) == 1 and times[0] > 0 for entry in rows for times in entry.engine_ms["onnxruntime"])
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    again = measure_forms([run], ["efficientnet_lite0"], options, tmp_path / "out", told.append)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")} == written
    assert [entry.form.miou for entry in again] == [entry.form.miou for entry in rows]
    assert len(told) == 2
    content = json.loads(as_json(rows, options, "c"))
    assert (content["command"], content["rows"][0]["form"]["size"]) == ("c", [32, 64])
    assert content["machine"]
