"""The RViz and Foxglove layouts show what the node publishes, in any namespace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import REPOSITORY as ROOT
from typer.testing import CliRunner

from anyseg_ros.cli import app
from anyseg_ros.drawing.foxglove_layout import in_namespace

SHOWN = {
    "segmentation_node/segmentation/overlay",
    "segmentation_node/segmentation/color_mask",
    "segmentation_node/segmentation/points",
    "segmentation_node/segmentation/obstacles",
    "segmentation_node/segmentation/ground_grid",
    "camera/image_raw",
    "lidar/points",
}
STATUS = {"segmentation_node/modality_status"}


def topics(layout: Any) -> Iterator[str]:
    """Every text of a Foxglove layout that begins with a slash."""
    if isinstance(layout, dict):
        for key, value in layout.items():
            yield from topics(key)
            yield from topics(value)
    elif isinstance(layout, list):
        for item in layout:
            yield from topics(item)
    elif isinstance(layout, str) and layout.startswith("/"):
        yield layout


def panels(layout: Any) -> Iterator[str]:
    """Those that are placed."""
    if isinstance(layout, str):
        yield layout
    else:
        yield from (*panels(layout["first"]), *panels(layout["second"]))


def foxglove() -> dict[str, Any]:
    return json.loads((ROOT / "config" / "foxglove.json").read_text())


def test_rviz_shows_what_the_node_publishes_by_relative_names() -> None:
    content = yaml.safe_load((ROOT / "config" / "vehicle.rviz").read_text())
    shown = {display["Topic"]["Value"] for display in content["Visualization Manager"]["Displays"]}
    assert shown == SHOWN


@pytest.mark.parametrize(("namespace", "prefix"), [("", "/"), ("car", "/car/"), ("/fleet/car_1/", "/fleet/car_1/")])
def test_foxglove_shows_the_same_in_a_namespace(namespace: str, prefix: str) -> None:
    layout = in_namespace(foxglove(), namespace)
    node = f"{prefix}segmentation_node"
    assert set(topics(layout)) == {prefix + name for name in SHOWN | STATUS} | {"/diagnostics", node}
    panel = layout["configById"]["DiagnosticStatusPanel!mask"]
    assert (panel["selectedHardwareId"], panel["selectedName"]) == (node, f"anyseg {node}: mask")


def test_every_panel_of_foxglove_is_configured_and_placed() -> None:
    layout = foxglove()
    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])


def test_the_command_writes_the_layout_wherever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["layout", str(tmp_path / "l.json"), "--namespace", "car"])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "l.json").read_text())
    assert "/car/segmentation_node/segmentation/overlay" in set(topics(written))
