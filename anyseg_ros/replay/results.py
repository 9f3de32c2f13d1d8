"""What a replay has found, for machines: results.jsonl, and JUnit XML for a continuous integration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from anyseg_core.invocation import command_line, machine
from anyseg_core.runtime.sensors import subset_name
from anyseg_ros.replay.conditions import Verdict
from anyseg_ros.replay.offline import ReplayResult
from anyseg_ros.replay.summary import ScenarioSummary, Summary, Tally


def write_results(path: Path, result: ReplayResult, summary: Summary, verdicts: Sequence[Verdict]) -> None:
    """A JSON object a line; `record` says of what: replay, scenario, phase or condition. Shares are 0..1."""
    lines = [_about(result, summary), *_scenarios(summary)]
    lines += [{"record": "condition", **vars(verdict)} for verdict in verdicts]
    path.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines), encoding="utf-8")


def write_junit(path: Path, result: ReplayResult, verdicts: Sequence[Verdict]) -> None:
    """One test case a verdict, as Jenkins, GitLab and pytest's readers take it."""
    failures = sum(not verdict.passed for verdict in verdicts)
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        name=f"anyseg replay {result.bag.name}",
        tests=str(len(verdicts)),
        failures=str(failures),
        errors="0",
        skipped="0",
        time=f"{result.timings.wall_s:.3f}",
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(suite, "testcase", name=verdict.name, classname=verdict.scenario, time="0")
        if verdict.passed:
            ElementTree.SubElement(case, "system-out").text = verdict.text
        else:
            ElementTree.SubElement(case, "failure", message=verdict.text).text = verdict.text
    notes = [*result.notes, *(problem.text for problem in result.problems)]
    ElementTree.SubElement(suite, "system-out").text = "\n".join(notes)
    ElementTree.indent(suites)
    ElementTree.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)


def _about(result: ReplayResult, summary: Summary) -> dict[str, Any]:
    timings = result.timings
    return {
        "record": "replay",
        "bag": str(result.bag),
        "duration_s": result.duration_s,
        "student": result.card.name,
        "engine": result.engine,
        "machine": machine(),
        "command": command_line(),
        "classes": list(summary.classes),
        "labels": vars(summary.labels),
        "masks_with": dict(summary.masks_with()),
        "rejections": {str(m): dict(reasons) for m, reasons in result.rejections.items()},
        "topics": {str(m): choice.topic for m, choice in result.topics.sensors.items()},
        "received": {str(m): count for m, count in result.received.items()},
        "rejected": {str(m): count for m, count in result.rejected.items()},
        "problems": [
            {"text": problem.text, "lost": problem.lost, "fails": problem.fails} for problem in result.problems
        ],
        "notes": list(result.notes),
        "wall_s": timings.wall_s,
        "engine_s": timings.engine_s,
        "runs": timings.runs,
        "reused": timings.reused,
        "resumed": timings.resumed,
    }


def _scenarios(summary: Summary) -> Iterator[dict[str, Any]]:
    for name, scenario in summary.scenarios.items():
        sensors = [str(m) for m in scenario.scenario.modalities]
        figures = _figures(scenario.tally, summary)
        yield {"record": "scenario", "scenario": name, "sensors": sensors, **figures}
        yield from _phases(name, scenario, summary)


def _phases(name: str, scenario: ScenarioSummary, summary: Summary) -> Iterator[dict[str, Any]]:
    for phase in scenario.phases if scenario.scenario.schedule else ():
        yield {
            "record": "phase",
            "scenario": name,
            "phase": phase.phase.name,
            "start_s": phase.phase.start_s,
            "end_s": phase.phase.end_s,
            "reaction_s": phase.reaction_s,
            "miou_all_sensors": phase.baseline.miou,
            "agreement_miou_all_sensors": phase.baseline.agreement_miou,
            **_figures(phase.tally, summary),
        }


def _figures(tally: Tally, summary: Summary) -> dict[str, Any]:
    iou = tally.confusion.iou()
    return {
        "masks": tally.masks,
        "failures": tally.failures,
        "rate_hz": tally.rate_hz,
        "coverage": tally.coverage,
        "miou": tally.miou,
        "agreement_miou": tally.agreement_miou,
        "iou": {name: float(value) for name, value in zip(summary.classes, iou, strict=True) if not np.isnan(value)},
        **{name: tally.mean(name) for name in ("agreement", "changed", "flicker", "confidence")},
        **{f"age_p{p}_ms": tally.age_ms.percentile(p) for p in (50, 95)},
        **{f"engine_p{p}_ms": tally.engine_ms.percentile(p) for p in (50, 95)},
        "used": {subset_name(used): count for used, count in tally.used.most_common()},
    }
