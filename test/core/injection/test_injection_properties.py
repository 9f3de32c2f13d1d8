"""Any valid scenario on any frames: never an exception, never a changed input, the same every time."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, InjectionScheduleError, Injector, Stage
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

S = 1_000_000_000
LOSES_POINTS = {"sparse", "sector_loss", "dead_rows"}
CHANGES_SIZE = {"half_size"}


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """One valid entry of a scenario."""
    kind = draw(st.sampled_from(list(INJECTION_KINDS)))
    fault = INJECTION_KINDS[kind]
    entry: dict[str, Any] = {
        "modality": draw(st.sampled_from(fault.modalities)),
        "kind": kind,
        "start_s": draw(st.floats(0, 2)),
        "parameters": {
            name: draw(st.floats(parameter.low, parameter.high))
            for name, parameter in fault.parameters.items()
            if draw(st.booleans())
        },
    }
    if draw(st.booleans()):
        entry["duration_s"] = draw(st.floats(0.01, 3))
    if draw(st.booleans()):
        entry["seed"] = draw(st.integers(0, 99))
    if fault.is_gradual and draw(st.booleans()):
        entry |= {"ramp_s": draw(st.floats(0, 3)), "probability": draw(st.floats(0, 1))}
    return entry


@st.composite
def frames(draw: st.DrawFn) -> SensorFrame:
    """A frame of any content, empty ones and absurd numbers included."""
    modality = draw(st.sampled_from(DEFAULT_SENSORS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    height, width = draw(st.integers(0, 7)), draw(st.integers(0, 7))
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e38], np.float32)
    if modality is Sensor.CAMERA:
        data = rng.integers(0, 256, (height, width, 3), np.uint8)
    elif modality is Sensor.EVENT:
        data = rng.integers(0, 256, (height, width, 2), np.uint8)
    else:
        shape = (height, width) if modality is Sensor.DEPTH else (height * width, 4)
        data = np.where(rng.random(shape) < 0.3, rng.choice(odd, shape), rng.uniform(-9, 60, shape)).astype(np.float32)
    data.setflags(write=False)
    return SensorFrame(modality, data, draw(st.integers(0, 2**61)), "optical")


def play(schedule: InjectionSchedule, sent: list[SensorFrame]) -> list[tuple[float, SensorFrame]]:
    injector = Injector(schedule)
    arrived = []
    for index, frame in enumerate(sent):
        arrived += [(index / 4, one) for one in injector.apply(frame, index / 4)]
    return arrived + [(arrival.elapsed_s, arrival.item) for arrival in injector.arrivals()]


@given(st.lists(entries(), max_size=5), st.lists(frames(), max_size=12), st.integers(0, 2**40))
@settings(max_examples=100)
def test_any_scenario_plays_on_any_frames_the_same_way_twice(
    faults: list[dict[str, Any]], sent: list[SensorFrame], seed: int
) -> None:
    schedule = InjectionSchedule.parse({"seed": seed, "injections": faults})
    before = [frame.data.tobytes() for frame in sent]
    first, second = play(schedule, sent), play(schedule, sent)
    assert [frame.data.tobytes() for frame in sent] == before
    assert [(t, f.modality, f.stamp_ns, f.data.tobytes()) for t, f in first] == [
        (t, f.modality, f.stamp_ns, f.data.tobytes()) for t, f in second
    ]
    assert len(first) <= len(sent)


@given(st.lists(entries(), min_size=1, max_size=3), frames())
@settings(max_examples=100)
def test_what_arrives_is_a_frame_of_its_kind(faults: list[dict[str, Any]], sent: SensorFrame) -> None:
    schedule = InjectionSchedule.parse({"injections": faults})
    for _, frame in play(schedule, [sent] * 5):
        assert (frame.modality, frame.frame_id, frame.data.dtype) == (sent.modality, "optical", sent.data.dtype)
        kinds = {fault.kind for fault in schedule.injections}
        if kinds & CHANGES_SIZE:
            assert frame.data.shape[2:] == sent.data.shape[2:]
            continue
        assert frame.data.shape[1:] == sent.data.shape[1:]
        loses_points = bool(kinds & LOSES_POINTS)
        if sent.modality is not Sensor.LIDAR or not loses_points:
            assert frame.data.shape == sent.data.shape


@given(st.lists(entries(), max_size=4), st.lists(frames(), max_size=12))
@settings(max_examples=60)
def test_only_the_sensors_of_the_scenario_are_touched(faults: list[dict[str, Any]], sent: list[SensorFrame]) -> None:
    schedule = InjectionSchedule.parse({"injections": faults})
    arrived = [frame for _, frame in play(schedule, sent)]
    for frame in sent:
        if frame.modality not in schedule.modalities:
            assert any(one is frame for one in arrived)


@given(st.lists(entries(), min_size=1, max_size=4), st.lists(frames(), max_size=12))
@settings(max_examples=60)
def test_frames_of_a_sensor_keep_their_order_in_time(faults: list[dict[str, Any]], sent: list[SensorFrame]) -> None:
    schedule = InjectionSchedule.parse(
        {"injections": [f for f in faults if INJECTION_KINDS[f["kind"]].stage >= Stage.LOSS]}
    )
    for modality in DEFAULT_SENSORS:
        order = [id(frame) for frame in sent if frame.modality is modality]
        arrived = [order.index(id(frame)) for _, frame in play(schedule, sent) if frame.modality is modality]
        assert arrived == sorted(arrived)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("modality", "kind", "start_s", "duration_s", "ramp_s", "probability", "every_s", "times", "parameters")


def complaint_about(content: Any) -> str:
    """Why a scenario is refused; empty for a good one. Any other exception fails the test."""
    try:
        InjectionSchedule.parse(content, "mine.yaml")
    except InjectionScheduleError as error:
        return str(error)
    return ""


@given(entries(), st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=3))
@settings(max_examples=200)
def test_a_wrong_entry_is_refused_by_its_number(entry: dict[str, Any], changes: dict[str, Any]) -> None:
    good = {"modality": "camera", "kind": "drop", "start_s": 1}
    complaint = complaint_about({"injections": [good, {**entry, **changes}]})
    assert not complaint or ("injection 2" in complaint and "injection 1" not in complaint)


@given(JSON)
@settings(max_examples=100)
def test_anything_else_is_refused_by_the_name_of_its_file(content: Any) -> None:
    complaint = complaint_about(content)
    assert not complaint or complaint.startswith("mine.yaml: ")
