"""The bench of what comparing the sensors costs measures each look, and holds its mean against both bars."""

from __future__ import annotations

import pytest
from fitting_sensors import RIG, Scene, driving

from anyseg_ros.bench import examination


def test_each_look_is_measured() -> None:
    scene, twist = Scene(), driving(8.0)
    assert twist is not None
    looks_ms = examination.examination_ms([(scene.frames(number), twist) for number in range(4)], RIG)
    assert len(looks_ms) == 4
    assert min(looks_ms) > 0


@pytest.mark.parametrize(
    ("looks_ms", "engine_ms", "met"),
    [([1.0, 2.0], [40.0], True), ([1.0, 5.0], [80.0], False), ([1.0, 2.0], [20.0], False)],
)
def test_the_mean_is_held_against_both_bars(looks_ms: list[float], engine_ms: list[float], *, met: bool) -> None:
    assert examination._result(looks_ms, engine_ms).met is met
