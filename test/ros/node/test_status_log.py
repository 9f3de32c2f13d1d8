"""What the node's log says of its sensors."""

from __future__ import annotations

from dataclasses import replace

from anyseg_core.runtime.health.monitor import Fault, ModalityStatus, State
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.node.status_log import StatusLog


class Log:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._log = StatusLog(self.lines.append, self.lines.append)

    def add(self, state: State, fault: Fault | None = None, modality: Sensor = Sensor.CAMERA) -> None:
        self._log.add([status(state, fault, modality)])


def status(state: State, fault: Fault | None, modality: Sensor) -> ModalityStatus:
    return ModalityStatus(
        modality=modality, state=state, fault=fault, reason="why", age_ms=None, rate_hz=None, received=0, rejected=0,
        fault_counts={}, first_ns=None, last_ns=None, since_ns=0,
    )  # fmt: skip


def test_a_fault_is_logged_once_not_with_every_frame() -> None:
    log = Log()
    for state in (State.ACTIVE, State.SUSPECT, State.FAILED, State.FAILED, State.FAILED):
        log.add(state, Fault.FROZEN if state is not State.ACTIVE else None)
    assert log.lines == ["camera failed: frozen: why"]


def test_a_relapse_while_recovering_is_the_same_failure_and_another_fault_is_not() -> None:
    log = Log()
    for state in (State.FAILED, State.RECOVERING, State.FAILED, State.RECOVERING):
        log.add(state, Fault.SILENT)
    log.add(State.FAILED, Fault.STALE_STAMP)
    log.add(State.FAILED, Fault.SILENT)
    assert log.lines == ["camera failed: silent: why", "camera failed: stale_stamp: why"]


def test_the_return_is_logged_once_and_the_next_failure_again() -> None:
    log = Log()
    for state, fault in ((State.FAILED, Fault.DARK), (State.ACTIVE, None), (State.ACTIVE, None)):
        log.add(state, fault)
    log.add(State.FAILED, Fault.DARK)
    assert log.lines == [
        "camera failed: dark: why",
        "camera is no longer failed, but active",
        "camera failed: dark: why",
    ]


def test_each_sensor_has_failures_of_its_own() -> None:
    log = Log()
    log.add(State.FAILED, Fault.DARK)
    log.add(State.FAILED, Fault.SILENT, Sensor.LIDAR)
    assert log.lines == ["camera failed: dark: why", "lidar failed: silent: why"]


def test_what_is_to_be_mended_is_logged_when_it_changes() -> None:
    lines: list[str] = []
    log = StatusLog(lines.append, lines.append)
    quiet = status(State.ACTIVE, None, Sensor.CAMERA)
    for remark in ("nobody publishes it", "nobody publishes it", "", "", "it is another type", "it is another type"):
        log.add([replace(quiet, remark=remark)])
    assert lines == ["camera: nobody publishes it", "camera: it is another type"]
