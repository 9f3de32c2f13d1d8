"""One scenario in simulated time: a pipeline of its own, its sensors, its injections, and the caller's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from anyseg_core.injection import InjectionSchedule, Injector
from anyseg_core.runtime.cross_examination.agreement import Shown
from anyseg_core.runtime.cross_examination.network_witness import NOTHING_KNOWN, NetworkKnowledge
from anyseg_core.runtime.geometry.projection import Rig, Twist
from anyseg_core.runtime.health.monitor import Fault, ModalityStatus, State
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_ros.pipeline.jobs import Job
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.pipeline import Pipeline
from anyseg_ros.pipeline.status_changes import StatusChanges
from anyseg_ros.replay.scenarios import Scenario

_LEAST_STEP_NS = NS_PER_MS
"""Where the pipeline wants to be asked again at once, as the node's worker waits a millisecond at least."""


class StateChange(NamedTuple):
    """A sensor's state or fault is another one from now on, or it is left out of the masks or no longer."""

    scenario: str
    now_ns: int
    modality: Sensor
    state: State
    fault: Fault | None
    reason: str
    """What leaves it out, else of the fault."""


class ScenarioRun:
    """Plays one scenario. Its methods give the jobs that fall due, in the order of time."""

    def __init__(
        self,
        scenario: Scenario,
        parameters: Parameters,
        start_ns: int,
        engine_ms: float,
        ask_network: Callable[[Job], Mapping[Sensor, Shown]] = lambda _job: {},
        knowledge: NetworkKnowledge = NOTHING_KNOWN,
    ) -> None:
        """Begin at `start_ns`.

        Args:
            engine_ms: how long the network is taken to run; while it does, no other set is begun.
            ask_network: what the network makes of each examined sensor of a job alone; it takes no simulated time.
            knowledge: of the network as a witness.
        """
        self.scenario = scenario
        health, examination = parameters.health(scenario.modalities), parameters.cross_examination
        self.pipeline = Pipeline(health, parameters.sync, start_ns, examination=examination, knowledge=knowledge)
        self._ask_network = ask_network
        self.changes: list[StateChange] = []
        """Of state, since the list was last emptied by its reader."""
        self.start_ns = self._now_ns = start_ns
        self._engine_ns = int(engine_ms * NS_PER_MS)
        self._busy_until_ns = start_ns
        self._changes = StatusChanges()
        self._injector = Injector(scenario.schedule or InjectionSchedule(), self._on_unreadable)

    def advance(self, to_ns: int) -> Iterator[Job]:
        """Everything that happens until `to_ns` without a new message: delayed frames arrive, silence is found."""
        if to_ns < self._now_ns:  # the clock was set back, or two messages changed places
            self._now_ns = self._busy_until_ns = to_ns
        while (wakeup_ns := self._next_ns()) is not None and wakeup_ns < to_ns:
            self._now_ns = max(wakeup_ns, self._now_ns)
            self._receive_delayed()
            before_ns = self._now_ns
            yield from self.poll()
            if self._next_ns() == wakeup_ns and before_ns == self._now_ns:
                self._now_ns += _LEAST_STEP_NS
        self._now_ns = max(self._now_ns, to_ns)
        self._receive_delayed()

    def send(self, frame: SensorFrame) -> None:
        """A frame of the bag, now; what the faults leave of it is received now or later."""
        if frame.modality in self.scenario.modalities:
            self._injector.send(frame, self._elapsed_s)
            self._receive_delayed()

    def reject(self, modality: Sensor, fault: Fault, reason: str) -> None:
        """A message of the bag that is no frame."""
        if modality in self.scenario.modalities:
            self.pipeline.on_rejected(modality, fault, reason, self._now_ns)

    def set_rig(self, rig: Rig) -> None:
        """The calibration."""
        self.pipeline.set_rig(rig)

    def on_motion(self, stamp_ns: int, twist: Twist) -> None:
        """Odometry."""
        self.pipeline.on_motion(stamp_ns, twist)

    def poll(self) -> Iterator[Job]:
        """The jobs that are due now."""
        noted = False
        while self._now_ns >= self._busy_until_ns and (job := self.pipeline.poll(self._now_ns)) is not None:
            self._busy_until_ns = self._now_ns + self._engine_ns
            self._note(job.statuses)
            noted = True
            self.pipeline.examine(job)
            if job.asks_network:
                self.pipeline.hear_network(job, self._ask_network(job))
            yield job
            if self._engine_ns:
                return
        if not noted:
            self._note(self.pipeline.statuses(self._now_ns))

    @property
    def _elapsed_s(self) -> float:
        return (self._now_ns - self.start_ns) / NS_PER_S

    def _next_ns(self) -> int | None:
        """When something happens next without a message."""
        times = [self.pipeline.next_wakeup_ns(self._now_ns)]
        arrival_s = self._injector.next_arrival_s()
        if arrival_s < float("inf"):
            times.append(self.start_ns + round(arrival_s * NS_PER_S))
        if self._busy_until_ns > self._now_ns:
            times.append(self._busy_until_ns)
        return min((time for time in times if time is not None), default=None)

    def _receive_delayed(self) -> None:
        for frame in self._injector.due(self._elapsed_s):
            self.pipeline.on_frame(frame, self._now_ns)

    def _on_unreadable(self, frame: SensorFrame, kind: str) -> None:
        self.pipeline.on_rejected(frame.modality, Fault.DECODE_ERROR, f"injected fault: {kind}", self._now_ns)

    def _note(self, statuses: tuple[ModalityStatus, ...]) -> None:
        for s in self._changes.among(statuses):
            self.changes.append(StateChange(self.scenario.name, self._now_ns, s.modality, s.state, s.fault, s.why))
