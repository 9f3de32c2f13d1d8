"""The golden replay: the same bag and a toy student must give the masks whose hashes are stored.

After a change that is meant to change masks, look at the first difference, then renew the file:

    python test/ros/replay/test_replay_golden.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest
from repository import REPOSITORY
from small_bags import drive, write_ros2
from toy_student import write_toy_student

from anyseg_ros.pipeline.parameters import from_values
from anyseg_ros.replay.mask_records import MaskRecord, read_records
from anyseg_ros.replay.offline import MASKS, ReplayOptions, replay

GOLDEN = Path(__file__).parent / "golden" / "replay.json"
FAULTS = """
seed: 3
injections:
  - {modality: camera, kind: drop, start_s: 0.45, duration_s: 0.6}
  - {modality: depth, kind: freeze, start_s: 1.0, duration_s: 0.8}
  - {modality: lidar, kind: delay, start_s: 1.2, duration_s: 0.5, parameters: {delay_s: 0.13}}
"""
Entry = dict[str, object]


def golden_entries(folder: Path) -> list[Entry]:
    """What decides a mask: when, from what, and its pixels."""
    (folder / "faults.yaml").write_text(FAULTS)
    write_ros2(folder / "bag", drive(24))
    student = write_toy_student(folder / "toy")
    options = ReplayOptions(student, from_values({"model.threads": 1}), injections=(folder / "faults.yaml",))
    replay(folder / "bag", folder / "out", options)
    return [_entry(record) for record in read_records(folder / "out" / MASKS)]


def _entry(record: MaskRecord) -> Entry:
    used = "+".join(str(m) for m in record.used)
    when = {"scenario": record.scenario, "t_s": record.t_s}
    return {**when, "anchor": str(record.anchor), "used": used, "hash": record.hash}


def first_difference(expected: list[Entry], found: list[Entry]) -> str:
    """In words; empty where there is none."""
    for number, (before, now) in enumerate(zip(expected, found, strict=False)):
        if before != now:
            changed = [f"  {key}: {before[key]} -> {now[key]}" for key in before if before[key] != now.get(key)]
            heading = f"mask {number} of {before['scenario']} at {before['t_s']} s:"
            return "\n".join([heading, *changed, f"  ({number} masks before it are the same)"])
    if len(expected) != len(found):
        return f"{len(found)} masks instead of {len(expected)}; the first {min(len(found), len(expected))} are the same"
    return ""


def test_the_masks_are_those_that_are_stored(tmp_path: Path) -> None:
    expected = json.loads(GOLDEN.read_text())
    difference = first_difference(expected, golden_entries(tmp_path))
    if difference:
        pytest.fail(f"{difference}\nIf this is meant: python {Path(__file__).relative_to(REPOSITORY)}")


def test_the_stored_drive_is_worth_storing() -> None:
    """Every sensor is lost and back, and anchors change."""
    entries = [entry for entry in json.loads(GOLDEN.read_text()) if entry["scenario"] == "faults"]
    assert {entry["anchor"] for entry in entries} >= {"camera", "depth"}
    assert len({entry["used"] for entry in entries}) >= 4
    assert len({entry["hash"] for entry in entries}) > 15


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: e, ""),
        (
            lambda e: [*e[:2], {**e[2], "hash": "0", "used": "depth"}],
            "mask 2 of all at 0.2 s:\n  used: camera -> depth\n  hash",
        ),
        (lambda e: e[:2], "2 masks instead of 3; the first 2 are the same"),
    ],
)
def test_the_first_difference_is_told(change, says: str) -> None:
    entries: list[Entry] = [
        {"scenario": "all", "t_s": i / 10, "anchor": "camera", "used": "camera", "hash": str(i)} for i in range(1, 4)
    ]
    entries[2]["t_s"] = 0.2
    assert first_difference(entries, change(entries)).startswith(says)


def renew() -> None:
    """Write the golden file anew."""
    with tempfile.TemporaryDirectory() as folder:
        entries = golden_entries(Path(folder))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")
    print(f"{len(entries)} masks in {GOLDEN}")


if __name__ == "__main__":
    renew()
    sys.exit(0)
