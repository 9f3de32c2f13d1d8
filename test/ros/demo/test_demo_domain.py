"""The demo's own ROS domain: what it changes is as before afterwards, and it leaves no files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from anyseg_ros.demo.run import isolated_ros_domain


@pytest.mark.parametrize("given", ["", "/var/log/ros"])
def test_the_environment_and_the_disk_are_as_before(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("ROS_LOG_DIR")
    if given:
        monkeypatch.setenv("ROS_LOG_DIR", given)
    before = dict(os.environ)
    with isolated_ros_domain():
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
        log = Path(os.environ["ROS_LOG_DIR"])
        if given:
            assert log == Path(given)
        else:
            assert log.parent == tmp_path
            (log / "a_node.log").touch()
    assert dict(os.environ) == before
    assert not list(tmp_path.iterdir())
