"""The configuration of a training run: small checked models, read from YAML. A default is written once, here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anyseg_core.data.augmentation import AugmentConfig
from anyseg_core.data.datasets import DataConfig
from anyseg_core.data.decoupled import DecoupledConfig
from anyseg_core.data.degradation import DegradeConfig
from anyseg_core.methods import MethodConfig, SupervisedConfig
from anyseg_core.models.anymodal import Fusion, MissingPolicy
from anyseg_core.models.efficientnet_lite import EFFICIENTNET_LITES
from anyseg_core.models.encoders import ENCODERS, encoder_name
from anyseg_core.models.resnet import RESNETS
from anyseg_core.models.staged_encoders import STAGED_ENCODERS
from anyseg_core.runtime.model_card import STUDENTS, bundled_students
from anyseg_core.runtime.model_faults import faults_of
from anyseg_core.runtime.strict_yaml import load_yaml_file
from anyseg_core.runtime.user_paths import UserPath


class ConfigError(Exception):
    """A configuration that cannot be used; the message names each key and what is wrong with it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Strict):
    """The network."""

    backbone: str = "mit_b0"
    """An encoder of `models/encoders.py`: `mit_b0` to `mit_b5` (`b0` for short), `efficientnet_lite0` to `2`;
    for the methods with a network per modality and their teacher `resnet18`, `resnet50` or an `efficientnet_lite`."""
    head_width: int = Field(default=768, gt=0)
    """Width of the SegFormer head: 768 as published, 128 for a fast student; of DeepLabV3+'s decoder: 256, 64."""
    width: float = Field(default=1.0, gt=0, le=1)
    """Share of a ResNet's published channels."""
    aspp_rates: tuple[int, int, int] = (6, 12, 18)
    """Dilations of DeepLabV3+'s atrous branches, on a map of stride 16; those of small images must be smaller."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Probability with which a residual branch of the encoder is left out of a step (stochastic depth)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of the head's channels."""
    missing: MissingPolicy = "remove"
    """What a missing modality is at inference: out of the batch, or an all-zero image."""
    fusion: Fusion = "mean"
    """How the modalities that are there are averaged: all alike, or each weighed at every pixel and scale."""
    label_stride: Literal[1, 2, 4] = 1
    """Labels are learned, decided and scored on a grid of this stride in pixels, and repeated."""
    pretrained: UserPath | None = None
    """The encoder's first weights: `imagenet` (the extra [pretrained], of EfficientNet-Lite), a student's folder, a
    run, or a file: MiT's of SegFormer or Hugging Face, EfficientNet-Lite's, a ResNet's with torchvision's names."""
    init_from: UserPath | None = None
    """A run, a student's folder or the name of a bundled student to go on from, whatever its sensors and classes are:
    its encoder alone, unless `init_head` asks for more."""
    init_head: bool = False
    """Start from the whole network of `init_from`, a run of ours with the same modalities, classes and widths."""

    @model_validator(mode="after")
    def _backbone_exists(self) -> ModelConfig:
        if self.init_head and self.init_from is None:
            raise ValueError("init_head needs init_from: the run whose network is taken over")
        if self.pretrained is not None and self.init_from is not None:
            raise ValueError("pretrained and init_from both say where the encoder begins: keep one of them")
        if self.fusion == "gated" and self.missing == "zero":
            raise ValueError("fusion gated weighs the modalities that are there: it cannot be had with missing zero")
        if self.backbone in EFFICIENTNET_LITES and self.width != 1:
            raise ValueError("width is a setting of ResNets: EfficientNet-Lite is taken as published")
        if self.backbone not in RESNETS:
            encoder_name(self.backbone)
        return self

    @property
    def first_weights(self) -> Path | None:
        """Where the encoder's first weights come from; None where they are random."""
        named = self.pretrained or self.init_from
        is_bundled = named is not None and str(named) in bundled_students() and not named.exists()
        return STUDENTS / named if named is not None and is_bundled else named


class OptimConfig(_Strict):
    """AdamW, warm-up, then a polynomial fall of the learning rate to zero at the end of the budget."""

    lr: float = Field(default=6e-5, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of weights; biases and norms have none."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the budget with a rising learning rate."""
    warmup_start: float = Field(default=0.1, ge=0, le=1)
    """The first learning rate, as a share of `lr`."""
    power: float = Field(default=0.9, gt=0)
    """Of the polynomial decay."""
    decay: Literal["whole_budget", "after_warmup"] = "whole_budget"
    """Where the fall begins: with the budget, beneath the warm-up, or after the warm-up, as in AnySeg's release."""
    max_grad_norm: float | None = Field(default=None, gt=0)
    """Gradients are scaled down to this norm; null: never."""
    batch_size: int = Field(default=16, gt=0)
    """Samples per process that are in memory at once."""
    accumulate: int = Field(default=1, gt=0)
    """Batches per step: their gradients are averaged before the weights change."""


class BudgetConfig(_Strict):
    """How long to train: steps (repeatable to the last bit on one machine), epochs, minutes; the first that ends."""

    max_steps: int | None = Field(default=None, gt=0)
    """Steps of the optimiser; the first limit that is reached ends the training."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Passes over the training samples."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Minutes of training, without evaluation."""
    resolution_schedule: tuple[tuple[float, int], ...] = ()
    """[share of the budget, image height in pixels], ascending from 0; empty = `data.size` throughout."""

    @model_validator(mode="after")
    def _consistent(self) -> BudgetConfig:
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise ValueError("set max_steps, max_epochs, max_minutes or several of them")
        starts = [start for start, _ in self.resolution_schedule]
        if starts and (starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= 1):
            raise ValueError(f"resolution_schedule starts {starts} must ascend from 0 and stay below 1")
        if any(height <= 0 or height % 32 for _, height in self.resolution_schedule):
            raise ValueError("heights of resolution_schedule must be positive multiples of 32")
        return self

    def in_steps(self, samples: int, samples_per_step: int) -> BudgetConfig:
        """The same budget with its epochs counted in whole steps."""
        if self.max_epochs is None:
            return self
        steps = max(1, int(self.max_epochs * (samples // samples_per_step or 1)))
        return self.model_copy(update={"max_steps": min(steps, self.max_steps or steps)})


class MachineConfig(_Strict):
    """Where and how to run (Lightning Fabric's terms)."""

    accelerator: str = "auto"
    """`auto`, `cpu`, `cuda` or another one of Lightning Fabric."""
    devices: int = Field(default=1, gt=0)
    """Processes on this machine, each with a device of its own."""
    num_nodes: int = Field(default=1, gt=0)
    """Machines."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """`bf16-mixed` is faster where the processor or GPU has it."""
    compile: bool = False
    """Compile the encoder with torch.compile: pays on a GPU, and needs a C++ compiler and minutes to warm up."""
    torch_threads: int = Field(default=0, ge=0)
    """CPU threads of torch; 0 leaves torch's choice."""
    workers: int = Field(default=0, ge=0)
    """Processes that prepare batches; 0 prepares them in the training process."""


class RecordConfig(_Strict):
    """What is written during a run."""

    checkpoint_steps: int = Field(default=500, gt=0)
    """Steps between two checkpoints; the last two are kept, and the best."""
    log_steps: int = Field(default=20, gt=0)
    """Steps between two entries of the TensorBoard log."""
    validations: int = Field(default=10, ge=0)
    """Evaluations spread over the training; the best network of them is the run's result. 0: the last step's is."""
    validate_steps: int | None = Field(default=None, gt=0)
    """Instead of `validations`: an evaluation every so many steps."""
    validate_samples: int = Field(default=40, gt=0)
    """Samples, evenly spread, of the evaluations during training; the result is scored on all."""

    @property
    def has_validations(self) -> bool:
        """Whether networks are compared during the training."""
        return self.validations > 0 or self.validate_steps is not None


class TrainConfig(_Strict):
    """A training run."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Of the run, and of the student that it becomes: lower-case letters, digits and underscores."""
    description: str = ""
    """For the student's card."""
    seed: int = Field(default=3407, ge=0)
    """Of weights, data order, augmentation and dropout."""
    data: DataConfig
    """What is trained on, see `data` below."""
    model: ModelConfig = ModelConfig()
    """The network, see `model` below."""
    method: MethodConfig = SupervisedConfig()
    """What is minimised, see `method` below."""
    augment: AugmentConfig = AugmentConfig()
    """One geometric change for all modalities."""
    augment_apart: DecoupledConfig | None = None
    """Instead of `augment` a pipeline per modality, for methods that allow it; see `data/decoupled.py`."""
    degrade: DegradeConfig | None = None
    """Broken sensors among the samples; none where absent."""
    optim: OptimConfig = OptimConfig()
    """The optimiser and its schedule."""
    budget: BudgetConfig
    """How long, and at which sizes. At least one of its limits must be set."""
    machine: MachineConfig = MachineConfig()
    """What it runs on."""
    record: RecordConfig = RecordConfig()
    """What is written down while it runs."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        height, width = self.data.size
        for _, rung in self.budget.resolution_schedule:
            if rung * width % (32 * height):
                raise ValueError(f"resolution_schedule height {rung} gives no width that is a multiple of 32")
        return self

    @model_validator(mode="after")
    def _network_fits_the_method(self) -> TrainConfig:
        name, backbone = self.method.name, self.model.backbone
        anymodal = self.method.network == "anymodal"
        if backbone in RESNETS if anymodal else backbone not in STAGED_ENCODERS:
            wanted = ", ".join(ENCODERS if anymodal else STAGED_ENCODERS)
            raise ValueError(f"method {name} trains networks of {wanted}; model.backbone is {backbone}")
        if self.data.kind == "mixture" and not self.method.takes_mixtures:
            raise ValueError(f"method {name} needs samples that have every sensor: a mixture's have not")
        if self.augment_apart is not None and not self.method.views_apart:
            raise ValueError(f"method {name} needs all modalities to see the same part: remove augment_apart")
        if self.augment_apart is not None and self.degrade is not None:
            raise ValueError("augment_apart and degrade cannot be had together")
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply overrides like `optim.lr=1e-4`; raises ConfigError that names every fault.

    `extends: other.yaml` in a file takes another's settings, from the same folder, where it has none of its own.
    """
    tree = read_tree(path)
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree, str(path))


def read_tree(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a file as plain values, and of those it extends; raises ConfigError."""
    try:
        tree = load_yaml_file(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of settings")
    if "extends" not in tree:
        return tree
    base = path.parent / str(tree.pop("extends"))
    if base.resolve() in [file.resolve() for file in (path, *below)]:
        raise ConfigError(f"{path} extends {base}, which extends it")
    return merge_settings(read_tree(base, (path, *below)), tree)


def merge_settings(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Group by group; a method of another name brings none of the base's settings."""
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        if both and "name" in value:
            both = value["name"] == base[key].get("name")
        merged[key] = merge_settings(base[key], value) if both else value
    return merged


def parse_config(tree: dict[str, Any], origin: str) -> TrainConfig:
    """A config from plain values; raises ConfigError that names every fault."""
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin} is not a valid training configuration:\n{_faults(error, TrainConfig)}") from None


def parse_data(tree: dict[str, Any], overrides: Sequence[str] = ()) -> DataConfig:
    """Data settings from plain values and overrides like `depth=hha`; raises ConfigError that names every fault."""
    for override in overrides:
        apply_override(tree, override)
    try:
        return DataConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"the data set's settings are not valid:\n{_faults(error, DataConfig)}") from None


def _faults(error: ValidationError, model: type[BaseModel]) -> str:
    return "\n".join(f"  {line}" for line in faults_of(error, model))


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set `group.key=value`; raises ConfigError."""
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"override {override!r} must be key=value, such as optim.lr=1e-4")
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {parent} is a value, not a group")
    try:
        node[leaf] = _scalar(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is no YAML: {error}") from None


def _scalar(text: str) -> Any:
    """YAML's reading of a value, and of `1e-4`, which YAML 1.1 takes for a string."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
