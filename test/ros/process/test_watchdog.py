"""systemd is told that the node is alive while masks go out or no sensor lives, and at no other time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyseg_ros.process.service_manager import ENVIRONMENT, READY, WATCHDOG, notify

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from ros_harness import running, toy_parameters


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(0.01)
        monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "notify"))
        yield channel


def heard(manager: socket.socket) -> list[str]:
    lines = []
    try:
        while True:
            lines += manager.recv(4096).decode().splitlines()
    except TimeoutError:
        return lines


def test_lines_reach_the_manager_by_a_path_and_by_an_abstract_name(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert notify(READY, WATCHDOG)
    assert heard(manager) == [READY, WATCHDOG]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind("\0anyseg_watchdog_test")
        other.settimeout(0.01)
        monkeypatch.setenv(ENVIRONMENT, "@anyseg_watchdog_test")
        assert notify(WATCHDOG)
        assert heard(other) == [WATCHDOG]


@pytest.mark.parametrize("address", ["", "/nowhere/notify"])
def test_without_a_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, address)
    assert not notify(WATCHDOG)


@pytest.mark.ros
@pytest.mark.usefixtures("ros")
def test_it_is_fed_by_masks_and_by_a_truthful_no_and_starves_when_living_sensors_give_no_mask(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(toy_parameters(tmp_path)) as vehicle:
        vehicle.spin_masks(3)
        heard(manager)
        vehicle.spin_until(lambda: {READY, WATCHDOG} <= set(heard(manager)), "the watchdog fed by masks")
        monkeypatch.setattr(vehicle.node._worker, "too_old_ms", lambda _result: 1000.0)
        before = len(vehicle.diagnostics)
        vehicle.spin_until(lambda: len(vehicle.diagnostics) > before + 3, "diagnostics without masks")
        heard(manager)
        before = len(vehicle.diagnostics)
        vehicle.spin_until(lambda: len(vehicle.diagnostics) > before + 2, "more of them")
        assert heard(manager) == []
        vehicle.alive.clear()
        vehicle.spin_until(lambda: WATCHDOG in heard(manager), "the watchdog fed without a living sensor")
