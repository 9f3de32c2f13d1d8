"""The training loop: one for every method."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader

from anyseg_core.data.datasets import open_dataset
from anyseg_core.data.mixture import Mixture
from anyseg_core.data.packed import pixel_counts
from anyseg_core.data.sample import SegmentationDataset, evenly_spread
from anyseg_core.invocation import command_line
from anyseg_core.methods import METHODS, Batch, Method, TaughtConfig
from anyseg_core.methods.supervised import balance_weights, sees_all_always
from anyseg_core.models.student_weights import calibrate_norms
from anyseg_core.runtime.model_card import CARD_NAME, ClassSpec, StudentError, load_card
from anyseg_core.terminal import Report, console, progress_bar
from anyseg_core.training.batches import Batches
from anyseg_core.training.checkpoint import (
    CheckpointError,
    TrainingState,
    best_score,
    build_model,
    find_checkpoint,
    init_encoder,
    load_optimizer,
    load_state,
    load_teacher,
    load_weights,
    mark_best,
    newest_checkpoint,
    save_checkpoint,
    update_metrics,
)
from anyseg_core.training.config import OptimConfig, TrainConfig
from anyseg_core.training.evaluation import (
    confusion_metrics,
    score_mixture,
    score_subsets,
    summarise,
    summarise_mixture,
    with_all_modalities,
)
from anyseg_core.training.evaluation_plots import plot_confusion, sample_grid
from anyseg_core.training.process import peak_memory_mb, tune_process
from anyseg_core.training.run_log import RunLog, write_metrics
from anyseg_core.training.same_meaning import require_same_classes
from anyseg_core.training.schedule import Phase, learning_rate, phases, progress

CONFIG_NAME = "config.yaml"
CALIBRATION_SAMPLES = 32
"""From which an encoder that comes without batch norm's statistics takes them."""
FEW_STEPS = 200
"""Below this a run says that it is short: the warm-up and the first losses of a network take as many."""
PICTURES = 2
"""Validation samples that are drawn into TensorBoard's log."""


class TrainingError(Exception):
    """A run that cannot go on; the message says at which step, and what to try."""


def train(config: TrainConfig, out: Path | None = None, *, resume: bool = False, show_progress: bool = True) -> Path:
    """Train, evaluate on every subset of the modalities, and return the folder of the best checkpoint.

    The best is the one with the highest mean mIoU over subsets in the validations during the training and at its end,
    or mIoU with all modalities where it is trained on these alone; without validations during the training, the last.

    Args:
        out: the run's folder, `runs/<name>` unless given; holds checkpoints, TensorBoard logs, history.jsonl (a line
            per validation) and metrics.json.
        resume: go on from the newest checkpoint in `out`; without one, start.

    Raises:
        DataError, CheckpointError: the data or a checkpoint cannot be used.
        TrainingError: the loss is no number any more, or the machine has not what is configured.
        OSError: the run's folder cannot be written to.
    """
    run = Path("runs") / config.name if out is None else out
    tune_process(config.machine.torch_threads)
    fabric = _launch(config)
    trainer = _Trainer(config, run, fabric, resume, show_progress)
    trainer.run_phases()
    return trainer.finish()


def _launch(config: TrainConfig) -> Fabric:
    machine = config.machine
    try:
        fabric = Fabric(
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.num_nodes,
            precision=machine.precision,
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:  # such as a GPU that is not there
        raise TrainingError(f"machine cannot be had as configured: {error}") from None
    fabric.launch()
    return fabric


class _Trainer:
    """The state of one run between steps."""

    def __init__(self, config: TrainConfig, run: Path, fabric: Fabric, resume: bool, show_progress: bool) -> None:
        self.config, self.run, self.fabric = config, run, fabric
        self.show_progress = show_progress and fabric.is_global_zero
        with fabric.rank_zero_first():
            self.train_set = open_dataset(config.data, config.data.train_split)
            self.val_set = open_dataset(config.data, config.data.val_split)
        samples_per_step = config.optim.batch_size * config.optim.accumulate * fabric.world_size
        self.budget = config.budget.in_steps(len(self.train_set), samples_per_step)
        torch.manual_seed(config.seed)
        self.state = _initial_state(config, self.train_set, self.val_set)
        self.network = build_model(self.state)
        self.optimizer = make_optimizer(self.network, config.optim)
        self.method = self._make_method()
        self.batches = self._make_batches()
        self._restore(resume)
        if config.machine.compile:
            for encoder in self.network.encoders:
                encoder.compile()  # torch finds out by itself that the number of images changes
        self.model, self.wrapped_optimizer = fabric.setup(self.network, self.optimizer)
        self.waited_s = 0.0  # for batches, in this process
        self.log = RunLog(run, self.state.step) if fabric.is_global_zero else None
        if fabric.is_global_zero:
            (run / CONFIG_NAME).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))

    def _make_batches(self) -> Batches:
        config = self.config
        return Batches(
            self.train_set,
            config.data.size,
            config.optim.batch_size,
            config.augment,
            label_stride=config.model.label_stride,
            seed=config.seed,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            degrade=config.degrade,
            apart=config.augment_apart,
            full_size=config.data.size,
        )

    def _make_method(self) -> Method:
        settings = self.config.method
        weights: Tensor | None = None
        if settings.class_balance > 0:
            mixture = self.train_set if isinstance(self.train_set, Mixture) else None
            counts = torch.from_numpy(mixture.pixel_counts() if mixture else pixel_counts(self.train_set))
            weights = balance_weights(counts, settings.class_balance).to(self.fabric.device)
        method = METHODS[settings.name]
        if not isinstance(settings, TaughtConfig):
            return method(settings, weights)
        teacher, digest = load_teacher(settings.teacher, self.state)
        self.state = self.state.model_copy(update={"teacher_sha256": digest})
        return method(settings, weights, teacher=teacher.to(self.fabric.device))

    def _restore(self, resume: bool) -> None:
        """Load the newest checkpoint, or else the encoder's first weights."""
        has_checkpoint = any((self.run / "checkpoints").glob("step_*"))
        if has_checkpoint and not resume:
            raise CheckpointError(f"{self.run} holds a run already: pass --resume to go on, or another --out")
        if has_checkpoint:
            checkpoint = newest_checkpoint(self.run)
            stored = load_state(checkpoint)
            _check_same_run(stored, self.state)
            if self.fabric.is_global_zero:
                _warn_of_changed_data(stored, self.state)
            progressed = {key: getattr(stored, key) for key in ("step", "elapsed_s", "cpu_s", "loss_scaler")}
            self.state = self.state.model_copy(update=progressed)
            if stored.loss_scaler:
                self.fabric.strategy.precision.load_state_dict(stored.loss_scaler)
            load_weights(checkpoint, self.network)
            load_optimizer(checkpoint, self.network, self.optimizer)
        elif (source := self.config.model.first_weights) is not None:
            print(f"starting from: {self._take_first_weights(source)}", file=sys.stderr)

    def _take_first_weights(self, source: Path) -> str:
        """Returns what was taken, in words."""
        is_student = (source / CARD_NAME).is_file()
        if self.config.model.init_head:
            if is_student:
                raise CheckpointError(f"{source} is a student: `anyseg import-weights` makes a run of it for init_head")
            checkpoint = find_checkpoint(source)
            load_weights(checkpoint, self.network)
            require_same_classes(load_state(checkpoint).classes, self.state.classes, self.config.data.root)
            return f"the whole network of {source}"
        taken = [init_encoder(encoder, source, self.config.model.backbone) for encoder in self.network.encoders]
        if is_student:  # which has no batch norms any more: they begin with the statistics of the new data
            calibrate_norms(self.network.eval(), self._encode_a_few)
        return taken[0]

    def _encode_a_few(self) -> None:
        """Run the encoders on some training samples, one at a time."""
        chosen = np.linspace(0, len(self.train_set) - 1, min(CALIBRATION_SAMPLES, len(self.train_set))).astype(int)
        for index in chosen.tolist():
            images = torch.from_numpy(np.array(self.train_set[index].images))
            for encoder in self.network.encoders:
                encoder(self.network.normalise(images, torch.arange(len(images))))

    @property
    def done(self) -> float:
        return progress(self.budget, self.state.step, self.state.elapsed_s)

    def run_phases(self) -> None:
        if self.show_progress:
            console.print(f"to watch it: tensorboard --logdir {shlex.quote(str(self.run))}", soft_wrap=True)
        with progress_bar(f"{self.config.name}, %", 100, show=self.show_progress) as bar:
            for phase in phases(self.budget, self.config.data.size):
                if self.done < phase.end:
                    self._run_phase(phase, bar)

    def _run_phase(self, phase: Phase, bar: Report) -> None:
        started, cpu_started = time.monotonic(), time.process_time()
        for batches in _grouped(self._loader(phase.size), self.config.optim.accumulate):
            self.waited_s += time.monotonic() - started
            done_before = self.done
            losses = self._step(batches)
            elapsed = self._agree(self.state.elapsed_s + time.monotonic() - started)
            cpu_s = self.state.cpu_s + time.process_time() - cpu_started
            progressed = {"step": self.state.step + 1, "elapsed_s": elapsed, "cpu_s": cpu_s}
            self.state = self.state.model_copy(update=progressed)
            self._record(losses, phase, bar, done_before)
            # Recording and evaluating are not training time.
            started, cpu_started = time.monotonic(), time.process_time()
            if self.done >= phase.end:
                return

    def _agree(self, elapsed_s: float) -> float:
        """The first process's clock, so that all processes end a phase at the same step."""
        return elapsed_s if self.fabric.world_size == 1 else self.fabric.broadcast(elapsed_s)

    def _loader(self, size: tuple[int, int]) -> DataLoader[Batch]:
        config = self.config
        accumulate = config.optim.accumulate
        last = self.budget.max_steps or sys.maxsize // accumulate
        return DataLoader(
            self.batches.at_size(size),
            batch_size=None,
            sampler=range(self.state.step * accumulate, last * accumulate),  # type: ignore[arg-type]
            num_workers=config.machine.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )

    def _step(self, batches: tuple[Batch, ...]) -> dict[str, float]:
        """One optimiser step on the batches' mean gradient; everything random follows from seed, process and step."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optim, self.done)
        self.model.train()
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            self._seed(self.state.step * len(batches) + number)
            is_last = number == len(batches) - 1
            with nullcontext() if is_last else self.fabric.no_backward_sync(self.model):
                with self.fabric.autocast():
                    losses = self.method.losses(self.model, self.fabric.to_device(batch))
                self.fabric.backward(torch.stack(list(losses.values())).sum() / len(batches))
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach() / len(batches)
        named = {name: float(value) for name, value in sums.items()}
        if not all(np.isfinite(value) for value in named.values()):
            raise TrainingError(
                f"{self.run}, step {self.state.step}: the losses are {named}. The last checkpoint is untouched; lower "
                "optim.lr, or set optim.max_grad_norm"
            )
        self._update()
        return named

    def _seed(self, batch_number: int) -> None:
        entropy = [self.config.seed, self.fabric.global_rank, batch_number]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def _update(self) -> None:
        limit = self.config.optim.max_grad_norm
        if limit is not None:
            # A gradient that fp16 cannot hold is no fault: the scaler leaves the step out and scales less.
            is_scaled = self.config.machine.precision == "16-mixed"
            try:
                self.fabric.clip_gradients(
                    self.model, self.wrapped_optimizer, max_norm=limit, error_if_nonfinite=not is_scaled
                )
            except RuntimeError as error:
                raise TrainingError(f"{self.run}, step {self.state.step}: {error}. Lower optim.lr") from None
        self.wrapped_optimizer.step()
        self.wrapped_optimizer.zero_grad()

    def _record(self, losses: dict[str, float], phase: Phase, bar: Report, done_before: float) -> None:
        step, record = self.state.step, self.config.record
        shown = {"step": step, "size": phase.size[0]} | {name: f"{loss:.3f}" for name, loss in losses.items()}
        bar(round(100 * self.done, 1), 100, note=", ".join(f"{name} {value}" for name, value in shown.items()))
        if step % record.log_steps == 0:
            scalars = losses | {"lr": self.optimizer.param_groups[0]["lr"], "height": phase.size[0]}
            scalars["steps_per_s"] = step / max(self.state.elapsed_s, 1e-9)
            scalars["waited_for_data_s"] = self.waited_s
            if self.log is not None:
                self.log.scalars(scalars, "train", step)
        if step <= _STEPS_TO_PLAN and (step == _STEPS_TO_PLAN or self.done >= 1):
            self._warn_of_a_short_run()
        if step % record.checkpoint_steps == 0:
            self._save()
        if self._is_validation_due(done_before):
            self._validate()

    def _warn_of_a_short_run(self) -> None:
        steps = round(self.state.step / min(self.done, 1.0))
        if steps < FEW_STEPS and self.fabric.is_global_zero:
            print(
                f"warning: the budget is for about {steps} steps, and a network learns little in fewer than some "
                "hundred: raise budget.max_steps, max_epochs or max_minutes unless this is a trial",
                file=sys.stderr,
            )

    def _is_validation_due(self, done_before: float) -> bool:
        record = self.config.record
        if self.done >= 1:
            return False  # `finish` validates
        if record.validate_steps is not None:
            return self.state.step % record.validate_steps == 0
        return int(done_before * record.validations) < int(self.done * record.validations)

    def _validate(self) -> None:
        """Score some validation samples; the best network so far is kept, whatever comes."""
        score, is_best = 0.0, False
        if self.log is not None:
            score = self._validate_here(self.log)
            is_best = score > best_score(self.run)
            if self.show_progress:
                figure = "mIoU with all" if self._is_judged_by_all else "mean mIoU"
                console.print(f"{self._stand()}: {figure} {score}{', the best so far' * is_best}", soft_wrap=True)
        if self.fabric.broadcast(is_best):
            checkpoint = self._save()
            if self.fabric.is_global_zero:
                mark_best(checkpoint, score)

    def _validate_here(self, log: RunLog) -> float:
        """In this process, with curves and pictures; returns what the best is chosen by, in percent."""
        count, step = len(self.val_set), self.state.step
        metrics, confusion = self._score(evenly_spread(count, self.config.record.validate_samples))
        log.validation(metrics, step, self.state.elapsed_s)
        if confusion:
            log.picture("confusion", plot_confusion(**confusion), step)
        colors, stride = [entry.color for entry in self.state.classes], self.config.model.label_stride
        self.network.eval()
        for index in evenly_spread(count, PICTURES):
            name, picture = sample_grid(self.network, self.val_set, colors, stride, index)
            log.picture(f"samples/{name}", picture, step)
        return with_all_modalities(metrics["miou"]) if self._is_judged_by_all else metrics["mean"]

    @property
    def _is_judged_by_all(self) -> bool:
        """By its mIoU with all modalities, where it learns from these alone; else by the mean over subsets or parts."""
        return sees_all_always(self.config.method) and not isinstance(self.val_set, Mixture)

    def _stand(self) -> str:
        """How far the training is, and how long it will take, for the terminal."""
        elapsed_s, done = self.state.elapsed_s, self.done
        left_s = elapsed_s / done * max(0.0, 1 - done)
        return f"step {self.state.step}, {100 * min(done, 1.0):.0f} %, {minutes(elapsed_s)}, {minutes(left_s)} left"

    def _score(self, indices: list[int] | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The network's metrics on validation samples, and its confusion of classes; of a mixture it has none."""
        names = [spec.name for spec in self.state.classes]
        stride = self.config.model.label_stride
        if isinstance(self.val_set, Mixture):
            scores = score_mixture(self.network, self.val_set, stride, indices, show_progress=self.show_progress)
            return summarise_mixture(scores), {}
        matrices = score_subsets(self.network, self.val_set, stride, indices, show_progress=self.show_progress)
        return summarise(matrices, names), confusion_metrics(matrices, names)

    def _save(self) -> Path:
        if self.fabric.is_global_zero:
            scaler = self.fabric.strategy.precision.state_dict()
            self.state = self.state.model_copy(update={"loss_scaler": scaler})
            save_checkpoint(self.run, self.state, self.network, self.optimizer)
        self.fabric.barrier()
        return newest_checkpoint(self.run)

    def finish(self) -> Path:
        """Save, score the best network on all validation samples, write metrics.json."""
        self._save()
        if self.config.record.has_validations:
            self._validate()
        checkpoint = find_checkpoint(self.run)
        if self.log is not None:
            cost, state = self._cost(), load_state(checkpoint)
            if state.step != self.state.step:
                load_weights(checkpoint, self.network)
            scores, _ = self._score(None)
            if np.isnan(scores["mean"]):
                print(
                    f"warning: {self.val_set.description} has no labelled pixel for some of the scores: there is no "
                    "mIoU, and no best network could be chosen. `anyseg data check` shows the labels",
                    file=sys.stderr,
                )
            metrics = {"data": self.val_set.description} | scores | {"cost": cost}
            update_metrics(checkpoint, state.model_copy(update={"metrics": metrics}))
            write_metrics(self.run, metrics)
            self.log.close()
        self.fabric.barrier()
        return checkpoint

    def _cost(self) -> dict[str, float]:
        """Of the training alone, a teacher's not included."""
        return {
            "elapsed_s": round(self.state.elapsed_s, 1),
            "cpu_s": round(self.state.cpu_s, 1),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "deployed_parameters": self.network.deployed_parameters(),
            "peak_memory_mb": round(peak_memory_mb()),
        }


_STEPS_TO_PLAN = 3
"""After so many steps a budget of minutes can be told in steps."""


def minutes(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _grouped(batches: Iterable[Batch], size: int) -> Iterator[tuple[Batch, ...]]:
    """Batches in groups of `size`; an incomplete last group is left out."""
    return zip(*[iter(batches)] * size, strict=False)


def _warn_of_changed_data(stored: TrainingState, wanted: TrainingState) -> None:
    """Say where a run that is resumed would go on with other samples than it was begun with."""
    changed = [name for name, now in wanted.fingerprints.items() if stored.fingerprints.get(name, now) != now]
    data = wanted.config.data
    if stored.data != wanted.data:
        told = f"the run was begun with {stored.data}, and goes on with {wanted.data}"
    elif changed:
        told = f"files of {data.root}, split {' and '.join(changed)}, are not those that the run was begun with (by "
        told += "name, size and time of change; if they were only copied anew, all is well)"
    else:
        return
    print(f"warning: {told}: its weights will not be those of an unbroken run", file=sys.stderr)
    if data.val_split in changed:
        print("warning: its best checkpoint so far was chosen on other samples", file=sys.stderr)


def _initial_state(config: TrainConfig, dataset: SegmentationDataset, val_set: SegmentationDataset) -> TrainingState:
    data = config.data
    licence, non_commercial = _terms(config)
    return TrainingState(
        licence=licence,
        non_commercial=non_commercial,
        config=config,
        inputs=dataset.inputs,
        classes=tuple(
            ClassSpec(name=entry.name, color=entry.color, surface=entry.surface) for entry in dataset.classes
        ),
        data=dataset.description,
        fingerprints={data.train_split: dataset.fingerprint, data.val_split: val_set.fingerprint},
        git_revision=git_revision(),
        command=command_line(),
    )


def _terms(config: TrainConfig) -> tuple[str, bool]:
    """The licences that bind the student: of its data, and of the runs and students it starts from or that teach it."""
    teacher = config.method.teacher if isinstance(config.method, TaughtConfig) else None
    sources = [path for path in (config.model.first_weights, teacher) if path is not None and path.is_dir()]
    terms = [config.data.terms(), *(_terms_of(source) for source in sources)]
    words = dict.fromkeys(part for licence, _ in terms for part in licence.split("; ") if part)
    return "; ".join(words), any(bound for _, bound in terms)


def _terms_of(source: Path) -> tuple[str, bool]:
    """Those of a student's folder, or of a run of ours."""
    if (source / CARD_NAME).is_file():
        try:
            record = load_card(source, verify=False).training
        except StudentError as error:
            raise CheckpointError(str(error)) from None
        return record.licence, record.non_commercial
    state = load_state(find_checkpoint(source))
    return state.licence, state.non_commercial


def _check_same_run(stored: TrainingState, wanted: TrainingState) -> None:
    """Settings that a resumed run may not change."""
    fixed = ("seed", "data", "model", "method", "augment", "augment_apart", "degrade")
    changed = [key for key in fixed if getattr(stored.config, key) != getattr(wanted.config, key)]
    changed += [key for key in ("inputs", "classes", "teacher_sha256") if getattr(stored, key) != getattr(wanted, key)]
    if changed:
        raise CheckpointError(f"cannot resume: {', '.join(changed)} differ from the stored run; use another --out")


def make_optimizer(model: nn.Module, optim: OptimConfig) -> AdamW:
    """AdamW; biases and norms (1-D parameters) are not decayed."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, lr=optim.lr, fused=True)


def git_revision() -> str:
    """The commit the code is at, with `-dirty` for uncommitted changes; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match="]
    result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
