"""What `from anyseg_core import ...` gives, and arrays in, labels out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repository import REPOSITORY
from toy_student import write_toy_student

import anyseg_core
from anyseg_core import Segmenter, Sensor, SensorFrame
from anyseg_core.runtime.input_images import InputError

RGB = np.zeros((48, 64, 3), np.uint8)
METRES = np.full((48, 64), 5.0, np.float32)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter.open(write_toy_student(tmp_path_factory.mktemp("students") / "toy"))


def test_everything_that_is_promised_is_there() -> None:
    assert all(getattr(anyseg_core, name).__name__ == name for name in anyseg_core.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Segmentr'"):
        _ = anyseg_core.Segmentr  # type: ignore[attr-defined]


def test_arrays_are_segmented_as_frames_are(segmenter: Segmenter) -> None:
    frames = {Sensor(n): SensorFrame(Sensor(n), data, 0) for n, data in {"camera": RGB, "depth": METRES}.items()}
    wanted = segmenter.segment(frames)
    given = segmenter.segment_arrays(camera=RGB, depth=METRES)
    np.testing.assert_array_equal(given.labels, wanted.labels)
    assert given.modalities == ("camera", "depth")


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"sonar": RGB}, "sonar: student .* has no such sensor; it takes camera, depth"),
        ({"camera": RGB[..., 0]}, r"camera: must be uint8 of shape \[any, any, 3\], not uint8 of shape \[48, 64\]"),
        ({"camera": RGB / 255}, "camera: must be uint8 .*not float64"),
        ({"camera": RGB, "depth": METRES.astype(np.uint16)}, "depth: must be float32 .*not uint16"),
        ({"depth": [1, 2]}, "depth: must be float32"),
        ({"camera": RGB[:0]}, "camera frame is empty"),
        ({}, "no frame|nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_an_error_names_the_argument(segmenter: Segmenter, arrays: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        segmenter.segment_arrays(**arrays)


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    notebook = REPOSITORY / "docs" / "notebooks" / "from_arrays_to_a_mask.py"
    assert notebook.read_text().startswith("# ---\n# jupyter:")
    done = subprocess.run([sys.executable, notebook], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "made from camera, depth" in done.stdout
    assert "depth alone:" in done.stdout
    assert (tmp_path / "mask.png").stat().st_size > 0


def test_the_example_of_the_reference_runs(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "reference" / "python.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "depth" in done.stdout
