"""One hazard, or none, on one drive with some of its sensors: what the shipped parameters say, in simulated time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, pairwise
from pathlib import Path

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, Injector
from anyseg_core.runtime.health.monitor import ModalityStatus, State
from anyseg_core.runtime.health.thresholds import FOUND_BY_OTHERS, Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.sim.drive import DriveConfig
from anyseg_ros.bench.hazard_drives import RATE_HZ, Moment, Playing, load_drive, network_of
from anyseg_ros.bench.hazard_masks import Counts, HazardMasks

STUDENT = "vehicle_sim"


@dataclass(frozen=True)
class Hazard:
    """A kind of injection in one sensor, and what is asked of who finds it."""

    kind: str
    sensor: Sensor
    parameters: tuple[tuple[str, float], ...] = ()
    """Of the injection, where they are not the default."""
    from_s: float = 5.0
    lasts_s: float = 4.0
    in_time_s: float = 3.0
    """From its begin to when it must be found."""
    fault: str = ""
    """The one that must name it, with ..."""
    value: float = 0.0
    """... this number, ..."""
    within: float = 0.0
    """... give or take that; 0 where any fault will do."""

    @property
    def name(self) -> str:
        """The kind with its parameters."""
        return " ".join([self.kind, *(f"{key}={number:g}" for key, number in self.parameters)])


HAZARDS: tuple[Hazard, ...] = tuple(
    Hazard(name, sensor)
    for name, kind in list(INJECTION_KINDS.items())
    if FOUND_BY_OTHERS & set(kind.expected) - {Fault.MISALIGNED}  # an angle takes longer to measure
    for sensor in kind.modalities
)
"""Every kind that the other sensors are to find at once, with each sensor that can have it."""
_SLOW_S = 33.0
SLOW_HAZARDS: tuple[Hazard, ...] = (
    Hazard("lidar_yaw", Sensor.LIDAR, (("angle_deg", 2.0),), 5.0, _SLOW_S, 30.0, str(Fault.MISALIGNED), 2.0, 0.5),
    Hazard("lidar_pitch", Sensor.LIDAR, (("angle_deg", 2.0),), 5.0, _SLOW_S, 30.0, str(Fault.MISALIGNED), 2.0, 0.5),
    *(
        Hazard("old_content", sensor, (("age_s", 0.1),), 5.0, _SLOW_S, 30.0, str(Fault.TIME_OFFSET), 100.0, 20.0)
        for sensor in DEFAULT_SENSORS
    ),
)
"""Those that need a longer drive, and of which a number is asked."""


@dataclass(frozen=True)
class Trial:
    """One hazard (none: a clean drive) on one drive with some sensors."""

    drive: DriveConfig | str
    """Simulated; or the bag of a recorded one."""
    sensors: tuple[Sensor, ...]
    hazard: Hazard | None = None

    @property
    def weather(self) -> str:
        """Of the drive; `recorded` where it is a bag."""
        return str(self.drive.weather) if isinstance(self.drive, DriveConfig) else "recorded"


@dataclass(frozen=True)
class Outcome:
    """What was said while the hazard was on; of a clean drive, ever."""

    found_s: float | None
    """From the hazard's begin to the first dispute about the sensor, None where there is none."""
    blamed: frozenset[Sensor]
    """Who was blamed alone."""
    undecided: bool
    """Whether two were in dispute and nobody was blamed."""
    alarms: int
    """Disputes that began while no hazard was on."""
    clean_s: float
    """Seconds while none was on."""
    value: float | None
    """The newest number of the fault that must name the hazard."""
    levels: Mapping[str, float]
    """Greatest sum of each fault while the hazard was on, 1 = that of a dispute; of a clean drive, ever."""
    masks: Mapping[str, Counts] = field(default_factory=dict)
    """How the masks during the hazard fit the labels, by the names of `hazard_masks.WAYS`; empty without labels."""


def trials_of(
    drive: DriveConfig | str, sensors: Sequence[Sensor], sizes: Sequence[int], hazards: Sequence[Hazard]
) -> list[Trial]:
    """Every hazard of every sensor with every set of that many of the sensors, and each set without one."""
    sets = [some for size in sizes for some in combinations(sensors, size)]
    clean = [Trial(drive, some) for some in sets]
    return clean + [Trial(drive, some, hazard) for some in sets for hazard in hazards if hazard.sensor in some]


def play(trial: Trial, recordings: Path, student: str = STUDENT) -> Outcome:
    """One trial with the shipped parameters. Raises what `load_drive` raises, StudentError and EngineError.

    What comes before the hazard is the same in all trials of the same sensors, and played once.
    """
    hazard, drive = trial.hazard, load_drive(trial.drive, recordings)
    if hazard is None:
        whole = Playing(drive, trial.sensors, network_of(student))
        whole.play_until(drive.end_s, Injector(InjectionSchedule()))
        return _clean(whole.moments)
    playing = _begun(trial.drive, recordings, student, trial.sensors, hazard.from_s).copy()
    before = len(playing.moments)
    score = HazardMasks(drive, trial.sensors, hazard.sensor, hazard.from_s, playing.network)
    is_scored = hazard.lasts_s < _SLOW_S and bool(drive.labels)
    playing.play_until(hazard.from_s + hazard.lasts_s, Injector(schedule_of(hazard)), score.add if is_scored else None)
    return _outcome(hazard, playing.moments[before:], score.counts)


@lru_cache(maxsize=4)
def _begun(
    drive: DriveConfig | str, recordings: Path, student: str, sensors: tuple[Sensor, ...], from_s: float
) -> Playing:
    """A drive up to where a hazard begins."""
    playing = Playing(load_drive(drive, recordings), sensors, network_of(student))
    playing.play_until(from_s, Injector(InjectionSchedule()), includes_end=False)
    return playing


def _clean(moments: Sequence[Moment]) -> Outcome:
    had = [False, *(bool(moment.disputes) for moment in moments)]
    alarms = sum(now and not before for before, now in pairwise(had))
    return Outcome(None, frozenset(), False, alarms, len(moments) / RATE_HZ, None, _greatest(moments))


def _outcome(hazard: Hazard, during: Sequence[Moment], masks: Mapping[str, Counts]) -> Outcome:
    accused = [{s for s, status in m.disputes.items() if _is_blamed(status)} for m in during if m.disputes]
    found = [m.at_s - hazard.from_s for m in during if hazard.sensor in m.disputes]
    return Outcome(
        found_s=found[0] if found else None,
        blamed=frozenset(set().union(*accused)),
        undecided=bool(found) and not any(accused),
        alarms=0,
        clean_s=0.0,
        value=_value(hazard, during),
        levels=_greatest(during),
        masks=masks,
    )


def _value(hazard: Hazard, during: Sequence[Moment]) -> float | None:
    """As `Outcome.value`."""
    statuses = [m.disputes[hazard.sensor] for m in during if hazard.sensor in m.disputes]
    numbers = [float(s.details["dispute_value"]) for s in statuses if str(s.fault) == hazard.fault and s.details]
    return numbers[-1] if numbers else None


def _greatest(moments: Sequence[Moment]) -> dict[str, float]:
    levels: dict[str, float] = {}
    for moment in moments:
        for fault, level in moment.levels.items():
            levels[str(fault)] = max(level, levels.get(str(fault), 0.0))
    return levels


def _is_blamed(status: ModalityStatus) -> bool:
    """One that its own checks have failed is, too."""
    return status.state is State.FAILED or status.details["dispute_blamed"] == "true"


def schedule_of(hazard: Hazard | None) -> InjectionSchedule:
    """What an injector plays for a hazard; nothing where there is none."""
    if hazard is None:
        return InjectionSchedule()
    entry = {
        "modality": str(hazard.sensor),
        "kind": hazard.kind,
        "start_s": hazard.from_s,
        "duration_s": hazard.lasts_s,
        "parameters": dict(hazard.parameters),
    }
    return InjectionSchedule.parse({"injections": [entry]})
