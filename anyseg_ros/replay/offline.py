"""Replay a bag through the node's own pipeline, in simulated time and as fast as the machine allows. No ROS.

    result = replay(Path("bag"), Path("out"), ReplayOptions(subsets=True, injections=(Path("config/injections"),)))
    result.scores["all"].confusion  # ConfusionMatrix against the labels; merge it with those of other bags

    replay(bag: Path, out: Path | None, options: ReplayOptions = ReplayOptions(), *, segmenter: Segmenter | None = None,
           progress: Callable[[int, int], None] | None = None) -> ReplayResult

`out` gets masks.jsonl (a line per mask), states.jsonl (a line per change of a sensor's state) and run.json (what was
replayed); None writes nothing. `segmenter` is used and left open; without it the student of the options is opened.
`progress` is called with (messages read, messages in the bag).

Time: the clock is the time at which the recorder received each message (or the stamps, where these are of another
clock). Messages received at the same nanosecond are delivered together. The network takes no simulated time, so that
every set is segmented, whatever the machine; with `engine_ms` it takes that long, and sets that fall into it are
skipped as in the live node. Two runs therefore give identical masks. The decisions of the pipeline depend on the
network by its looks as a witness (`cross_examination.network_rate_hz`), not on the masks: a run that was killed is
resumed by deciding everything again, with these looks, and making masks only where a record lacks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from anyseg_core.runtime.cross_examination.agreement import Shown
from anyseg_core.runtime.engines.protocol import EngineError
from anyseg_core.runtime.files import replace_text
from anyseg_core.runtime.input_images import InputError
from anyseg_core.runtime.segmenter import Segmentation, Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, in_order
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_ros.bags.ground_truth import FolderLabels, GroundTruth, NoLabels, TopicLabels
from anyseg_ros.bags.reader import BagReader, Problem
from anyseg_ros.bags.samples import BagSamples, BagTiming, BagTopics, look_ahead
from anyseg_ros.bags.topics import (
    TopicError,
    find_companions,
    find_topics,
    left_out,
    mapping_by,
    taken_instead,
)
from anyseg_ros.pipeline.intensity_fit import fit_of
from anyseg_ros.pipeline.jobs import Job, Result, network_knowledge
from anyseg_ros.pipeline.parameters import ModelParameters, Parameters, defaults_of, to_values
from anyseg_ros.replay.conditions import Conditions
from anyseg_ros.replay.decisions import Decisions, MomentEnd, PlannedMask
from anyseg_ros.replay.even_frames import EvenFrames
from anyseg_ros.replay.mask_records import MaskLog, MaskRecord, read_records
from anyseg_ros.replay.mask_scoring import MadeMask, MaskScorer, ScoredMask, mask_hash
from anyseg_ros.replay.mask_sinks import MaskSink
from anyseg_ros.replay.outcome import ReplayResult, ScenarioScore, Timings
from anyseg_ros.replay.prefetch import Prefetch
from anyseg_ros.replay.scenario_run import ScenarioRun, StateChange
from anyseg_ros.replay.scenarios import ALL_SENSORS, ScenarioError, scenarios_for
from anyseg_ros.replay.shared_inference import SharedInference
from anyseg_ros.replay.worst_frames import WorstFrames

MASKS, STATES, RUN = "masks.jsonl", "states.jsonl", "run.json"
USUAL_RATE_HZ = 10.0
"""Of a sensor whose rate is not known."""
OVERLAP_S = 1.2
"""Of simulated time that a resumed run segments again: what the next masks are compared with."""


class ReplayError(ValueError):
    """A replay that cannot be done as asked; the message names the cause and the remedy."""


@dataclass(frozen=True)
class ReplayOptions:
    """What to replay, and how."""

    student: str | Path | None = None
    """Name of a bundled one, or a folder; None: that of the parameters."""
    parameters: Parameters | None = None
    """The node's. None: its defaults, with the sensors' rates as the bag has them."""
    topics: Mapping[str, str] = field(default_factory=dict)
    """Role to topic, as `bags.topics.parse_mapping` gives it; the others are found."""
    subsets: bool = False
    """Also every proper subset of the sensors."""
    injections: tuple[Path, ...] = ()
    """Fault files, or folders of them: a scenario each."""
    labels: Path | None = None
    """A folder of label images; None: the bag's label topic, if it has one."""
    engine_ms: float = 0.0
    """Simulated time that the network takes."""
    resume: bool = False
    """Go on where an interrupted run with the same options has stopped."""
    conditions: Conditions | None = None
    """Checked before the run against the scenarios, classes, labels and time that it will have; judged after it."""

    @property
    def model(self) -> ModelParameters:
        """That of the parameters, with the student that is named here."""
        model = (self.parameters or Parameters()).model
        return replace(model, student=str(self.student)) if self.student else model


def replay(
    bag: Path,
    out: Path | None,
    options: ReplayOptions = ReplayOptions(),
    *,
    segmenter: Segmenter | None = None,
    progress: Callable[[int, int], None] | None = None,
    sink: MaskSink | None = None,
) -> ReplayResult:
    """Replay one bag.

    Raises BagError, TopicError, ReplayError, ScenarioError, InjectionScheduleError, GroundTruthError, and StudentError
    or EngineError where the student cannot be opened.
    """
    reader = BagReader(bag)
    owned = None
    if segmenter is None:
        segmenter = owned = open_student(options.model)
    try:
        return _Replay(reader, out, options, segmenter, sink).run(progress)
    finally:
        if owned is not None:
            owned.close()


def open_student(model: ModelParameters) -> Segmenter:
    """As the node opens it. Raises StudentError or EngineError."""
    return Segmenter.open(model.student, model.backend, model.threads, model.build_options())


class _Replay:
    """One pass over the bag, all scenarios side by side."""

    def __init__(
        self, reader: BagReader, out: Path | None, options: ReplayOptions, segmenter: Segmenter, sink: MaskSink | None
    ) -> None:
        self.reader, self.out, self.options, self.segmenter, self.sink = reader, out, options, segmenter, sink
        self.notes: list[str] = []
        self.setup_problems: list[Problem] = []
        self.topics = self._find_topics()
        self.timing = timing = look_ahead(reader, self.topics)
        self.parameters = self._adapted(timing)
        self.modalities = in_order(self.topics.sensors)
        self.scenarios = scenarios_for(self.modalities, options.subsets, options.injections)
        self._check_injections()
        self.samples = BagSamples(reader, self.topics, self.parameters, uses_stamps=timing.uses_stamps)
        self.truth = self._open_truth(timing)
        card = segmenter.card
        self.classes = len(card.classes)
        if options.conditions is not None:
            names = [spec.name for spec in card.classes]
            has_labels = bool(self.truth.origin)
            options.conditions.require([s.name for s in self.scenarios], names, self.duration_s, has_labels=has_labels)
        self.scorer = self._open_scorer(timing)
        self.scores = {s.name: ScenarioScore(s, self.classes) for s in self.scenarios}
        self.inference = SharedInference(segmenter, self.parameters.output.min_confidence)
        self.last_reason: dict[Sensor, str] = {}
        """What the health of each sensor said last, with all sensors."""
        self.resumed = 0
        self.prefetch = Prefetch()
        self._open_log()
        ahead = self.inference.encode_ahead
        self.decisions = Decisions(self.samples, self.modalities[0], self._open_runs, ahead, encode_from=self.log.kept)

    def run(self, progress: Callable[[int, int], None] | None) -> ReplayResult:
        """The network runs on the caller's thread, whose engine it is; the bag is read and decided on another."""
        total = self.reader.count(self.topics.names())
        started = time.perf_counter()
        with closing(self.log), self._states_file() as states:
            for decision in self.prefetch.items(self.decisions):
                if isinstance(decision, PlannedMask):
                    self._make(decision)
                elif isinstance(decision, MomentEnd):
                    self._finish(self.scorer.scored(decision.now_ns))
                    self._write_states(decision, states)
                    if progress is not None:
                        progress(decision.messages, total)
                elif isinstance(self.truth, TopicLabels):
                    self.truth.add(decision.stamp_ns, decision.labels)
            self._finish(self.scorer.rest())
        return self._result(time.perf_counter() - started)

    # --- before ------------------------------------------------------------------------------------------------------

    def _find_topics(self) -> BagTopics:
        connections = [(choice.topic, choice.msgtype) for choice in self.reader.topics]
        parameters = self.options.parameters or Parameters()
        mapping: Mapping[str, str] = self.options.topics
        if self.options.parameters is not None:
            mapping = mapping_by(parameters, connections, mapping)
        wanted = [m for m in self.segmenter.modalities if parameters.modalities[m].enabled]
        sensors = find_topics(connections, mapping, wanted)
        if not sensors:
            listed = ", ".join(f"{c.topic} ({c.msgtype})" for c in self.reader.topics) or "none"
            raise TopicError(
                f"no topic of {self.reader.path} is a sensor that student {self.segmenter.card.name} takes "
                f"({', '.join(wanted)}). Topics there: {listed}. Name them with --map, or use another --student."
            )
        companions = find_companions(connections, sensors, mapping)
        self.notes += left_out(connections, sensors, companions, wanted, mapping)
        self.notes += taken_instead(parameters, sensors, companions, mapping)
        return BagTopics(sensors, companions)

    def _adapted(self, timing: BagTiming) -> Parameters:
        """The node's parameters; where none were given, with the rates of the bag."""
        for modality, number in timing.without_stamps.items():
            text = f"{modality}: the stamps of {number} messages at the bag's beginning are 0: its driver does not set "
            self.setup_problems.append(Problem(text + "header.stamp, without which frames have no age"))
        if timing.uses_stamps:
            self.notes.append("the stamps are of another clock than the recorder's: time is that of the stamps")
        if self.options.parameters is not None:
            return self.options.parameters
        defaults = defaults_of(in_order({*DEFAULT_SENSORS, *self.topics.sensors}))
        modalities = dict(defaults.modalities)
        adapted = []
        for modality, rate in timing.rates_hz.items():
            before = modalities[modality]
            if abs(rate - before.expected_rate_hz) > 0.05 * before.expected_rate_hz:
                oldest = max(before.max_age_ms, 1500.0 / rate)
                modalities[modality] = replace(before, expected_rate_hz=rate, max_age_ms=oldest)
                adapted.append(f"{modality} {rate:g} Hz")
        if adapted:
            self.notes.append(f"expected rates are those of the bag's beginning: {', '.join(adapted)}")
        return replace(defaults, modalities=modalities)

    def _open_truth(self, timing: BagTiming) -> GroundTruth:
        if self.options.labels is not None:
            folder = FolderLabels(self.options.labels)
            if not timing.uses_stamps:  # else the bag's times are of another clock than the stamps
                folder.require_within(self.reader.start_ns - NS_PER_S, self.reader.end_ns + NS_PER_S)
            return folder
        choice = self.topics.companions.labels
        return TopicLabels(choice.topic) if choice is not None else NoLabels()

    @property
    def duration_s(self) -> float:
        """From the first message of the bag to its last one."""
        return max(0, self.reader.end_ns - self.reader.start_ns) / NS_PER_S

    def _check_injections(self) -> None:
        """Raises ScenarioError for a scenario that would never happen in this bag."""
        for scenario in self.scenarios:
            injections = scenario.schedule.injections if scenario.schedule else ()
            late = [injection for injection in injections if injection.start_s >= self.duration_s]
            if injections and len(late) == len(injections):
                first = min(injection.start_s for injection in late)
                raise ScenarioError(
                    f"scenario {scenario.name}: its first injection begins at {first:g} s, but the bag is "
                    f"{self.duration_s:.1f} s long: set start_s, or leave the file out"
                )
            if late:
                text = (
                    f"scenario {scenario.name}: {len(late)} of its {len(injections)} injections begin after the bag's"
                )
                self.setup_problems.append(Problem(f"{text} end, at {self.duration_s:.1f} s"))

    def _open_scorer(self, timing: BagTiming) -> MaskScorer:
        """A label image belongs to the mask whose anchor is nearest, within half the period of that sensor."""
        rates = {m: timing.rates_hz.get(m) or self.parameters.modalities[m].expected_rate_hz for m in self.modalities}
        half_period_ns = {m: round(NS_PER_S / (2 * (rate or USUAL_RATE_HZ))) for m, rate in rates.items()}
        within_ns = int(self.parameters.sync.max_time_diff_ms * NS_PER_MS)
        return MaskScorer(self.classes, self.truth, half_period_ns, within_ns if len(self.scenarios) > 1 else None)

    def _open_log(self) -> None:
        """The file of records, what it has already, and which of these masks are to be made again."""
        self.worst = WorstFrames(self.classes, has_labels=bool(self.truth.origin))
        self.even = EvenFrames(self.duration_s)
        self._again: set[int] = set()
        self._again_from_s = 0.0
        self.log = MaskLog(None, resume=False)
        self._known: Iterator[MaskRecord] = iter(())
        if self.out is None:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        path, about = self.out / MASKS, _as_json(self._about())
        try:
            if self.options.resume:
                _check_same(self.out / RUN, about)
                self._plan_resume(path)
            replace_text(self.out / RUN, json.dumps(about, indent=2) + "\n")  # without which no run is resumed
            self.log = MaskLog(path, resume=self.options.resume)
            self._known = read_records(path)
        except ValueError as error:
            raise ReplayError(f"cannot go on with {path}: {error}. Run it without --resume.") from None

    def _plan_resume(self, path: Path) -> None:
        worst = WorstFrames(self.classes, has_labels=bool(self.truth.origin))
        even = EvenFrames(self.duration_s)
        last_s = 0.0
        for record in read_records(path):
            worst.add(record, None)
            even.add(record, None)
            last_s = record.t_s
        self._again, self._again_from_s = worst.numbers() | even.numbers(), last_s - OVERLAP_S

    def _about(self) -> dict[str, Any]:
        """What decides the masks: a run can only be resumed with the same."""
        return {
            "bag": self.reader.path.name,
            "content": self.reader.fingerprint(),
            "topics": {choice.topic: count for choice, count in self.reader.topics.items()},
            "sensors": {str(m): choice.topic for m, choice in self.topics.sensors.items()},
            "student": self.segmenter.card.model_dump(mode="json"),
            "parameters": to_values(self.parameters),
            "scenarios": {s.name: s.schedule.model_dump(mode="json") if s.schedule else {} for s in self.scenarios},
            "labels": {p.name: p.stat().st_size for p in self._label_files()},
            "engine_ms": self.options.engine_ms,
        }

    def _label_files(self) -> list[Path]:
        return sorted(self.options.labels.glob("*.png")) if self.options.labels else []

    def _open_runs(self, start_ns: int) -> list[ScenarioRun]:
        knowledge, engine_ms = network_knowledge(self.segmenter.card), self.options.engine_ms
        return [
            ScenarioRun(scenario, self.parameters, start_ns, engine_ms, self._ask_network, knowledge)
            for scenario in self.scenarios
        ]

    def _ask_network(self, job: Job) -> Mapping[Sensor, Shown]:
        """On the thread that decides: the engine belongs to the other one."""
        return self.prefetch.on_caller(lambda: self.inference.look(job))

    # --- each mask ---------------------------------------------------------------------------------------------------

    def _make(self, planned: PlannedMask) -> None:
        """Segment a set, unless an interrupted run has left its record."""
        record = _unscored(planned, self.decisions.start_ns)
        if record.number < self.log.kept:
            known = self._resume(record)
            if self.sink is None and record.number not in self._again and record.t_s < self._again_from_s:
                self.worst.add(known, None)
                self.even.add(known, None)
                return
        self.scorer.add(self._made(planned, record))

    def _resume(self, record: MaskRecord) -> MaskRecord:
        """The record that is there already, which must be of the same job."""
        known = next(self._known)
        if (known.scenario, known.stamp_ns, known.used) != (record.scenario, record.stamp_ns, record.used):
            raise ReplayError(f"record {known.number} in {self.out} is of another run: run it without --resume")
        self.resumed += 1
        self.scores[known.scenario].add(known)
        return known

    def _made(self, planned: PlannedMask, record: MaskRecord) -> MadeMask:
        job = planned.job
        try:
            segmentation = self.inference.run(job)
        except (InputError, EngineError) as error:
            return MadeMask(replace(record, error=str(error)), job.created_ns, None)
        result = Result(job, segmentation)
        if self.sink is not None:
            self.sink.on_mask(planned.run.scenario, result)
        measured = _measured(record, segmentation, result.mask_size)
        return MadeMask(measured, job.created_ns, segmentation.labels, planned.scene)

    def _finish(self, scored: Iterator[ScoredMask]) -> None:
        for mask in scored:
            self.log.append(mask.record)
            self.worst.add(mask.record, mask)
            self.even.add(mask.record, mask)
            if mask.record.number >= self.log.kept:
                self.scores[mask.record.scenario].add(mask.record)

    def _states_file(self) -> AbstractContextManager[TextIO | None]:
        return (self.out / STATES).open("w", encoding="utf-8") if self.out else nullcontext()

    def _write_states(self, moment: MomentEnd, file: TextIO | None) -> None:
        for change in moment.changes:
            if change.scenario == ALL_SENSORS and change.reason:
                self.last_reason[change.modality] = change.reason
        if file is not None:
            file.writelines(_state_line(change, self.decisions.start_ns) for change in moment.changes)

    # --- after -------------------------------------------------------------------------------------------------------

    def _result(self, wall_s: float) -> ReplayResult:
        start_ns, end_ns = self.decisions.start_ns, self.decisions.end_ns
        ignored = {**self.samples.ignored, **self.scorer.unusable}
        problems = [*self.reader.problems, *self.setup_problems]
        problems += [Problem(f"{count} x {text}") for text, count in ignored.items()]
        problems += self._shortcomings()
        info = self.segmenter.engine_info
        timings = Timings(
            wall_s,
            self.inference.engine_s,
            self.inference.encode_s,
            self.inference.runs,
            self.inference.reused,
            self.resumed,
        )
        return ReplayResult(
            bag=self.reader.path,
            out=self.out,
            card=self.segmenter.card,
            engine=f"{info.backend} on {info.device}, {info.precision}",
            parameters=self.parameters,
            topics=self.topics,
            start_ns=start_ns,
            duration_s=(end_ns - start_ns) / NS_PER_S,
            scores=self.scores,
            received=dict(self.samples.received),
            rejected=dict(self.samples.rejected),
            rejections={modality: dict(reasons) for modality, reasons in self.samples.reasons.items()},
            labels=(self.truth.origin, self._available_labels()),
            problems=problems,
            notes=[*self.notes, *self._notes_on_intensity(), *self._notes_on_the_place()],
            timings=timings,
            worst=self.worst,
            even=self.even,
            rig=self.decisions.rig,
        )

    def _available_labels(self) -> int:
        """Label images, those that could not be read too."""
        choice = self.topics.companions.labels
        if choice is None or not isinstance(self.truth, TopicLabels):
            return self.truth.available
        return self.reader.count({choice.topic})

    def _shortcomings(self) -> Iterator[Problem]:
        """What the sensors and labels were listed for and did not do, with the reason."""
        for modality, number in self.samples.rejected.items():
            total = number + self.samples.received[modality]
            reason, _ = self.samples.reasons[modality].most_common(1)[0]
            yield Problem(f"{modality}: {number} of {total} messages rejected: {reason}")
        score = self.scores[ALL_SENSORS]
        if not score.masks:
            reasons = "; ".join(f"{modality}: {self._why_unused(modality)}" for modality in self.modalities)
            yield Problem(f"no mask was made of this bag. {reasons}", fails=True)
        else:
            for modality in self.modalities:
                if not score.used[modality]:
                    yield Problem(f"{modality} is in 0 of {score.masks} masks: {self._why_unused(modality)}")
        if self.truth.origin and self._available_labels() and not any(s.scored for s in self.scores.values()):
            origin = f"{self._available_labels()} label images of {self.truth.origin}"
            yield Problem(f"0 of {origin} were used: none could be read and belongs to a mask", fails=True)

    def _notes_on_the_place(self) -> Iterator[str]:
        """What is assumed of the LiDAR's place, and what is odd about it."""
        scan, rig = self.samples.newest_scan, self.decisions.rig
        odd = rig.odd_axes(scan.frame_id) if scan is not None and rig is not None else ""
        yield from filter(None, (self.samples.assumed_place, odd))

    def _notes_on_intensity(self) -> Iterator[str]:
        """What the intensity of the scans is, and what to mend about it."""
        scan = self.samples.newest_scan
        fit = fit_of(scan, self.segmenter.card.encodings[scan.modality]) if scan is not None else None
        if scan is not None and fit is not None:
            yield f"{scan.modality}: intensity: {fit.text}" + (f"; {fit.remark}" if fit.remark else "")

    def _why_unused(self, modality: Sensor) -> str:
        """The reason that is known best: nothing in the bag, stamps of 0, else the last one that its health gave."""
        if not self.samples.received[modality]:
            return "not a single frame of it was in the bag"
        if modality in self.timing.without_stamps:
            return f"the stamps of {self.timing.without_stamps[modality]} messages at the bag's beginning are 0"
        reason = self.last_reason.get(modality, "")
        return reason or "its frames are too far from those of the other sensors (sync.max_time_diff_ms), or too old"


def _unscored(planned: PlannedMask, start_ns: int) -> MaskRecord:
    """What is known of a mask before it is made."""
    job, anchor = planned.job, planned.job.anchor_frame
    return MaskRecord(
        number=planned.number,
        scenario=planned.run.scenario.name,
        t_s=(job.created_ns - start_ns) / NS_PER_S,
        stamp_ns=anchor.stamp_ns,
        anchor=job.anchor,
        used=in_order(job.frames),
        age_ms=job.ages_ms()[job.anchor],
        size=(0, 0),
        hash="",
        confidence=0.0,
        encode_ms=0.0,
        engine_ms=0.0,
    )


def _measured(record: MaskRecord, segmentation: Segmentation, size: tuple[int, int]) -> MaskRecord:
    """The record with what the mask itself tells."""
    return replace(
        record,
        size=size,
        hash=mask_hash(segmentation.resized_labels(*size)),
        confidence=float(np.mean(segmentation.confidence)) / 255.0,
        encode_ms=1e3 * segmentation.encode_s,
        engine_ms=1e3 * segmentation.alone_s,
    )


def _state_line(change: StateChange, start_ns: int) -> str:
    content = {
        "scenario": change.scenario,
        "t_s": round((change.now_ns - start_ns) / NS_PER_S, 6),
        "modality": str(change.modality),
        "state": change.state.value,
        "fault": change.fault.value if change.fault else "",
        "reason": change.reason,
    }
    return json.dumps(content, separators=(",", ":")) + "\n"


def _as_json(content: dict[str, Any]) -> dict[str, Any]:
    """As it is when it was written and read again."""
    return json.loads(json.dumps(content, default=str))


def _check_same(path: Path, about: dict[str, Any]) -> None:
    """Raises ValueError that names what differs from the run to be resumed."""
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_bytes())
        different = [name for name in about if before.get(name) != about[name]]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    if different:
        raise ValueError(f"the interrupted run had other {', '.join(different)}")
