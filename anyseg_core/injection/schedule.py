"""Scenarios: which sensor breaks how and when, read from YAML. Times are in seconds since the start of the drive."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anyseg_core.injection.kinds import InjectionScheduleError, complete_parameters, known_kind
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, in_order
from anyseg_core.runtime.strict_yaml import load_yaml_file

ALL = "all"
"""`modality: all` is every sensor."""
MAX_TIMES = 10_000
_SHORTHANDS = ("every_s", "times")


class ScheduledInjection(BaseModel):
    """This fault of this sensor from `start_s` for `duration_s`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: Sensor
    kind: str
    start_s: float = Field(ge=0, allow_inf_nan=False)
    duration_s: float = Field(default=math.inf, gt=0)
    """Seconds; without it the fault stays."""
    ramp_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Seconds in which the fault grows from nothing to its full strength. A kind that cannot be weak grows in
    probability."""
    probability: float = Field(default=1.0, ge=0, le=1)
    """Of each frame to be hit."""
    seed: int | None = Field(default=None, ge=0)
    """Of this fault alone: its randomness is then the same wherever it stands in whatever schedule."""
    parameters: dict[str, float] = {}
    if_present: bool = False
    """Nothing is wrong when the recording has no such sensor, as with entries for `all` of them."""

    @model_validator(mode="after")
    def _playable(self) -> ScheduledInjection:
        fault = known_kind(self.kind, self.modality)
        complete_parameters(self.kind, self.parameters)
        if not fault.is_gradual and (self.ramp_s > 0 or self.probability < 1):
            raise InjectionScheduleError(f"{self.kind} is there or not: leave out ramp_s and probability")
        return self

    @property
    def end_s(self) -> float:
        """When the fault is over; infinite where it stays."""
        return self.start_s + self.duration_s

    def active(self, elapsed_s: float) -> bool:
        """Whether the fault is present `elapsed_s` seconds after the start."""
        return self.start_s <= elapsed_s < self.end_s

    def strength(self, elapsed_s: float) -> float:
        """0..1, of an active fault."""
        return 1.0 if self.ramp_s == 0 else min(1.0, (elapsed_s - self.start_s) / self.ramp_s)


class InjectionSchedule(BaseModel):
    """Which sensor breaks how and when; `seed` decides everything random in it.

    In a file an entry may say more than one fault: `modality` may be a list or `all`, and with `every_s` and `times`
    it happens again and again. `parse` and `load` write that out, so `injections` holds single ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    """What the scenario imitates."""
    seed: int = Field(default=0, ge=0)
    sensors: dict[str, str] = {}
    """Kinds of the sensors that are not named as their kind: `{thermal: camera}`."""
    injections: tuple[ScheduledInjection, ...] = ()

    @classmethod
    def parse(
        cls, content: Any, source: str = "schedule of injections", sensors: Collection[Sensor] = DEFAULT_SENSORS
    ) -> InjectionSchedule:
        """From the content of a YAML file; raises InjectionScheduleError that names the entry and the remedy.

        `all` sensors are `sensors` and those that the file declares.
        """
        try:
            expanded, entries = _expanded(content, in_order({*sensors, *_declared(content)}))
        except ValueError as error:
            raise InjectionScheduleError(f"{source}: {error}") from None
        try:
            return cls.model_validate(expanded)
        except ValidationError as error:
            faults = dict.fromkeys(f"{_place(e['loc'], entries)}: {_reason(e)}" for e in error.errors())
            raise InjectionScheduleError(f"{source}: {'; '.join(faults)}") from None

    @classmethod
    def load(cls, path: str | Path, sensors: Collection[Sensor] = DEFAULT_SENSORS) -> InjectionSchedule:
        """From a YAML file, as `parse`; raises InjectionScheduleError that names the file and the entry."""
        try:
            content = load_yaml_file(Path(path))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InjectionScheduleError(f"{path} cannot be read as a schedule of injections: {error}") from error
        return cls.parse(content, str(path), sensors)

    @property
    def declared(self) -> tuple[Sensor, ...]:
        """Those of `sensors`."""
        return tuple(Sensor(name, kind) for name, kind in self.sensors.items())

    @property
    def modalities(self) -> tuple[Sensor, ...]:
        """The sensors that break."""
        return in_order({entry.modality for entry in self.injections})

    @property
    def required(self) -> tuple[Sensor, ...]:
        """The sensors that have to be there for the scenario to make sense."""
        return in_order({entry.modality for entry in self.injections if not entry.if_present})


def _declared(content: Any) -> list[Sensor]:
    """The sensors that a file declares. Raises ValueError."""
    kinds = content.get("sensors") if isinstance(content, Mapping) else None
    return [Sensor(name, str(kind)) for name, kind in kinds.items()] if isinstance(kinds, Mapping) else []


def _expanded(content: Any, sensors: Collection[Sensor]) -> tuple[Any, list[int]]:
    """The content with one fault an entry, and the place in the file, from one, that each comes from."""
    if not isinstance(content, Mapping) or not isinstance(content.get("injections"), (list, tuple)):
        return content, []
    written_out = [
        (fault, place)
        for place, entry in enumerate(content["injections"], 1)
        for fault in _single_faults(entry, place, sensors)
    ]
    return {**content, "injections": [fault for fault, _ in written_out]}, [place for _, place in written_out]


def _single_faults(entry: Any, place: int, sensors: Collection[Sensor]) -> list[Any]:
    """An entry of a file as single faults of single sensors; what cannot be written out stays for the validation."""
    if not isinstance(entry, Mapping):
        return [entry]
    starts = _starts(entry, place)
    once = {key: value for key, value in entry.items() if key not in _SHORTHANDS}
    named = once.get("modality", ALL if once.get("kind") == "crash" else None)  # a process carries all its sensors
    modalities = sensors if named == ALL else named if isinstance(named, list) else [named]
    if not modalities:
        raise InjectionScheduleError(f"injection {place}, modality: is an empty list; name a sensor, or {ALL}")
    if named == ALL:
        once = {"if_present": True, **once}
    per_sensor = [{**once, "modality": m} for m in modalities] if named is not None else [once]
    return [{**fault, **start} for start in starts for fault in per_sensor]


def _starts(entry: Mapping[str, Any], place: int) -> list[dict[str, float]]:
    """`start_s` of every repetition; nothing to change where there is none."""
    if not any(name in entry for name in _SHORTHANDS):
        return [{}]
    every_s: Any = entry.get("every_s")
    times: Any = entry.get("times")
    if not _is_number(every_s) or not 0 < every_s < math.inf:
        raise InjectionScheduleError(
            f"injection {place}, every_s: must be a number of seconds above 0, not {every_s!r}"
        )
    if not isinstance(times, int) or isinstance(times, bool) or not 1 <= times <= MAX_TIMES:
        raise InjectionScheduleError(
            f"injection {place}, times: must be an integer from 1 to {MAX_TIMES}, not {times!r}"
        )
    start_s: Any = entry.get("start_s")
    duration_s = entry.get("duration_s", math.inf)
    if not _is_number(start_s) or not _is_number(duration_s):
        return [{}]  # the validation of the fault itself says what is wrong
    if duration_s > every_s:
        raise InjectionScheduleError(f"injection {place}, duration_s: must not be longer than every_s, {every_s:g} s")
    return [{"start_s": start_s + repetition * every_s} for repetition in range(times)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _place(location: tuple[int | str, ...], entries: list[int]) -> str:
    """('injections', 1, 'kind') -> 'injection 2, kind': people count from one, and entries of the file."""
    parts = [part for part in location if part != "injections"]
    if parts and isinstance(parts[0], int):
        parts[0] = f"injection {entries[parts[0]] if parts[0] < len(entries) else parts[0] + 1}"
    return ", ".join(map(str, parts)) or "the whole"


def _reason(error: Any) -> str:
    """What pydantic found, with the remedy."""
    if error["type"] == "extra_forbidden":
        known = ScheduledInjection if "injections" in error["loc"] else InjectionSchedule
        if error["loc"] == ("faults",):
            return "is called `injections` since version 0.2: rename the key"
        names = [*known.model_fields, *(_SHORTHANDS if known is ScheduledInjection else ())]
        return f"is not known here; known: {', '.join(names)}"
    if error["type"] == "model_type":
        return "must be a mapping, as in config/injections"
    return error["msg"].removeprefix("Value error, ")
