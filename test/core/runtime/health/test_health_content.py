"""Content checks: what the fault injector breaks is named, and what is odd but alive is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from living_sensors import live_data, live_frame
from numpy.typing import NDArray

from anyseg_core.injection import INJECTION_KINDS, degrade
from anyseg_core.runtime.health.monitor import Fault, HealthConfig, HealthMonitor, ModalityStatus, State
from anyseg_core.runtime.health.statistics import FULL, LidarStatistics, statistics_of
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_ros.pipeline.parameters import Parameters

CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS
PERIOD_NS = 100_000_000
SIZE = (144, 192)
SHIPPED = Parameters().health()


class MonitoredSensor:
    """A monitored sensor that delivers at 10 Hz, by default with the limits that the node ships."""

    def __init__(self, modality: Sensor, config: HealthConfig | None = None) -> None:
        self.modality = modality
        self.now = PERIOD_NS
        self.monitor = HealthMonitor(modality, config or SHIPPED[modality], self.now)
        self.rng = np.random.default_rng(3)

    def deliver(self, data: NDArray | None = None, sequence: int | None = None) -> ModalityStatus:
        """The status after the next frame."""
        self.now += PERIOD_NS
        content = live_data(self.modality, self.rng, *SIZE) if data is None else data
        self.monitor.on_frame(SensorFrame(self.modality, content, self.now, "", sequence), self.now)
        return self.monitor.status(self.now)

    def warm_up(self) -> MonitoredSensor:
        for _ in range(10):
            assert self.deliver().state is State.ACTIVE
        return self


NAMED = {
    (CAMERA, "black"): Fault.DARK,
    (CAMERA, "saturate"): Fault.SATURATED,
    (CAMERA, "noise"): Fault.NOISY,
    (CAMERA, "blockage"): Fault.BLANK,
    (CAMERA, "dead_rows"): Fault.BLANK,
    (CAMERA, "corrupt"): Fault.NOISY,
    (DEPTH, "noise"): Fault.NOISY,
    (DEPTH, "blockage"): Fault.INVALID_DEPTH,
    (DEPTH, "dead_rows"): Fault.INVALID_DEPTH,
    (DEPTH, "nan_depth"): Fault.INVALID_DEPTH,
    (DEPTH, "zero_depth"): Fault.INVALID_DEPTH,
    (DEPTH, "corrupt"): Fault.INVALID_DEPTH,
    (EVENT, "event_flood"): Fault.EVENT_FLOOD,
    (EVENT, "corrupt"): Fault.NOISY,
    (LIDAR, "noise"): Fault.NOISY,
    (LIDAR, "sector_loss"): Fault.LIDAR_SECTOR_LOST,
    (LIDAR, "sparse"): Fault.FEW_POINTS,
    (LIDAR, "corrupt"): Fault.NOISY,
}


@pytest.mark.parametrize(("modality", "kind"), NAMED, ids=str)
def test_what_the_injector_breaks_is_named_at_once_and_fails_within_five_frames(modality: Sensor, kind: str) -> None:
    sensor = MonitoredSensor(modality).warm_up()
    for index in range(5):
        frame = SensorFrame(modality, live_data(modality, sensor.rng, *SIZE), 0)
        pattern = np.random.default_rng(7) if INJECTION_KINDS[kind].fixed_pattern else sensor.rng
        status = sensor.deliver(degrade(frame, kind, pattern).data)
        assert (status.state is not State.ACTIVE, status.fault) == (True, NAMED[modality, kind]), index
        assert not sensor.monitor.usable(sensor.now)
    status = sensor.monitor.status(sensor.now)
    assert status.state is State.FAILED
    assert status.fault_counts == {NAMED[modality, kind]: 5}


@pytest.mark.parametrize("modality", DEFAULT_SENSORS)
def test_a_living_sensor_raises_no_alarm(modality: Sensor) -> None:
    sensor = MonitoredSensor(modality)
    for _ in range(60):
        assert sensor.deliver().state is State.ACTIVE
    assert sensor.monitor.status(sensor.now).fault_counts == {}


def test_a_sky_without_texture_is_not_blank() -> None:
    sensor = MonitoredSensor(CAMERA)
    for _ in range(30):
        picture = live_data(CAMERA, sensor.rng, *SIZE)
        picture[:100] = 255  # overexposed, two thirds of the picture
        assert sensor.deliver(picture).state is State.ACTIVE


def test_texture_lost_to_light_is_not_a_covered_lens() -> None:
    sensor = MonitoredSensor(CAMERA).warm_up()
    for _ in range(8):
        picture = live_data(CAMERA, sensor.rng, *SIZE)
        picture[:70] = 255
        assert sensor.deliver(picture).state is State.ACTIVE


def test_a_picture_of_one_colour_is_blank_from_the_first_frame_on() -> None:
    sensor = MonitoredSensor(CAMERA)
    grey = (120 + sensor.rng.integers(0, 3, (*SIZE, 3))).astype(np.uint8)
    assert sensor.deliver(grey).fault is Fault.BLANK


def test_a_dark_picture_with_lamps_is_no_fault() -> None:
    """A night without moon: lamps, and noise elsewhere."""
    sensor = MonitoredSensor(CAMERA)
    for _ in range(30):
        night = sensor.rng.integers(0, 6, (*SIZE, 3), np.uint8)
        night[60:66, 40:50] = sensor.rng.integers(180, 256, (6, 10, 3))
        assert sensor.deliver(night).state is State.ACTIVE


def test_open_sky_and_parked_event_cameras_are_no_fault() -> None:
    depth, event = MonitoredSensor(DEPTH), MonitoredSensor(EVENT)
    for _ in range(30):
        field = live_data(DEPTH, depth.rng, *SIZE)
        field[:120] = 0
        assert depth.deliver(field).state is State.ACTIVE
        assert event.deliver(np.zeros((*SIZE, 2), np.uint8)).state is State.ACTIVE


@pytest.mark.parametrize(("share", "is_fault"), [(0.25, False), (0.4, True)])
def test_where_houses_end_depth_does_and_a_covered_lens_loses_more(share: float, *, is_fault: bool) -> None:
    sensor = MonitoredSensor(DEPTH).warm_up()
    for _ in range(8):
        field = live_data(DEPTH, sensor.rng, *SIZE)
        field[:, : round(share * SIZE[1])] = 0
        assert (sensor.deliver(field).fault is Fault.INVALID_DEPTH) == is_fault


def test_a_lidar_that_never_looks_back_lacks_nothing() -> None:
    sensor = MonitoredSensor(LIDAR)
    for _ in range(30):
        points = live_data(LIDAR, sensor.rng)
        assert sensor.deliver(points[points[:, 0] > 0]).state is State.ACTIVE


def test_a_lost_sector_is_named_by_its_angles() -> None:
    sensor = MonitoredSensor(LIDAR).warm_up()
    frame = SensorFrame(LIDAR, live_data(LIDAR, sensor.rng), 0)
    status = sensor.deliver(degrade(frame, "sector_loss", sensor.rng, from_deg=30.0, to_deg=60.0).data)
    assert status.reason == "no points in 2 of 24 sectors: 30 to 45, 45 to 60 degrees"


def test_a_lost_sector_of_a_cloud_in_an_optical_frame_is_named_as_seen_from_above() -> None:
    """Depth cameras publish x right, y down, z ahead: angles about z would be those of the picture."""
    sensor = MonitoredSensor(LIDAR)
    for number in range(15):
        sensor.now += PERIOD_NS
        forward, left, up, intensity = live_data(LIDAR, sensor.rng).T
        optical = np.stack([-left, -up, forward, intensity], axis=-1)
        frame = SensorFrame(LIDAR, optical, sensor.now, "depth_camera_optical_frame")
        if number >= 10:
            frame = degrade(frame, "sector_loss", sensor.rng, from_deg=30.0, to_deg=60.0)
        sensor.monitor.on_frame(frame, sensor.now)
    reason = sensor.monitor.status(sensor.now).reason
    assert reason == "no points in 2 of 24 sectors: 30 to 45, 45 to 60 degrees"


def test_what_changes_slowly_becomes_usual() -> None:
    sensor = MonitoredSensor(LIDAR).warm_up()
    for keep in np.geomspace(1.0, 0.3, 300):
        points = live_data(LIDAR, sensor.rng)
        assert sensor.deliver(points[sensor.rng.random(len(points)) < keep]).state is State.ACTIVE


def test_a_handful_of_points_is_too_few_for_any_lidar() -> None:
    assert MonitoredSensor(LIDAR).deliver(live_data(LIDAR, np.random.default_rng(0))[:60]).fault is Fault.FEW_POINTS


def test_lost_packets_are_counted_by_their_numbers() -> None:
    sensor = MonitoredSensor(EVENT)
    for number in (7, 8, 9):
        assert sensor.deliver(sequence=number).state is State.ACTIVE
    status = sensor.deliver(sequence=14)
    assert (status.fault, status.reason) == (Fault.EVENT_SEQUENCE_GAP, "4 messages lost before number 14")
    assert sensor.deliver(sequence=15).state is State.ACTIVE
    assert sensor.deliver(sequence=0).state is State.ACTIVE  # a driver that started again lost nothing
    assert sensor.deliver(sequence=None).state is State.ACTIVE


def test_lost_packets_after_a_silence_that_was_told_are_no_news() -> None:
    sensor = MonitoredSensor(EVENT)
    for number in range(7):
        sensor.deliver(sequence=number)
    for _ in range(10):  # the timer, as a dead sensor leaves it
        sensor.now += PERIOD_NS
        sensor.monitor.on_time(sensor.now)
    assert sensor.monitor.status(sensor.now).fault is Fault.SILENT
    assert sensor.deliver(sequence=18).state is State.RECOVERING


def test_packets_lost_with_rejected_messages_are_no_news() -> None:
    sensor = MonitoredSensor(EVENT)
    for number in range(7):
        sensor.deliver(sequence=number)
    for _ in range(3):
        sensor.now += PERIOD_NS
        sensor.monitor.on_rejected(Fault.DECODE_ERROR, "truncated", sensor.now)
    assert sensor.deliver(sequence=10).state is State.RECOVERING
    assert sensor.deliver(sequence=12).fault is Fault.EVENT_SEQUENCE_GAP


def test_a_sensor_that_loses_packets_is_not_called_silent_between_them() -> None:
    sensor = MonitoredSensor(EVENT)
    faults = []
    for number in range(0, 60, 2):
        sensor.now += PERIOD_NS
        sensor.monitor.on_time(sensor.now + 70_000_000)
        status = sensor.deliver(sequence=number)
        faults.append(status.fault)
    assert set(faults[8:]) == {Fault.EVENT_SEQUENCE_GAP}


def test_tolerated_losses_are_a_threshold() -> None:
    gap = replace(HealthConfig().check(Fault.EVENT_SEQUENCE_GAP), threshold=4.0)
    sensor = MonitoredSensor(EVENT, HealthConfig(checks={Fault.EVENT_SEQUENCE_GAP: gap}))
    sensor.deliver(sequence=1)
    assert sensor.deliver(sequence=6).state is State.ACTIVE
    assert sensor.deliver(sequence=12).fault is Fault.EVENT_SEQUENCE_GAP


@pytest.mark.parametrize("modality", DEFAULT_SENSORS)
def test_an_empty_frame_is_the_wrong_size_or_has_too_few_points(modality: Sensor) -> None:
    shape = {CAMERA: (0, 5, 3), DEPTH: (5, 0), EVENT: (0, 0, 2), LIDAR: (0, 4)}[modality]
    dtype = np.float32 if modality in (DEPTH, LIDAR) else np.uint8
    expected = Fault.FEW_POINTS if modality is LIDAR else Fault.WRONG_SIZE
    assert MonitoredSensor(modality).deliver(np.zeros(shape, dtype)).fault is expected


@pytest.mark.parametrize("modality", DEFAULT_SENSORS)
def test_decimated_statistics_are_close_to_those_of_every_pixel(modality: Sensor) -> None:
    frame = live_frame(modality, 5, 480, 640)
    some, every = statistics_of(frame), statistics_of(frame, FULL)
    names = {
        CAMERA: ("highlight", "saturated", "brightness", "noise"),
        DEPTH: ("invalid", "noise"),
        EVENT: ("per_pixel", "active"),
        LIDAR: ("count", "noise"),
    }[modality]
    for name in names:
        assert getattr(some, name) == pytest.approx(getattr(every, name), rel=0.15, abs=0.02)


@pytest.mark.parametrize("order", ["scan", "columns", "shuffled rings"])
def test_noise_of_points_does_not_depend_on_the_driver_s_order(order: str) -> None:
    azimuth, ring = np.meshgrid(np.linspace(-np.pi, np.pi, 900, endpoint=False), np.linspace(-0.4, 0.2, 32))
    if order == "columns":
        azimuth, ring = azimuth.T, ring.T
    if order == "shuffled rings":
        mixed = np.random.default_rng(0).permutation(32)
        azimuth, ring = azimuth[mixed], ring[mixed]
    distance = np.where(ring < -0.1, 1.7 / np.abs(np.sin(ring)), 20.0).ravel()
    x, y = np.cos(azimuth.ravel()) * np.cos(ring.ravel()), np.sin(azimuth.ravel()) * np.cos(ring.ravel())
    direction = np.stack([x, y, np.sin(ring.ravel()), np.zeros(x.size)], axis=1)
    rng = np.random.default_rng(1)
    for sigma in (0.002, 0.2):
        noisy = direction * (distance * (1 + sigma * rng.standard_normal(x.size)))[:, None]
        statistics = statistics_of(SensorFrame(LIDAR, noisy.astype(np.float32), 0))
        assert isinstance(statistics, LidarStatistics)
        assert statistics.noise == pytest.approx(sigma, rel=0.25, abs=0.01)


ANY_FLOAT = st.floats(width=32)
ANY_ARRAY = {
    CAMERA: st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
        lambda size: arrays.arrays(np.uint8, (*size, 3), elements=st.integers(0, 255))
    ),
    DEPTH: st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
        lambda size: arrays.arrays(np.float32, size, elements=ANY_FLOAT)
    ),
    EVENT: st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
        lambda size: arrays.arrays(np.uint8, (*size, 2), elements=st.integers(0, 255))
    ),
    LIDAR: st.integers(1, 300).flatmap(lambda n: arrays.arrays(np.float32, (n, 4), elements=ANY_FLOAT)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("modality", DEFAULT_SENSORS)
@settings(max_examples=25)
@given(data=st.data())
def test_whatever_a_sensor_measures_it_is_judged(modality: Sensor, data: st.DataObject) -> None:
    """Any sizes and values, NaN and infinity among them: no exception, no warning, a quality in [0, 1]."""
    sensor = MonitoredSensor(modality)
    for _ in range(3):
        status = sensor.deliver(data.draw(ANY_ARRAY[modality]))
        assert status.quality is None or 0.0 <= status.quality.value <= 1.0
