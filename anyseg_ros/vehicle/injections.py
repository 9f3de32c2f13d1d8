"""The simulated vehicle's faults: of its frames before they become messages, of its messages after that."""

from __future__ import annotations

import os
import signal

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, Injector, Stage
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.inject.messages import MessageInjector, SensorMessage
from anyseg_ros.messages.sensor_messages import SENSOR_MESSAGES
from anyseg_ros.vehicle.publisher import VehiclePublisher

_OF_FRAMES = tuple(stage for stage in Stage if stage is not Stage.MESSAGE)


class VehicleInjections:
    """Plays a schedule on what the vehicle publishes."""

    def __init__(self, schedule: InjectionSchedule) -> None:
        self._frames = Injector(schedule, stages=_OF_FRAMES)
        of_messages = any(INJECTION_KINDS[entry.kind].stage is Stage.MESSAGE for entry in schedule.injections)
        self._messages = MessageInjector(schedule, stages=(Stage.MESSAGE,)) if of_messages else None

    def publish(self, vehicle: VehiclePublisher, frame: SensorFrame, elapsed_s: float) -> None:
        """What a driver with these faults sends of a frame, `elapsed_s` seconds after the start."""
        if self._frames.must_die(elapsed_s):
            os.kill(os.getpid(), signal.SIGKILL)
        for delivered in self._frames.apply(frame, elapsed_s):
            if self._messages is None:
                vehicle.publish(delivered)
            else:
                vehicle.publish(delivered, lambda modality, cdr: self._rewritten(modality, cdr, elapsed_s))

    def _rewritten(self, modality: Sensor, cdr: bytes, elapsed_s: float) -> bytes:
        assert self._messages is not None
        msgtype = next(iter(SENSOR_MESSAGES[modality.kind].readers))
        (message,) = self._messages.apply(SensorMessage(modality, msgtype, cdr), elapsed_s)
        return bytes(message.cdr)
