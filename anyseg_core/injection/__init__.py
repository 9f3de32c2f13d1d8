"""Fault injection: what breaks in a sensor, done to its frames on purpose. Pure and seeded.

Used by tests, demo, simulated vehicle, replay, training and, on serialized messages, by `anyseg inject`. `degrade`
spoils one frame; an `Injector` plays an `InjectionSchedule` over time, including faults of timing. A schedule in YAML
(times in seconds since the start of the drive):

    seed: 7
    injections:
      - {modality: camera, kind: drop, start_s: 5, duration_s: 5}
      - {modality: [depth, lidar], kind: noise, start_s: 8, duration_s: 4, ramp_s: 2, parameters: {sigma: 0.3}}
      - {modality: camera, kind: freeze, start_s: 20, duration_s: 0.3, every_s: 0.6, times: 10}

`INJECTION_KINDS` lists every kind with its modalities and parameters.
"""

from anyseg_core.injection.kinds import (
    INJECTION_KINDS,
    InjectionKind,
    InjectionScheduleError,
    Parameter,
    Stage,
    degrade,
)
from anyseg_core.injection.player import ActiveInjection, Arrival, Injector, SchedulePlayer
from anyseg_core.injection.schedule import InjectionSchedule, ScheduledInjection

__all__ = [
    "INJECTION_KINDS",
    "ActiveInjection",
    "Arrival",
    "InjectionKind",
    "InjectionSchedule",
    "InjectionScheduleError",
    "Injector",
    "Parameter",
    "SchedulePlayer",
    "ScheduledInjection",
    "Stage",
    "degrade",
]
