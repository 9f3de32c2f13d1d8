"""`anyseg bench survive`: what it calls old, untrue and silent, and one attack on a real node."""

from __future__ import annotations

import pytest

from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_ros.bench.observer import Heard, HeardLevel, HeardMask, old_masks, silent_s, untrue_claims, untrue_levels

T0 = 10**18
ALL = ("camera", "depth", "event", "lidar")
EVERY = "segmenting with every modality"


def driven(seconds: float = 10.0, used: tuple[str, ...] = ALL, age_ms: float = 100.0) -> Heard:
    """Masks at 5 Hz of sensors that all deliver, and a level a second that says so."""
    heard = Heard()
    for index in range(round(5 * seconds)):
        stamp_ns = T0 + index * NS_PER_S // 5
        for sensor in ALL:
            heard.sensor_stamps[sensor].append(stamp_ns)
        written_ns = stamp_ns + round(age_ms * NS_PER_MS)
        heard.masks.append(HeardMask(stamp_ns, written_ns, written_ns + NS_PER_MS))
        heard.used[stamp_ns] = used
    heard.levels = [_level(s, 0, EVERY) for s in range(1, round(seconds))]
    return heard


def _level(second: int, level: int, message: str) -> HeardLevel:
    """Written late, as by an executor that is busy: it speaks of the moment of its stamp."""
    stamp_ns = T0 + second * NS_PER_S
    return HeardLevel(stamp_ns, stamp_ns + 900 * NS_PER_MS, level, message)


def test_a_good_drive_is_neither_old_nor_untrue_nor_silent() -> None:
    heard = driven()
    assert old_masks(heard, 500.0) == untrue_claims(heard, 500.0) == untrue_levels(heard) == []
    assert silent_s(heard) == 1.0


def test_a_mask_counts_as_old_by_when_it_was_written() -> None:
    heard = driven()
    heard.masks[3] = heard.masks[3]._replace(written_ns=heard.masks[3].stamp_ns + 600 * NS_PER_MS)
    heard.masks[7] = heard.masks[7]._replace(received_ns=heard.masks[7].stamp_ns + 900 * NS_PER_MS)  # the listener's
    assert old_masks(heard, 500.0) == [f"a mask of {heard.masks[3].stamp_ns} was 600 ms old"]


def test_a_claim_needs_a_message_of_that_time() -> None:
    heard = driven()
    heard.sensor_stamps["lidar"] = [s for s in heard.sensor_stamps["lidar"] if s < T0 + 5 * NS_PER_S]
    untrue = untrue_claims(heard, 500.0)
    assert len(untrue) == 23  # of the 25 masks of the last 5 s; the first two have one within 500 ms
    assert all("claims lidar" in text for text in untrue)


@pytest.mark.parametrize(
    ("level", "message", "masks_until_s", "used", "untrue"),
    [
        (0, EVERY, 4.0, ALL, "no mask for"),
        (1, "segmenting without lidar", 4.0, ALL, "no mask for"),
        (2, "no label image: no modality is usable", 10.0, ALL, "there was a mask"),
        (2, "no label image: no modality is usable", 4.0, ALL, ""),
        (0, EVERY, 10.0, ("camera", "depth", "event"), "no mask had lidar"),
        (1, "segmenting without lidar", 10.0, ("camera", "depth", "event"), ""),
    ],
)
def test_a_level_is_held_against_the_masks_of_its_time(
    level: int, message: str, masks_until_s: float, used: tuple[str, ...], untrue: str
) -> None:
    heard = driven(used=used)
    heard.masks = [mask for mask in heard.masks if mask.written_ns < T0 + masks_until_s * NS_PER_S]
    heard.levels = [_level(9, level, message)]
    found = untrue_levels(heard)
    assert bool(found) == bool(untrue)
    assert not untrue or any(untrue in text for text in found)


@pytest.mark.parametrize(("transition_s", "is_true"), [(8.9, True), (8.3, False), (9.5, False), (None, False)])
def test_a_mask_from_before_a_transition_contradicts_no_level(transition_s: float | None, is_true: bool) -> None:
    heard = driven(age_ms=50.0)
    heard.masks = [mask for mask in heard.masks if mask.written_ns < T0 + 8.9 * NS_PER_S]
    heard.levels = [_level(9, 2, "no label image: the node is not configured")]
    heard.transitions_ns = [] if transition_s is None else [T0 + round(transition_s * NS_PER_S)]
    assert (untrue_levels(heard) == []) is is_true


def test_a_node_that_says_nothing_is_silent() -> None:
    heard = driven()
    del heard.levels[3:7]
    assert silent_s(heard) == 5.0
