"""`anyseg replay` from end to end: replay, judge, write results and report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anyseg_core.runtime.engines.protocol import EngineError
from anyseg_core.runtime.model_card import StudentError, find_student, load_card
from anyseg_core.terminal import progress_bar
from anyseg_core.wording import counted
from anyseg_ros.bags.files import bag_files
from anyseg_ros.bags.ground_truth import GroundTruthError
from anyseg_ros.bags.reader import BagError
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.planner_products import output_classes
from anyseg_ros.replay.conditions import Conditions, Verdict, judge
from anyseg_ros.replay.mask_bag import MaskBag
from anyseg_ros.replay.mask_records import read_records
from anyseg_ros.replay.mask_sinks import EverySink, MaskSink, TopViews
from anyseg_ros.replay.offline import MASKS, ReplayError, ReplayOptions, ReplayResult, replay
from anyseg_ros.replay.point_scoring import PointScorer, open_truth, point_table
from anyseg_ros.replay.report import condition_rows, scenario_row, score_name, verdict_in_words, write_report
from anyseg_ros.replay.results import write_junit, write_results
from anyseg_ros.replay.student_note import print_student
from anyseg_ros.replay.summary import Summary, summarise
from anyseg_ros.replay.video import MaskVideo

RESULTS, JUNIT, REPORT, POINTS = "results.jsonl", "junit.xml", "report.html", "points.json"
FLEET_RESULTS = "fleet.json"
REPLAY_ERRORS = (BagError, EngineError, OSError, StudentError, ValueError)
"""What `run_replay` raises on bad input; every other one is a ValueError."""


@dataclass(frozen=True)
class RunOptions:
    """What `anyseg replay` was asked for."""

    bag: Path
    out: Path
    replay: ReplayOptions
    conditions: Path | None = None
    write_bag: Path | None = None
    video: Path | None = None
    point_labels: Path | None = None
    """A folder of labels of LiDAR points, in the form of SemanticKITTI."""
    point_classes: Path | None = None
    """What the ids in those files are: a YAML file of `id: class`; None: the student's labels."""


def labels_from(labels: str | None, mapping: Mapping[str, str]) -> tuple[Path | None, dict[str, str]]:
    """What `--labels` says: a folder, or a topic, which joins the `--map` options."""
    if labels is None:
        return None, dict(mapping)
    if Path(labels).is_dir():
        return Path(labels), dict(mapping)
    if not labels.startswith("/"):
        raise GroundTruthError(f"no folder at {labels}; a topic begins with /")
    return None, {**mapping, "labels": labels}


def require_bags(bags: Sequence[Path]) -> None:
    """Refuse what is no bag at all before one of them is begun. Raises BagError."""
    for bag in bags:
        try:
            bag_files(bag)
        except BagError as error:
            hint = f"; parameters are given as --params-file {bag}" if bag.suffix in (".yaml", ".yml") else ""
            raise BagError(f"{error}{hint}") from None


def run_replay(options: RunOptions, console: Console, sink: MaskSink | None = None) -> list[Verdict]:
    """Replay a bag and write everything into the folder `out`; returns the verdicts. `sink` gets every mask, too.

    Raises what `replay` raises, and ConditionError.
    """
    conditions = Conditions.load(options.conditions) if options.conditions else None
    sinks = Sinks(options, sink)
    print_student(sinks.card, console)
    result = _replay(replace(options, replay=replace(options.replay, conditions=conditions)), sinks)
    summary = summarise(result, options.out)
    failed = [problem.text for problem in result.problems if problem.fails]
    verdicts = [Verdict("the replay did what was asked for", "the bag", False, text) for text in failed]
    verdicts += _verdicts(conditions, result, options.out) if conditions else []
    write_results(options.out / RESULTS, result, summary, verdicts)
    write_junit(options.out / JUNIT, result, verdicts)
    write_report(options.out / REPORT, result, summary, verdicts, sinks.views, sinks.points)
    _print(console, result, summary, verdicts)
    sinks.report(console, options.out, [spec.name for spec in result.card.classes])
    console.print(f"report: {options.out / REPORT}", soft_wrap=True)
    return verdicts


def copy_results(out: Path, json_file: Path | None) -> None:
    """Write what was found by a replay into `out` to a JSON file: a list of results, or a fleet's sums."""
    if json_file is None:
        return
    lines = out / RESULTS
    found = [json.loads(line) for line in lines.read_text().splitlines()] if lines.is_file() else None
    content = found if found is not None else json.loads((out / FLEET_RESULTS).read_text())
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(content, indent=2) + "\n")


def _replay(options: RunOptions, sinks: Sinks) -> ReplayResult:
    with sinks as sink, progress_bar("messages") as progress:
        return replay(options.bag, options.out, options.replay, progress=progress, sink=sink)


class Sinks:
    """Everything that a replay makes of its masks besides their scores. Use it as a context manager, once."""

    def __init__(self, options: RunOptions, other: MaskSink | None = None) -> None:
        """`other` gets the masks, too. Raises what is wrong with the options before anything is replayed."""
        model, parameters = options.replay.model, options.replay.parameters or Parameters()
        self.card = card = load_card(find_student(model.student))
        classes = output_classes(card, parameters)
        names = [spec.name for spec in card.classes]
        self.bag: MaskBag | None = None
        self.video: MaskVideo | None = None
        self.points: PointScorer | None = None
        # A run that is resumed makes again only what a sink asks for: for the views alone it need not.
        self.views = None if options.replay.resume else TopViews(classes, parameters)
        if options.point_labels is not None:
            folder, ids = options.point_labels, options.point_classes
            truth = open_truth(options.bag, options.replay.topics, folder, ids, parameters, names)
            self.points = PointScorer(truth, len(names), parameters)
        if options.video is not None:
            self.video = MaskVideo(options.video, classes, parameters)
        if options.write_bag is not None:
            if options.write_bag.exists():
                remedy = "delete it, --resume writes it anew" if options.replay.resume else "name a new folder"
                raise ReplayError(f"{options.write_bag} exists already: {remedy}")
            self.bag = MaskBag(options.write_bag, classes, parameters)
        self._other = other
        self._open = ExitStack()

    def __enter__(self) -> MaskSink | None:
        for opened in (self.bag, self.video):
            if opened is not None:
                self._open.enter_context(opened)
        sinks = [sink for sink in (self.bag, self.video, self.points, self.views, self._other) if sink is not None]
        return EverySink(sinks) if sinks else None

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def report(self, console: Console, out: Path, classes: Sequence[str]) -> None:
        """Say and write what they have made."""
        for file in self.video.files if self.video is not None else ():
            console.print(f"video: {file}", soft_wrap=True)
        if self.points is None:
            return
        scores = {name: score.to_json(classes) for name, score in self.points.scores.items()}
        (out / POINTS).write_text(json.dumps(scores, indent=2) + "\n")
        console.print(point_table(self.points))
        for reason, count in self.points.unusable.items():
            console.print(f"[yellow]points:[/] {count} x {escape(reason)}", soft_wrap=True)


def _verdicts(conditions: Conditions, result: ReplayResult, out: Path) -> list[Verdict]:
    """The conditions', after the one that always is: what was judged is the whole bag."""
    lost = [problem.text for problem in result.problems if problem.lost]
    whole = Verdict("the bag was read completely", "the bag", not lost, "; ".join(lost) or "no message was lost")
    classes = [spec.name for spec in result.card.classes]
    return [whole, *judge(conditions, read_records(out / MASKS), list(result.scores), classes)]


def _print(console: Console, result: ReplayResult, summary: Summary, verdicts: list[Verdict]) -> None:
    for problem in result.problems:
        color = "red" if problem.lost or problem.fails else "yellow"
        console.print(f"[{color}]bag:[/] {escape(problem.text)}", soft_wrap=True)
    for note in result.notes:
        console.print(f"[dim]{escape(note)}[/]", soft_wrap=True)
    if summary.labels.origin:
        console.print(f"[dim]{escape(str(summary.labels))}[/]", soft_wrap=True)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    score = f"{score_name(summary)} %"
    for column in ("scenario", "made from", "masks", "cover %", score, "agree %", "flicker %", "engine ms p50/p95"):
        table.add_column(column, justify="left" if column in ("scenario", "made from") else "right")
    for scenario in summary.scenarios.values():
        row = scenario_row(scenario, summary)
        names = ("name", "sensors", "masks", "coverage", "miou", "agreement", "flicker", "engine")
        table.add_row(*(row[name] for name in names))
    console.print(table)
    timings = result.timings
    share = 100 * timings.engine_s / timings.wall_s if timings.wall_s else 0.0
    speed = result.duration_s / timings.wall_s if timings.wall_s else 0.0
    console.print(
        f"[dim]{timings.wall_s:.1f} s, {speed:.2g} x real time; {counted(timings.runs, 'run')} of the network took "
        f"{share:.0f} % of it; {counted(timings.reused, 'mask')} shared, {timings.resumed} there already[/]"
    )
    for row in condition_rows(verdicts):
        mark = "[green]passed[/]" if row["passed"] else "[red]failed[/]"
        console.print(f"{mark} {escape(row['name'])} \\[{escape(row['scenarios'])}]", soft_wrap=True)
        for verdict in row["shown"]:
            console.print(f"       {escape(verdict.scenario)}: {escape(verdict.text)}", soft_wrap=True)
    if verdicts:
        console.print(verdict_in_words(verdicts))
