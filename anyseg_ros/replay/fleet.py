"""Many bags at once on the cores of this machine or of a Ray cluster; the scores are merged exactly.

    result = replay_fleet(FleetOptions(bags, out), console)
    result.scores["all"].confusion  # the sum over all bags, equal to that of a serial run

Every bag is one task: a worker that dies (killed, out of memory) or a machine that goes costs the bags that it was at,
once: they are begun again elsewhere. A bag that cannot be read is named with its reason and stops no other. See
docs/fleet.md.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from anyseg_core.processes import available_cores
from anyseg_core.runtime.extras import missing_part
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.terminal import progress_bar
from anyseg_core.wording import counted
from anyseg_ros.bags.ground_truth import GroundTruthError
from anyseg_ros.bags.storage import BagError, in_a_line
from anyseg_ros.bags.topics import TopicError
from anyseg_ros.replay.offline import ReplayError, ReplayOptions, ScenarioScore, open_student, replay
from anyseg_ros.replay.scenarios import Scenario, ScenarioError
from anyseg_ros.replay.student_note import print_student

SCORE, ATTEMPTS = "fleet_score.json", "attempts.txt"
TELL_THE_REMEDY = (BagError, TopicError, ReplayError, ScenarioError, GroundTruthError)
"""Errors whose text says all that a user needs; of others the class does."""
MAX_RETRIES = 5
"""Of a bag whose worker died. A bag that kills every worker (it is larger than the memory) is then given up."""
RETRY_S, MAX_UNBEGUN = 1.0, 120
"""Waited after a task was lost that no worker had begun, as while a machine that is gone still counts; and how often
that may happen to one bag."""
ENGINE_THREADS = 1
"""Of each worker: with a worker per core, more would only wait for each other."""
OBJECT_STORE_BYTES = 100 << 20
"""Of a Ray that we start ourselves: what travels are paths and confusion matrices."""


class FleetError(Exception):
    """A cluster that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class FleetOptions:
    """What to replay, and where. Raises ValueError for what cannot be meant."""

    bags: tuple[Path, ...]
    out: Path
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    workers: int = 0
    """Of a local Ray; 0 = a worker per core. A cluster has its own number."""
    address: str = ""
    """Of a running cluster (`host:6379`, or `auto`); empty: a Ray of our own on this machine."""
    resume: bool = False
    """Leave out the bags that an earlier run into the same folder has finished."""

    def __post_init__(self) -> None:
        if not self.bags:
            raise ValueError("no bags were given: name at least one")
        if self.workers < 0:
            raise ValueError(f"workers must be >= 0, not {self.workers}")


@dataclass(frozen=True)
class BagScore:
    """What one bag contributes. `error` says why it contributes nothing."""

    bag: Path
    scores: dict[str, ScenarioScore]
    problems: tuple[str, ...] = ()
    error: str = ""
    duration_s: float = 0.0
    """Of the bag."""
    seconds: float = 0.0
    """Of work, by the wall clock."""
    cpu_seconds: float = 0.0
    """Of work, of the worker's processor: the same on a machine that has other things to do."""
    attempts: int = 1


@dataclass
class FleetResult:
    """The sums over all bags by scenario, and what is known of each bag."""

    scores: dict[str, ScenarioScore] = field(default_factory=dict)
    bags: list[BagScore] = field(default_factory=list)
    """In the order in which they were given, without their scores: those of 10^5 bags would fill the memory. They are
    in the bags' folders (`read_score`)."""
    wall_s: float = 0.0

    @property
    def failed(self) -> list[BagScore]:
        return [bag for bag in self.bags if bag.error]

    def add(self, bag: BagScore) -> None:
        """One bag more. Counts are integers: the order of the bags changes nothing."""
        for name, score in bag.scores.items():
            into = self.scores.setdefault(name, ScenarioScore(score.scenario, score.num_classes))
            into.confusion.merge(score.confusion)
            into.against_reference.merge(score.against_reference)
            into.masks += score.masks
            into.used.update(score.used)
            into.failures += score.failures
            into.scored += score.scored
            for figure, (value, number) in score.sums.items():
                before = into.sums.get(figure, (0.0, 0))
                into.sums[figure] = before[0] + value, before[1] + number
        self.bags.append(replace(bag, scores={}))


def replay_serial(options: FleetOptions, console: Console | None = None) -> FleetResult:
    """One bag after the other in this process, without Ray. Raises StudentError."""
    started = time.perf_counter()
    _check_student(options)
    worker = _Worker()
    return _collected(
        lambda folders: (worker.replay(bag, folder, options) for bag, folder in folders.items()),
        options,
        started,
        console,
    )


def replay_fleet(options: FleetOptions, console: Console | None = None) -> FleetResult:
    """All bags over the workers. Raises StudentError, and FleetError where Ray is not installed or does not answer."""
    started = time.perf_counter()
    _check_student(options)
    ray = _connected(options)
    try:
        return _collected(lambda folders: _as_they_end(ray, folders, options), options, started, console)
    finally:
        ray.shutdown()


def _check_student(options: FleetOptions) -> None:
    """Once here, not with every bag."""
    load_card(find_student(options.replay.model.student))


def bag_folders(options: FleetOptions) -> dict[Path, Path]:
    """Bag -> folder of its records, named after it; bags of one name get a number."""
    folders: dict[Path, Path] = {}
    for bag in options.bags:
        bag = bag.resolve()  # noqa: PLW2901 - a worker has another working directory
        name, number = bag.name.partition(".")[0] or "bag", 2
        while options.out.resolve() / name in folders.values():
            name, number = f"{bag.name.partition('.')[0]}_{number}", number + 1
        folders.setdefault(bag, options.out.resolve() / name)
    return folders


# --- the work --------------------------------------------------------------------------------------------------------


class _Worker:
    """Replays bags; the student is opened once for all of them."""

    def __init__(self) -> None:
        self._segmenters: dict[str, Segmenter] = {}

    def replay(self, bag: Path, folder: Path, options: FleetOptions) -> BagScore:
        """Whatever is wrong with the bag is in the result; a bag that was read is also in its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = replace(options.replay, resume=False)
        started, cpu_started = time.perf_counter(), time.process_time()
        try:
            result = replay(bag, folder, settings, segmenter=self._segmenter(settings))
        except Exception as error:  # one bag in a hundred thousand must not end the others
            told = str(error) if isinstance(error, TELL_THE_REMEDY) else f"{type(error).__name__}: {error}"
            return BagScore(bag, {}, error=told, seconds=time.perf_counter() - started)
        problems = tuple(problem.text for problem in result.problems)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        score = BagScore(bag, dict(result.scores), problems, "", result.duration_s, seconds, cpu_seconds)
        write_score(score, folder / SCORE)
        return score

    def _segmenter(self, settings: ReplayOptions) -> Segmenter:
        model = replace(settings.model, threads=ENGINE_THREADS)
        if model.student not in self._segmenters:
            self._segmenters[model.student] = open_student(model)
        return self._segmenters[model.student]


_WORKER = _Worker()
"""Of this process: Ray runs many tasks in one."""


def _task(bag: Path, folder: Path, options: FleetOptions) -> BagScore:
    """What a worker does with one bag. The attempts are counted in a file: a killed worker cannot report."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ATTEMPTS).open("a") as file:
        file.write(f"{os.uname().nodename} {os.getpid()}\n")
    attempts = len((folder / ATTEMPTS).read_text().splitlines())
    return replace(_WORKER.replay(bag, folder, options), attempts=attempts)


def _finished(folders: dict[Path, Path], options: FleetOptions) -> dict[Path, Path]:
    """The bags that an earlier run has finished, where they are to be left out."""
    return {bag: folder for bag, folder in folders.items() if options.resume and (folder / SCORE).is_file()}


def _begun(folder: Path) -> int:
    """How often a worker has begun the bag of this folder."""
    attempts = folder / ATTEMPTS
    return len(attempts.read_text().splitlines()) if attempts.is_file() else 0


@dataclass
class _Job:
    """A bag that Ray has been given."""

    bag: Path
    folder: Path
    begun: int = 0
    """By workers, before it was given to Ray this time."""
    lost_unbegun: int = 0

    def lost(self, error: Exception) -> BagScore | None:
        """After its worker or machine died: None where it is to be begun again, else why it is given up."""
        begun, before = _begun(self.folder), self.begun
        self.begun = begun
        if begun > MAX_RETRIES:
            return BagScore(self.bag, {}, error=f"given up: it was begun by {begun} workers, and all have died")
        if begun == before:
            self.lost_unbegun += 1
            time.sleep(RETRY_S)
        if self.lost_unbegun > MAX_UNBEGUN:
            return BagScore(self.bag, {}, error=f"no worker could begin it: {in_a_line(error)}")
        return None


def _as_they_end(ray: Any, folders: dict[Path, Path], options: FleetOptions) -> Iterator[BagScore]:
    """The workers' deaths are counted here and not by Ray, which also counts what no worker has begun: tasks that it
    sends to a machine that is gone, again and again within a second."""
    task = ray.remote(num_cpus=1, max_retries=0)(_task)
    jobs = deque(_Job(bag, folder) for bag, folder in folders.items())
    for job in jobs:
        (job.folder / ATTEMPTS).unlink(missing_ok=True)
    waiting: dict[Any, _Job] = {}
    while jobs or waiting:
        while jobs and len(waiting) < _in_flight(ray):
            job = jobs.popleft()
            waiting[task.remote(job.bag, job.folder, options)] = job
        (ended,), _ = ray.wait(list(waiting), num_returns=1)
        job = waiting.pop(ended)
        try:
            yield ray.get(ended)
        except ray.exceptions.RayTaskError as error:  # of our own code: it would fail again
            yield BagScore(job.bag, {}, error=in_a_line(error.cause))
        except ray.exceptions.RayError as error:
            if (given_up := job.lost(error)) is not None:
                yield given_up
            else:
                jobs.append(job)


def _in_flight(ray: Any) -> int:
    """Tasks that Ray is given at a time: enough for every core now, also of machines that have joined meanwhile."""
    return 2 * int(ray.cluster_resources().get("CPU", 1)) + 2


def _connected(options: FleetOptions) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise FleetError(f"{missing_part('ray')}; or leave out --cluster") from None
    try:
        if options.address:
            ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            workers = options.workers or available_cores()
            ray.init(
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at {options.address}" if options.address else "a local Ray"
        raise FleetError(f"{where} cannot be used: {error}") from None
    return ray


# --- a bag's score as a file -----------------------------------------------------------------------------------------


def write_score(score: BagScore, path: Path) -> None:
    """As JSON, complete or not at all: a killed worker leaves no half of it."""
    content = {
        "duration_s": score.duration_s,
        "seconds": score.seconds,
        "cpu_seconds": score.cpu_seconds,
        "problems": score.problems,
        "scores": {name: _score_as_json(each) for name, each in score.scores.items()},
    }
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content))
    unfinished.replace(path)


def read_score(bag: Path, path: Path) -> BagScore:
    """The inverse, but for the faults of the scenarios. Raises FleetError for a file that is not ours."""
    try:
        content = json.loads(path.read_text())
        scores = {name: _score_from_json(name, each) for name, each in content["scores"].items()}
        times = (content[name] for name in ("duration_s", "seconds", "cpu_seconds"))
        return BagScore(bag, scores, tuple(content["problems"]), "", *times)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetError(f"{path} is no score of a bag ({error}): delete it, or run without --resume") from None


def _score_as_json(score: ScenarioScore) -> dict[str, Any]:
    return {
        "modalities": list(score.scenario.modalities),
        "classes": score.num_classes,
        "masks": score.masks,
        "used": {str(modality): masks for modality, masks in score.used.items()},
        "failures": score.failures,
        "scored": score.scored,
        "sums": score.sums,
        "confusion": score.confusion.counts.tolist(),
        "against_reference": score.against_reference.counts.tolist(),
    }


def _score_from_json(name: str, content: dict[str, Any]) -> ScenarioScore:
    score = ScenarioScore(Scenario(name, tuple(map(Sensor, content["modalities"]))), content["classes"])
    score.masks, score.failures, score.scored = content["masks"], content["failures"], content["scored"]
    score.used = Counter({Sensor(name): masks for name, masks in content["used"].items()})
    score.sums = {figure: (total, number) for figure, (total, number) in content["sums"].items()}
    score.confusion.counts[:] = content["confusion"]
    score.against_reference.counts[:] = content["against_reference"]
    return score


# --- what is said of it ----------------------------------------------------------------------------------------------


def _collected(
    replayed: Callable[[dict[Path, Path]], Iterator[BagScore]],
    options: FleetOptions,
    started: float,
    console: Console | None,
) -> FleetResult:
    """The sums of the bags that are there already and of those that `replayed` gives, in any order."""
    folders = bag_folders(options)
    finished = _finished(folders, options)
    rest = {bag: folder for bag, folder in folders.items() if bag not in finished}
    scores = chain((read_score(bag, folder / SCORE) for bag, folder in finished.items()), replayed(rest))
    result = FleetResult()
    for score in _shown(scores, len(folders), console):
        result.add(score)
    order = {bag: number for number, bag in enumerate(folders)}
    result.bags.sort(key=lambda score: order[score.bag])
    result.wall_s = time.perf_counter() - started
    return result


def _shown(scores: Iterator[BagScore], total: int, console: Console | None) -> Iterator[BagScore]:
    """The same with a progress bar, where there is a console."""
    if console is None:
        yield from scores
        return
    with progress_bar("bags", total) as progress:
        for done, score in enumerate(scores, 1):
            progress(done, total)
            if score.error:
                console.print(f"[red]{score.bag}: {score.error}[/]", soft_wrap=True)
            yield score


def run_fleet(options: FleetOptions, console: Console, *, cluster: bool) -> FleetResult:
    """Replay all bags, print the merged scores and write them to `out/fleet.json`; raises FleetError."""
    print_student(load_card(find_student(options.replay.model.student), verify=False), console)
    result = replay_fleet(options, console) if cluster else replay_serial(options, console)
    table = Table(title=counted(len(result.bags), "bag"), title_justify="left")
    for column in ("scenario", "masks", "scored", "failures", "mIoU %"):
        table.add_column(column, justify="left" if column == "scenario" else "right")
    for name, score in result.scores.items():
        miou = f"{100 * score.confusion.miou():.1f}" if score.scored else "no labels"
        table.add_row(name, str(score.masks), str(score.scored), str(score.failures), miou)
    console.print(table)
    recorded, worked = (sum(getattr(bag, name) for bag in result.bags) for name in ("duration_s", "cpu_seconds"))
    again = sum(bag.attempts - 1 for bag in result.bags)
    console.print(
        f"{recorded:.0f} s recorded, {worked:.1f} s of processor time in {result.wall_s:.1f} s; "
        f"{counted(len(result.failed), 'bag')} failed, {again} begun again after their worker died",
        soft_wrap=True,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fleet.json").write_text(json.dumps(as_json(result), indent=2) + "\n")
    return result


def as_json(result: FleetResult) -> dict[str, Any]:
    """The merged scores with their confusion matrices, and a line for every bag."""
    scores = {
        name: {
            "masks": score.masks,
            "scored": score.scored,
            "failures": score.failures,
            "miou": score.confusion.miou() if score.scored else None,
            "confusion": score.confusion.counts.tolist(),
        }
        for name, score in result.scores.items()
    }
    bags = [
        {
            "bag": str(bag.bag),
            "duration_s": bag.duration_s,
            "seconds": bag.seconds,
            "cpu_seconds": bag.cpu_seconds,
            "attempts": bag.attempts,
            "problems": bag.problems,
            "error": bag.error,
        }
        for bag in result.bags
    ]
    return {"wall_s": result.wall_s, "scores": scores, "bags": bags}
