"""Who of two was turned against the other is told by what each saw of its own turning."""

from __future__ import annotations

import pytest

from anyseg_core.runtime.cross_examination.own_turns import OwnTurns, Turn
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor

CAMERA, DEPTH, _, LIDAR = DEFAULT_SENSORS
NOISE = (0.2, -0.3, 0.1, -0.1, 0.3, -0.2)


def turned(own: dict[Sensor, float], axis: Turn, looks_after: int = 8) -> OwnTurns:
    """Each was turned by so much after ten looks."""
    turns = OwnTurns()
    for number in range(10 + looks_after):
        for sensor, degrees in own.items():
            noise = NOISE[number % len(NOISE)]
            if axis is Turn.RIGHT:
                turns.turned_right(sensor, noise + (degrees if number == 10 else 0.0))
            else:
                turns.level(sensor, axis, noise + (degrees if number >= 10 else 0.0))
    return turns


@pytest.mark.parametrize("axis", list(Turn))
@pytest.mark.parametrize(
    ("own", "of_second", "who"),
    [
        ({LIDAR: 2.0}, 2.0, LIDAR),
        ({LIDAR: -2.0}, -2.0, LIDAR),
        ({LIDAR: 2.0}, -2.0, None),  # to the other side
        ({LIDAR: 0.0}, 2.0, None),
        ({DEPTH: -2.0, LIDAR: 0.0}, 2.0, DEPTH),
        ({DEPTH: 2.0, LIDAR: 2.0}, 2.0, None),  # the body was
    ],
)
def test_who_was_turned_is_suspected(
    axis: Turn, own: dict[Sensor, float], of_second: float, who: Sensor | None
) -> None:
    pair = (DEPTH if DEPTH in own else CAMERA), LIDAR
    assert turned(own, axis).suspect(pair, axis, of_second) == who


def test_nothing_is_known_at_first() -> None:
    assert OwnTurns().suspect((CAMERA, LIDAR), Turn.RIGHT, 2.0) is None
    assert OwnTurns().only_inclined((DEPTH, LIDAR)) is None


@pytest.mark.parametrize(
    ("own", "who"),
    [({DEPTH: 0.0, LIDAR: 2.0}, LIDAR), ({DEPTH: -2.0, LIDAR: 0.0}, DEPTH), ({DEPTH: 2.0, LIDAR: 2.0}, None)],
)
def test_of_two_the_one_that_was_inclined_is_named_after_one_look(own: dict[Sensor, float], who: Sensor | None) -> None:
    assert turned(own, Turn.UP, looks_after=1).only_inclined((DEPTH, LIDAR)) == who


def test_a_bend_without_a_gyroscope_is_no_jump() -> None:
    turns = OwnTurns()
    for _ in range(20):
        turns.turned_right(LIDAR, 1.5)
    assert turns.change(LIDAR, Turn.RIGHT) == 0.0
