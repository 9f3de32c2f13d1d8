"""What a table of methods compares: a plan, and the runs that it takes.

A plan is a YAML file: a training configuration and what each variant changes in it.

    extends: vehicle_sim.yaml         the configuration that all share
    teacher: full                     the variant that teaches where a method wants a teacher; or the folder of a run
    split: test                       scored on, once, after all training; what is chosen is chosen on data.val_split
    reference: dropout                the variant that all others are compared with, seed by seed
    gate: {teacher: full, student: dropout, points: 2.0, rounds: 3}
                                      before any pupil is trained the teacher must be so much better, with all sensors
    more: {best: 3, seeds: 2}         more seeds for the best variants, their teachers and the reference
    folds:                            every variant is trained once per fold, such as a drive that is left out
      left_out_1: {data: {held_out: dataset1}}
    notes: [...]                      what a reader of the table must know
    variants:
      full: {method: {name: supervised, anymodal_dropout: false}}
      anyseg: {method: {name: anyseg, variant: released}}

A variant may name a teacher of its own, or another variant that it `continues`: whose whole network it starts from.
With `costs: true` every run has a process of its own and the table tells its CPU time (on a GPU: time), weights and
memory, those of the teacher included; `claims` are held against the table.

Within a seed all variants start from the same weights, as far as their networks have the same parts, and see the same
batches; a seed changes everything else: the new layers' weights, order, augmentation, subsets and dropout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anyseg_core.benchmarks.claims import Claim
from anyseg_core.methods import TAUGHT_METHODS
from anyseg_core.runtime.model_faults import told
from anyseg_core.training.config import (
    ConfigError,
    TrainConfig,
    apply_override,
    merge_settings,
    parse_config,
    read_tree,
)

_OWN_KEYS = ("variants", "teacher", "split", "costs", "claims", "reference", "gate", "more", "folds", "notes")
_OF_A_VARIANT = ("teacher", "continues")
"""What a variant says beside settings of training."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gate(_Strict):
    """A teacher that is no better than its pupil has nothing to teach: until it is, it is trained on."""

    teacher: str
    student: str
    points: float = 2.0
    """Of mIoU with all sensors on the validation split, mean over the seeds."""
    rounds: int = Field(default=3, ge=0)
    """How often the teacher may be trained on, each time for a whole budget."""


class More(_Strict):
    """More seeds for the variants that are best on the validation split."""

    best: int = Field(gt=0)
    seeds: int = Field(gt=0)


class Plan(_Strict):
    """What to compare."""

    base: dict[str, Any]
    """Settings that all variants share."""
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    teacher: str | None = None
    split: str = "test"
    costs: bool = False
    """Whether the table has the costs of training."""
    claims: tuple[Annotated[Claim, Field(discriminator="kind")], ...] = ()
    reference: str | None = None
    gate: Gate | None = None
    more: More | None = None
    folds: dict[str, dict[str, Any]] = {}
    notes: tuple[str, ...] = ()

    def teacher_of(self, variant: str) -> str | None:
        """The variant that teaches this one; None for one that learns from labels alone."""
        name = merge_settings(self.base, _settings(self.variants[variant])).get("method", {}).get("name")
        return self.variants[variant].get("teacher", self.teacher) if name in TAUGHT_METHODS else None

    def needs(self, variant: str) -> list[str]:
        """The variants that this one learns from or continues."""
        wanted = (self.teacher_of(variant), self.variants[variant].get("continues"))
        return [name for name in wanted if name in self.variants]

    def rank(self, variant: str) -> int:
        """0 for a variant that needs no other, else one more than those it needs."""
        return 1 + max(map(self.rank, self.needs(variant)), default=-1)

    def with_needs(self, names: Iterable[str]) -> list[str]:
        """These variants and all that they need, in the plan's order. Raises ConfigError for an unknown one."""
        wanted, left = set(), list(names)
        while left:
            name = left.pop()
            if name not in self.variants:
                raise ConfigError(f"unknown variant {name}; known: {', '.join(self.variants)}")
            if name not in wanted:
                wanted.add(name)
                left += self.needs(name)
        return [name for name in self.variants if name in wanted]

    def with_longer_teacher(self, number: int) -> Plan:
        """The same plan with the gate's teacher trained on: a variant that continues it takes its place as teacher."""
        assert self.gate is not None
        old, new = self.gate.teacher, f"{self.gate.teacher.partition('_longer')[0]}_longer{number}"
        variants = {
            name: {**settings, "teacher": new} if self.teacher_of(name) == old else settings
            for name, settings in self.variants.items()
        }
        variants[new] = {**self.variants[old], "continues": old}
        return self.model_copy(update={"variants": variants, "gate": self.gate.model_copy(update={"teacher": new})})


class Run(BaseModel):
    """One variant with one seed, and one fold where the plan has folds."""

    model_config = ConfigDict(frozen=True)

    variant: str
    seed: int
    fold: str | None = None
    rank: int
    """Runs of one seed and rank need only runs of lower rank."""
    folder: Path
    config: TrainConfig

    @property
    def unit(self) -> str:
        """What the run is a repetition of: its fold, or else its seed."""
        return self.fold or str(self.seed)

    def __str__(self) -> str:
        return f"{self.variant}, {'' if self.fold is None else f'{self.fold}, '}seed {self.seed}"


def load_plan(path: Path, overrides: list[str]) -> Plan:
    """Read a plan; overrides change what all variants share. Raises ConfigError."""
    tree = read_tree(path)
    own = {key: tree.pop(key) for key in _OWN_KEYS if key in tree}
    for override in overrides:
        apply_override(tree, override)
    try:
        plan = Plan(base=tree, **own)
    except ValidationError as error:
        raise ConfigError(f"{path} is no plan of an ablation: {told(error, Plan)}") from None
    for teacher in {plan.teacher, *map(plan.teacher_of, plan.variants)} - {None, *plan.variants}:
        if "/" not in str(teacher):
            known = ", ".join(plan.variants)
            raise ConfigError(f"{path}: teacher {teacher} is none of the variants {known}, nor the folder of a run")
    _check_names(plan, path)
    return plan


def _check_names(plan: Plan, path: Path) -> None:
    named = {"reference": plan.reference}
    if plan.gate:
        named |= {"gate.teacher": plan.gate.teacher, "gate.student": plan.gate.student}
    named |= {f"{name}.continues": own.get("continues") for name, own in plan.variants.items()}
    for key, name in named.items():
        if name is not None and name not in plan.variants:
            raise ConfigError(f"{path}: {key} {name} is none of the variants {', '.join(plan.variants)}")
    try:
        for name in plan.variants:
            plan.rank(name)
    except RecursionError:
        raise ConfigError(f"{path}: variants learn from or continue each other in a circle") from None


def plan_runs(plan: Plan, seeds: Sequence[int], out: Path, names: Sequence[str] | None = None) -> list[Run]:
    """The runs of all variants, or of some and what they need: seed by seed, in it teachers first. Raises ConfigError.

    So wherever the work stops, the seeds that are done have every variant, and their differences are paired.
    """
    chosen = sorted(plan.with_needs(plan.variants if names is None else names), key=plan.rank)
    folds: list[str | None] = list(plan.folds) or [None]
    return [_run_of(plan, variant, seed, fold, out) for seed in seeds for fold in folds for variant in chosen]


def _run_of(plan: Plan, variant: str, seed: int, fold: str | None, out: Path) -> Run:
    tree = merge_settings(plan.base, plan.folds[fold] if fold else {})
    tree = merge_settings(tree, _settings(plan.variants[variant]))
    tree |= {"name": variant, "seed": seed}
    suffix = f"_{fold}_seed{seed}" if fold else f"_seed{seed}"
    if tree.get("method", {}).get("name") in TAUGHT_METHODS:
        teacher = plan.teacher_of(variant)
        if teacher is None:
            raise ConfigError(f"variant {variant} needs a teacher: name one of the variants")
        run = out / f"{teacher}{suffix}" if teacher in plan.variants else teacher
        tree["method"] = {"teacher": str(run)} | tree["method"]
    if continued := plan.variants[variant].get("continues"):
        model = {key: value for key, value in tree.get("model", {}).items() if key != "pretrained"}
        tree["model"] = model | {"init_from": str(out / f"{continued}{suffix}"), "init_head": True}
    # Variants are compared after the same training: each is the network of its last step, not its luckiest.
    tree["record"] = tree.get("record", {}) | {"validations": 0, "validate_steps": None}
    config = parse_config(tree, f"variant {variant}")
    return Run(
        variant=variant,
        seed=seed,
        fold=fold,
        rank=plan.rank(variant),
        folder=out / f"{variant}{suffix}",
        config=config,
    )


def _settings(variant: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in variant.items() if key not in _OF_A_VARIANT}
