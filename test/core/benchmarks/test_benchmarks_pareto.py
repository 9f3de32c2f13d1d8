"""The table of forms: every form measured once, and the ones worth having marked."""

from __future__ import annotations

import json
from pathlib import Path

from shapes_dataset import shapes_config, write_shapes

from anyseg_core.benchmarks.pareto import ParetoOptions, ParetoRow, as_json, dominated, measure_forms, table
from anyseg_core.training.loop import train


def row(miou: float, ms: float) -> ParetoRow:
    return ParetoRow("n", (64, 96), 2, miou, {"onnxruntime": (1.0, ms)})


def test_a_form_is_dominated_by_one_that_sees_more_in_less_time() -> None:
    rows = [row(40, 10), row(30, 12), row(30, 5), row(50, 30)]
    assert [dominated(entry, rows, "onnxruntime") for entry in rows] == [False, True, False, False]
    assert table(rows).row_count == 4


def test_every_form_is_exported_once_and_measured(tmp_path: Path) -> None:
    config = shapes_config(write_shapes(tmp_path / "shapes"), budget={"max_steps": 1})
    run = train(config, tmp_path / "run", show_progress=False)
    options = ParetoOptions(((64, 64), (32, 64)), (2,), samples=2, runs=1)
    told: list[str] = []
    rows = measure_forms([run], options, tmp_path / "out", told.append)
    assert [(entry.size, entry.label_stride) for entry in rows] == [((64, 64), 2), ((32, 64), 2)]
    assert all(0 <= entry.miou <= 100 and min(entry.engine_ms["onnxruntime"]) > 0 for entry in rows)
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model.json")}
    measure_forms([run], options, tmp_path / "out", told.append)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model.json")} == written
    assert len(told) == 4
    assert json.loads(as_json(rows, options, "c"))["rows"][0]["size"] == [64, 64]
