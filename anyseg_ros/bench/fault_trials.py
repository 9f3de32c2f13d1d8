"""The node's decisions on a simulated clock, over faulty and over clean drives. No DDS, no threads, no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, ScheduledInjection, Stage
from anyseg_core.runtime.health.monitor import Fault, State
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_ros.bench.fault_drives import PERIOD_NS, RATE_HZ, START_NS, Delivery, Play, PlayableDrive, Scene, Transport
from anyseg_ros.pipeline.jobs import Job
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.pipeline import Pipeline
from anyseg_ros.pipeline.status_changes import StatusChanges


class Change(NamedTuple):
    """A sensor went from one state to another."""

    at_ns: int
    modality: Sensor
    state: State
    fault: Fault | None
    reason: str
    recover_time_s: float | None


class MadeMask(NamedTuple):
    """A mask that would have been made."""

    at_ns: int
    stamp_ns: int
    used: frozenset[Sensor]


@dataclass
class RunRecord:
    """What happened in a run."""

    changes: list[Change] = field(default_factory=list)
    masks: list[MadeMask] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    """Without their frames."""


class SimulatedNode:
    """Delivers, wakes up and polls as the node does, with the shipped parameters; masks are decided on, not made.

    `on_job` is called with each set of frames that would be segmented, `on_delivery` with all that is received.
    """

    def __init__(
        self,
        play: Play,
        on_job: Callable[[Job], None] = lambda _job: None,
        on_delivery: Callable[[Delivery], None] = lambda _delivery: None,
    ) -> None:
        self._play = play
        self._on_job, self._on_delivery = on_job, on_delivery
        self._hiccups = play.hiccups()
        self._now_ns = START_NS
        settings = Parameters()
        self._pipeline = Pipeline(settings.health(play.modalities), settings.sync, self._now_ns)
        self._pipeline.set_rig(play.drive.rig)
        self._changes = StatusChanges()
        self.record = RunRecord()

    def run(self) -> RunRecord:
        """The whole play."""
        for delivery in self._play.deliveries():
            self._run_until(delivery.at_ns)
            self._receive(delivery)
            self._on_delivery(delivery)
            self.record.deliveries.append(delivery._replace(frame=None))
        self._run_until(START_NS + round(self._play.duration_s * NS_PER_S))
        return self.record

    def _receive(self, delivery: Delivery) -> None:
        if delivery.frame is not None:
            self._pipeline.on_frame(delivery.frame, self._now_ns)
        elif delivery.fault is not None:
            self._pipeline.on_rejected(delivery.modality, delivery.fault, "injected", self._now_ns)
        self._poll()

    def _run_until(self, end_ns: int) -> None:
        """Wake up when the pipeline asks for it; after a hiccup before what came meanwhile is read: the worst order."""
        while True:
            wakeup_ns = self._pipeline.next_wakeup_ns(self._now_ns)
            if wakeup_ns is None:
                break
            wakeup_ns = self._hiccups.after(max(wakeup_ns, self._now_ns + 1))
            if wakeup_ns > end_ns:
                break
            self._now_ns = wakeup_ns
            self._poll()
        self._now_ns = max(self._now_ns, end_ns)

    def _poll(self) -> None:
        job = self._pipeline.poll(self._now_ns)
        if job is not None:
            self.record.masks.append(MadeMask(self._now_ns, job.anchor_frame.stamp_ns, frozenset(job.frames)))
            self._on_job(job)
            self._pipeline.examine(job)
        for s in self._changes.among(self._pipeline.statuses(self._now_ns)):
            change = Change(self._now_ns, s.modality, s.state, s.fault, s.reason, s.recover_time_s)
            self.record.changes.append(change)


# --- one fault of one sensor ---------------------------------------------------------------------------------------

WARM_UP_S = 5.0
FAULT_S = 5.0
RECOVERY_S = 3.0
TRIAL_S = WARM_UP_S + FAULT_S + RECOVERY_S + 0.2


@dataclass(frozen=True)
class Trial:
    """One fault of one sensor in one scene."""

    kind: str
    modality: Sensor
    scene: Scene
    seed: int

    def schedule(self) -> InjectionSchedule:
        """It begins and ends at a random phase of the sensor's period."""
        rng = np.random.default_rng([self.seed, 4])
        start_s = WARM_UP_S + rng.uniform(0, 1 / RATE_HZ)
        fault = ScheduledInjection(
            modality=self.modality, kind=self.kind, start_s=start_s, duration_s=FAULT_S + rng.uniform(0, 1 / RATE_HZ)
        )
        return InjectionSchedule(seed=self.seed, injections=(fault,))

    def play(self, drive: PlayableDrive) -> Play:
        return Play(drive, TRIAL_S, self.seed, self.schedule())


@dataclass(frozen=True)
class Outcome:
    """What the node made of a trial. Times in milliseconds."""

    trial: Trial
    detected: bool
    """The sensor was FAILED while the fault was on."""
    first_sign_ms: float | None = None
    """From the fault's first effect on the node to the first suspicion ..."""
    detection_ms: float | None = None
    """... and to FAILED."""
    messages: int | None = None
    """Of the broken sensor that were received until FAILED."""
    named: Fault | None = None
    """The fault at FAILED ..."""
    last_named: Fault | None = None
    """... and the one that was named last while it was on: what people read."""
    recovery_ms: float | None = None
    """From the first measurement that is good, comes in time and after the last broken one, to ACTIVE; None: never.

    0 where it was ACTIVE again before the fault had ended."""
    recover_time_ms: float | None = None
    """How long the sensor had to be good after that fault: by its configuration, and by its relapses."""

    @property
    def expected(self) -> tuple[Fault, ...]:
        return INJECTION_KINDS[self.trial.kind].expected

    @property
    def wrongly_named(self) -> bool:
        return self.detected and bool(self.expected) and self.last_named not in self.expected


def run_trial(trial: Trial, drive: PlayableDrive) -> Outcome:
    """Run it with this sensor alone, as no monitor knows of the others, and look at what was found."""
    play = replace(trial.play(drive), modalities=(trial.modality,))
    return judge(trial, play.schedule.injections[0], SimulatedNode(play).run())


def judge(trial: Trial, entry: ScheduledInjection, record: RunRecord) -> Outcome:
    """When the fault was found, what it was called, and when the sensor was back."""
    begin_ns, end_ns = effect_of(entry, record)
    own = [change for change in record.changes if change.modality is trial.modality]
    during = [change for change in own if begin_ns <= change.at_ns <= end_ns]
    found = next((change for change in during if change.state is State.FAILED), None)
    if found is None:
        return Outcome(trial, False)
    sign = next(change for change in during if change.state in (State.SUSPECT, State.FAILED))
    received = [d for d in record.deliveries if d.modality is trial.modality and begin_ns <= d.at_ns <= found.at_ns]
    last = [change.fault for change in during if change.state is State.FAILED][-1]
    good = [d for d in record.deliveries if d.modality is trial.modality and d.measured_s >= entry.end_s]
    well_s = next(d.measured_s for d in good if _is_on_time(d) and d.at_ns >= end_ns)
    at_the_end = [change.state for change in own if change.at_ns <= end_ns][-1]
    back = next((c for c in own if c.state is State.ACTIVE and c.at_ns > end_ns), None)
    recovery_ms = (back.at_ns - START_NS) / NS_PER_MS - 1000.0 * well_s if back else None
    return Outcome(
        trial,
        True,
        (sign.at_ns - begin_ns) / NS_PER_MS,
        (found.at_ns - begin_ns) / NS_PER_MS,
        len(received),
        found.fault,
        last,
        0.0 if at_the_end is State.ACTIVE else recovery_ms,
        _recover_time_ms(own, back),
    )


def _recover_time_ms(changes: list[Change], back: Change | None) -> float:
    """As the status said last before the sensor was `back`."""
    before = [c for c in changes if c.recover_time_s is not None and (back is None or c.at_ns < back.at_ns)]
    return 1000.0 * (before[-1].recover_time_s or 0.0) if before else 0.0


def _is_on_time(delivery: Delivery) -> bool:
    """What was measured after a delay has ended still waits behind what was delayed."""
    return delivery.at_ns - START_NS - delivery.measured_s * NS_PER_S < PERIOD_NS


def effect_of(entry: ScheduledInjection, record: RunRecord) -> tuple[int, int]:
    """When the node could first know of the fault, and when the last broken message had come.

    A message that does not come is missed from the last one on; else the first broken message tells.
    """
    own = [delivery for delivery in record.deliveries if delivery.modality is entry.modality]
    broken = [d.at_ns for d in own if entry.active(d.measured_s)]
    before = [d.at_ns for d in own if d.measured_s < entry.start_s]
    is_absence = INJECTION_KINDS[entry.kind].stage in (Stage.LOSS, Stage.DELAY) or not broken
    return before[-1] if is_absence else broken[0], max([START_NS + round(entry.end_s * NS_PER_S), *broken])


def run_trials(job: tuple[Scene, Sequence[Trial], Path]) -> list[Outcome]:
    """Those of one scene, in a worker process."""
    scene, trials, folder = job
    drive = PlayableDrive.load(scene, folder)
    return [run_trial(trial, drive) for trial in trials]


# --- nothing is wrong ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alarm:
    """A sensor without a fault that was called suspect or failed."""

    scene: str
    modality: Sensor
    state: State
    fault: Fault | None
    reason: str
    at_s: float


@dataclass(frozen=True)
class CleanRun:
    """Drives on which nothing was wrong."""

    scene: str
    hours: float
    alarms: tuple[Alarm, ...]
    masks: int
    incomplete: int
    """Masks without one of the four: its frame was late, or it was called faulty."""


PASS_S = 25.0
"""Of a drive of 30 s: every pass is another stretch of it."""


def run_clean(job: tuple[Scene, Sequence[int], Path]) -> CleanRun:
    """Passes of one scene, one a seed, in a worker process."""
    scene, seeds, folder = job
    drive = PlayableDrive.load(scene, folder)
    alarms: list[Alarm] = []
    masks = incomplete = 0
    for seed in seeds:
        record = SimulatedNode(Play(drive, PASS_S, seed, fresh_noise=True)).run()
        alarms += [
            Alarm(scene.name, c.modality, c.state, c.fault, c.reason, (c.at_ns - START_NS) / NS_PER_S)
            for c in record.changes
            if c.state in (State.SUSPECT, State.FAILED)
        ]
        masks += len(record.masks)
        incomplete += sum(len(mask.used) < len(DEFAULT_SENSORS) for mask in record.masks[1:])
    return CleanRun(scene.name, len(seeds) * PASS_S / 3600, tuple(alarms), masks, incomplete)


# --- a loose contact -----------------------------------------------------------------------------------------------

FLAP_S = 0.3
FLAPS = 12
STEADY = Transport(jitter=0.05, hiccup_every_s=1e9)
"""Little jitter: a frame that is late for its mask is left out of it, which is not what is counted here."""


@dataclass(frozen=True)
class FlapTrial:
    """A sensor that is broken and well in turn, every 300 ms."""

    kind: str
    modality: Sensor
    scene: Scene
    seed: int


@dataclass(frozen=True)
class FlapOutcome:
    """How often the sensor left or joined the masks, from the first fault until it is well for good."""

    trial: FlapTrial
    changes: int


def run_flapping(job: tuple[Scene, Sequence[FlapTrial], Path]) -> list[FlapOutcome]:
    """Those of one scene, in a worker process."""
    scene, trials, folder = job
    drive = PlayableDrive.load(scene, folder)
    return [FlapOutcome(trial, flap_changes(trial, drive)) for trial in trials]


def flap_changes(trial: FlapTrial, drive: PlayableDrive) -> int:
    """Changes of the masks' modality set by a flapping sensor; one mask before the first fault is where it starts."""
    start_s = WARM_UP_S + np.random.default_rng([trial.seed, 5]).uniform(0, 1 / RATE_HZ)
    entry: Mapping[str, object] = {
        "modality": str(trial.modality), "kind": trial.kind, "start_s": start_s, "duration_s": FLAP_S,
        "every_s": 2 * FLAP_S, "times": FLAPS,
    }  # fmt: skip
    schedule = InjectionSchedule.parse({"seed": trial.seed, "injections": [entry]})
    duration_s = start_s + 2 * FLAP_S * FLAPS + RECOVERY_S
    record = SimulatedNode(Play(drive, duration_s, trial.seed, schedule, STEADY)).run()
    begin_ns = START_NS + round((start_s - 1 / RATE_HZ) * NS_PER_S)
    member = [trial.modality in mask.used for mask in record.masks if mask.stamp_ns >= begin_ns]
    return sum(earlier != later for earlier, later in pairwise(member))
