"""The HTML report of a replay: one file, pictures inside, no script needed to read it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.html_report import render_report
from anyseg_core.invocation import command_line, machine
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.model_card import ModelCard, introduction, usage_notice
from anyseg_core.runtime.sensors import CAMERA, Sensor, SensorFrame
from anyseg_core.wording import counted
from anyseg_ros.drawing.label_images import color_image, overlay_image, palette
from anyseg_ros.drawing.pictures import ABSENT, STATE_COLORS, initials, jpeg_uri
from anyseg_ros.drawing.timeline import timeline
from anyseg_ros.replay.conditions import Verdict
from anyseg_ros.replay.mask_records import LABELS
from anyseg_ros.replay.mask_scoring import ScoredMask, at_size
from anyseg_ros.replay.mask_sinks import TopViews
from anyseg_ros.replay.offline import ReplayResult
from anyseg_ros.replay.point_scoring import POINT_COLUMNS, PointScorer, point_rows
from anyseg_ros.replay.scenarios import ALL_SENSORS
from anyseg_ros.replay.summary import (
    PhaseTally,
    ScenarioSummary,
    Summary,
    Tally,
    baseline_of,
    class_losses,
    without_one,
)

OPACITY = 0.6
_PICTURE_WIDTH = 360
_MOST_PICTURES = 12
_MOST_CLASSES_LOST = 5
_MOST_SETS = 3
"""Sets of sensors that a row names."""
_SEEN = 0.005
"""IoU below which a class is not seen at all."""
_WRONG = np.array([229, 57, 53], np.uint8)


def write_report(
    path: Path,
    result: ReplayResult,
    summary: Summary,
    verdicts: Sequence[Verdict],
    views: TopViews | None = None,
    points: PointScorer | None = None,
) -> None:
    """Write the report; with views from above and scores of points, where there are any."""
    failed = sum(not verdict.passed for verdict in verdicts)
    losses = _losses(summary)
    html = render_report(
        Path(__file__).with_name("report.html.j2"),
        bag=result.bag.name,
        verdict=verdict_in_words(verdicts),
        is_passed=not failed,
        verdicts=verdicts,
        conditions=condition_rows(verdicts),
        facts=_facts(result, summary),
        sensors=_sensors(result, summary),
        problems=result.problems,
        notes=result.notes,
        against="the label images" if summary.has_labels else "the masks from all sensors (no label image was used)",
        labels=str(summary.labels),
        score_name=score_name(summary),
        has_labels=summary.has_labels,
        scenarios=[scenario_row(s, summary) for s in summary.scenarios.values()],
        losses=[row for row in losses if row["is_seen"]],
        never_seen=[row["name"] for row in losses if not row["is_seen"]],
        lost_sensors=list(without_one(summary)),
        timelines=[_timeline(s, summary, result.duration_s) for s in _with_timeline(summary)],
        top_views=_top_views(summary, result, views) if views is not None else [],
        point_columns=POINT_COLUMNS,
        point_rows=point_rows(points) if points is not None else [],
        state_colors={state.value: color for state, color in STATE_COLORS.items()},
        masks=[_overlay(mask, result.card) for mask in result.even.masks()],
        worst=list(_worst(result, summary)),
        class_colors=_class_colors(result, summary),
        card=result.card.model_dump(),
        student=introduction(result.card),
        notice=usage_notice(result.card),
        engine=result.engine,
        machine=machine(),
        command=command_line(),
    )
    path.write_text(html, encoding="utf-8")


def score_name(summary: Summary) -> str:
    """What the one column of scores is: an accuracy and an agreement never share a name."""
    return "mIoU" if summary.has_labels else "agreement mIoU"


def verdict_in_words(verdicts: Sequence[Verdict]) -> str:
    """`passed: 3 of 3 conditions`."""
    if not verdicts:
        return "no conditions were given"
    kept = sum(verdict.passed for verdict in verdicts)
    return f"{'passed' if kept == len(verdicts) else 'failed'}: {kept} of {len(verdicts)} conditions hold"


def condition_rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The verdicts by condition; those that failed are shown, else the first, and all where asked for."""
    by_name: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_name.setdefault(verdict.name, []).append(verdict)
    rows = []
    for name, parts in by_name.items():
        failed = [verdict for verdict in parts if not verdict.passed]
        scenarios = parts[0].scenario if len(parts) == 1 else counted(len(parts), "scenario")
        shown = failed[:5] or (parts if len(parts) == 1 else [])
        rows.append({"name": name, "scenarios": scenarios, "passed": not failed, "shown": shown, "parts": parts})
    return rows


def scenario_row(scenario: ScenarioSummary, summary: Summary) -> dict[str, Any]:
    """The figures of a scenario as text, the same in the terminal and in the report."""
    tally = scenario.tally
    return {
        "name": scenario.scenario.name,
        "sensors": made_from(tally),
        "faults": scenario.scenario.schedule.description if scenario.scenario.schedule else "",
        "masks": f"{tally.masks}" + (f" (+{tally.failures} failed)" if tally.failures else ""),
        "coverage": _percent(tally.coverage),
        "miou": _percent(summary.score(tally)),
        "width": 100 * (summary.score(tally) or 0.0),
        "agreement": _percent(tally.mean("agreement")),
        "flicker": _percent(tally.mean("flicker"), 2),
        "confidence": _percent(tally.mean("confidence")),
        "age": f"{_number(tally.age_ms.percentile(50))} / {_number(tally.age_ms.percentile(95))}",
        "engine": f"{_number(tally.engine_ms.percentile(50))} / {_number(tally.engine_ms.percentile(95))}",
        "is_reference": scenario is summary.reference,
    }


def made_from(tally: Tally) -> str:
    """The sensors that the masks were made from: the most frequent sets with their shares."""
    sets = tally.used.most_common(_MOST_SETS)
    if len(sets) == 1:
        return initials(sets[0][0])
    shown = [f"{initials(used)} {100 * count / tally.masks:.0f} %" for used, count in sets]
    return ", ".join(shown) + (", ..." if len(tally.used) > _MOST_SETS else "") or ABSENT


def _facts(result: ReplayResult, summary: Summary) -> str:
    masks = sum(s.tally.masks for s in summary.scenarios.values())
    timings = result.timings
    shared = f", {counted(timings.reused, 'mask')} shared between scenarios" if timings.reused else ""
    return (
        f"{result.duration_s:.1f} s of driving, {counted(len(summary.scenarios), 'scenario')}, "
        f"{counted(masks, 'mask')}; replayed in {timings.wall_s:.1f} s, "
        f"of which the network ran {timings.engine_s:.1f} s ({counted(timings.runs, 'run')}{shared})."
    )


def _sensors(result: ReplayResult, summary: Summary) -> list[dict[str, Any]]:
    used = summary.masks_with()
    return [
        {
            "name": str(modality),
            "topic": choice.topic,
            "type": choice.msgtype,
            "frames": result.received.get(modality, 0),
            "rejected": result.rejected.get(modality, 0),
            "masks": used.get(modality, 0),
            "rate": _rate(result.parameters.modalities[modality].expected_rate_hz),
        }
        for modality, choice in result.topics.sensors.items()
    ]


def _rate(expected_hz: float) -> str:
    """0 has the node learn it."""
    return f"{expected_hz:g}" if expected_hz else "learnt"


# --- what is no longer seen ------------------------------------------------------------------------------------------


def _losses(summary: Summary) -> list[dict[str, Any]]:
    """A row a class: IoU with all sensors, and how much of it is lost without each; the greatest loss first."""
    lost: dict[str, dict[Sensor, float]] = {}
    before: dict[str, float] = {}
    for modality, after in without_one(summary).items():
        for loss in class_losses(summary.classes, baseline_of(summary, summary.reference.tally, after), after):
            lost.setdefault(loss.name, {})[modality] = loss.lost
            before[loss.name] = loss.before
    names = sorted(lost, key=lambda name: -max(lost[name].values()))
    return [
        {
            "name": name,
            "iou": _percent(before[name]) if summary.has_labels else None,  # which would be 100 by construction
            "cells": _cells(lost[name], summary),
            "is_seen": before[name] >= _SEEN or min(lost[name].values()) <= -_SEEN,
        }
        for name in names
    ]


def _cells(lost: Mapping[Sensor, float], summary: Summary) -> list[dict[str, str]]:
    """Red where the class is lost, green where it is seen better without that sensor."""
    cells = []
    for modality in without_one(summary):
        points = 100 * lost.get(modality, 0.0)
        color = "229, 57, 53" if points > 0 else "67, 160, 71"
        text = f"{-points:+.1f}" if abs(points) >= 0.05 else "0"
        cells.append({"text": text, "color": f"rgba({color}, {min(abs(points) / 40, 0.85):.2f})"})
    return cells


# --- timelines -------------------------------------------------------------------------------------------------------


def _with_timeline(summary: Summary) -> list[ScenarioSummary]:
    return [s for s in summary.scenarios.values() if s is summary.reference or s.scenario.schedule is not None]


def _timeline(scenario: ScenarioSummary, summary: Summary, duration_s: float) -> dict[str, Any]:
    is_reference = scenario is summary.reference
    baseline = [] if is_reference else summary.reference.curve.points()
    phases = [phase.phase for phase in scenario.phases]
    svg = timeline(scenario.spans, phases, scenario.curve.points(), baseline, duration_s, score_name(summary))
    return {
        "name": scenario.scenario.name,
        "description": scenario.scenario.schedule.description if scenario.scenario.schedule else "",
        "svg": svg,
        "has_baseline": bool(baseline),
        "phases": [] if is_reference else [_phase_row(phase, summary) for phase in scenario.phases],
    }


def _top_views(summary: Summary, result: ReplayResult, views: TopViews) -> list[dict[str, Any]]:
    """The points from above in the middle of each phase of each scenario."""
    rows = []
    for scenario in _with_timeline(summary):
        shown = []
        for phase in (tally.phase for tally in scenario.phases):
            start, end = (result.start_ns + round(1e9 * t) for t in (phase.start_s, phase.end_s))
            view = views.nearest(scenario.scenario.name, (start + end) // 2, (start, end))
            if view is not None:
                uri = f"data:image/png;base64,{b64encode(view.tobytes()).decode()}"
                shown.append({"caption": f"{phase.start_s:.1f}-{phase.end_s:.1f} s: {phase.name}", "view": uri})
        if shown:
            rows.append({"name": scenario.scenario.name, "shown": shown})
    return rows


def _phase_row(phase: PhaseTally, summary: Summary) -> dict[str, str]:
    after = summary.matrix(phase.tally)
    losses = class_losses(summary.classes, baseline_of(summary, phase.baseline, after), after)
    worst = [f"{loss.name} {-100 * loss.lost:+.0f}" for loss in losses[:_MOST_CLASSES_LOST] if loss.lost > 0.005]
    baseline = summary.score(phase.baseline)
    used = ", ".join(f"{initials(used)} {count}" for used, count in phase.tally.used.most_common(4))
    return {
        "span": f"{phase.phase.start_s:.1f}-{phase.phase.end_s:.1f}",
        "fault": phase.phase.name,
        "masks": str(phase.tally.masks),
        "coverage": _percent(phase.tally.coverage),
        "miou": _percent(summary.score(phase.tally)),
        "baseline": _percent(baseline),
        "reaction": ABSENT if phase.reaction_s is None else f"{1000 * phase.reaction_s:.0f}",
        "used": used,
        "lost": ", ".join(worst) if phase.phase.injections else "",
    }


# --- pictures --------------------------------------------------------------------------------------------------------


def _overlay(mask: ScoredMask, card: ModelCard) -> dict[str, str]:
    """A mask over the camera's picture."""
    record, labels = mask.record, mask.made.labels
    assert labels is not None
    labels = at_size(labels, *record.size, *record.size)
    picture = overlay_image(_scene(mask.made.scene, labels.shape), color_image(labels, palette(card)), OPACITY)
    return {"picture": jpeg_uri(_shrunk(picture)), "caption": f"{record.t_s:.1f} s, made from {initials(record.used)}"}


def _worst(result: ReplayResult, summary: Summary) -> Iterator[dict[str, Any]]:
    """The worst masks of all sensors, of the faults, then of the subsets, with pictures."""
    names = [s.scenario.name for s in _with_timeline(summary)]
    names += [name for name, s in summary.scenarios.items() if s.scenario.is_subset]
    left = _MOST_PICTURES
    for name in names:
        shown = [_picture(mask, badness, result.card) for badness, mask in result.worst.worst_first(name)]
        shown = shown[: 3 if name == ALL_SENSORS else 2][: max(left, 0)]
        left -= len(shown)
        if shown:
            yield {"name": name, "moments": shown}


def _picture(mask: ScoredMask, badness: float, card: ModelCard) -> dict[str, Any]:
    record, truth = mask.record, mask.truth
    assert truth is not None
    assert mask.made.labels is not None
    labels = at_size(mask.made.labels, *record.size, *truth.shape)
    scene = _scene(mask.made.scene, truth.shape)
    colors = palette(card)
    wrong = scene // 3
    wrong[(labels != truth) & (truth != UNLABELLED)] = _WRONG
    tiles = {
        _truth_title(mask): overlay_image(scene, color_image(truth, colors), OPACITY),
        f"mask from {initials(record.used)}": overlay_image(scene, color_image(labels, colors), OPACITY),
        "wrong pixels" if record.against == LABELS else "differs from the mask of all sensors": wrong,
    }
    what = "mIoU" if record.against == LABELS else "agreement mIoU"
    caption = f"{record.t_s:.1f} s: {what} {100 * (1 - badness):.1f} %, stamp {record.stamp_ns}"
    return {"tiles": {title: jpeg_uri(_shrunk(tile)) for title, tile in tiles.items()}, "caption": caption}


def _truth_title(mask: ScoredMask) -> str:
    return "truth" if mask.record.against == LABELS else "mask from all sensors"


def _scene(frame: SensorFrame | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """What the camera saw, RGB; grey where the bag has none."""
    if frame is None or frame.kind is not CAMERA:
        return np.full((*shape, 3), 96, np.uint8)
    return np.asarray(cv2.resize(frame.data, shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = _PICTURE_WIDTH, round(picture.shape[0] * _PICTURE_WIDTH / picture.shape[1])
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _class_colors(result: ReplayResult, summary: Summary) -> list[dict[str, Any]]:
    """Of the classes that occur."""
    classes = result.card.classes
    total = ConfusionMatrix(len(classes))
    for scenario in summary.scenarios.values():
        total.merge(summary.matrix(scenario.tally))
    occurs = total.counts.sum(axis=1) + total.counts[:, :-1].sum(axis=0) > 0
    for mask in result.even.masks():
        if mask.made.labels is not None:
            occurs |= np.isin(np.arange(len(classes)), mask.made.labels)
    return [spec.model_dump() for spec, there in zip(classes, occurs, strict=True) if there]


def _percent(share: float | None, digits: int = 1) -> str:
    return ABSENT if share is None else f"{100 * share:.{digits}f}"


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}"
