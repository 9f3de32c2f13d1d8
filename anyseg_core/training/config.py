"""The configuration of a training run: small checked models, read from YAML. A default is written once, here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anyseg_core.data.augmentation import AugmentConfig
from anyseg_core.methods import MethodConfig, SupervisedConfig
from anyseg_core.models.anymodal import MissingPolicy
from anyseg_core.models.mix_transformer import VARIANTS
from anyseg_core.runtime.modality import MODALITIES, Modality


class ConfigError(Exception):
    """A configuration that cannot be used; the message names each key and what is wrong with it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Strict):
    """What to train on."""

    kind: Literal["deliver", "pothole"] = "deliver"
    root: Path
    cache: Path = Path("datasets/cache")
    """Folder for the decoded samples."""
    train_split: str = "train"
    val_split: str = "val"
    size: tuple[int, int] = (256, 256)
    """(height, width) of samples and of the exported network, in pixels; multiples of 32."""
    modalities: tuple[Modality, ...] = MODALITIES
    """Which of the data set's modalities to use. The pothole data has its own: camera and depth."""
    limit: int | None = Field(default=None, gt=0)
    """Use only the first samples of each split."""

    @model_validator(mode="after")
    def _size_fits_the_encoder(self) -> DataConfig:
        if any(side <= 0 or side % 32 for side in self.size):
            raise ValueError(f"size {self.size} must be positive multiples of 32")
        return self


class ModelConfig(_Strict):
    """The network."""

    backbone: str = "b0"
    head_width: int = Field(default=768, gt=0)
    """Width of the SegFormer head: 768 as published, 128 for a fast student."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    missing: MissingPolicy = "remove"
    """What a missing modality is at inference: out of the batch, or an all-zero image."""
    label_stride: Literal[1, 2, 4] = 1
    """Labels are learned, decided and scored on a grid of this stride in pixels, and repeated."""
    init_from: Path | None = None
    """Encoder weights to start from: a checkpoint of ours, or MiT weights of SegFormer or Hugging Face."""

    @model_validator(mode="after")
    def _backbone_exists(self) -> ModelConfig:
        if self.backbone not in VARIANTS:
            raise ValueError(f"unknown backbone {self.backbone!r}; known: {', '.join(VARIANTS)}")
        return self


class OptimConfig(_Strict):
    """AdamW, warm-up, then a polynomial fall of the learning rate to zero at the end of the budget."""

    lr: float = Field(default=6e-5, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    """Of weights; biases and norms have none."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the budget with a rising learning rate."""
    warmup_start: float = Field(default=0.1, ge=0, le=1)
    """The first learning rate, as a share of `lr`."""
    power: float = Field(default=0.9, gt=0)
    max_grad_norm: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=16, gt=0)
    """Samples per step and process."""


class BudgetConfig(_Strict):
    """How long to train: steps (repeatable to the last bit on one machine), minutes, or whichever ends first."""

    max_steps: int | None = Field(default=None, gt=0)
    max_minutes: float | None = Field(default=None, gt=0)
    """Minutes of training, without evaluation."""
    resolution_schedule: tuple[tuple[float, int], ...] = ()
    """[share of the budget, image height in pixels], ascending from 0; empty = `data.size` throughout."""

    @model_validator(mode="after")
    def _consistent(self) -> BudgetConfig:
        if self.max_steps is None and self.max_minutes is None:
            raise ValueError("set max_steps, max_minutes or both")
        starts = [start for start, _ in self.resolution_schedule]
        if starts and (starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= 1):
            raise ValueError(f"resolution_schedule starts {starts} must ascend from 0 and stay below 1")
        if any(height <= 0 or height % 32 for _, height in self.resolution_schedule):
            raise ValueError("heights of resolution_schedule must be positive multiples of 32")
        return self


class MachineConfig(_Strict):
    """Where and how to run (Lightning Fabric's terms)."""

    accelerator: str = "auto"
    devices: int = Field(default=1, gt=0)
    num_nodes: int = Field(default=1, gt=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    torch_threads: int = Field(default=0, ge=0)
    """CPU threads of torch; 0 leaves torch's choice."""
    workers: int = Field(default=0, ge=0)
    """Processes that prepare batches; 0 prepares them in the training process."""


class RecordConfig(_Strict):
    """What is written during a run."""

    checkpoint_steps: int = Field(default=500, gt=0)
    log_steps: int = Field(default=20, gt=0)
    validate_steps: int | None = Field(default=None, gt=0)
    """Steps between evaluations during training; the end is always evaluated."""
    validate_samples: int = Field(default=40, gt=0)
    """Samples, evenly spread, of the evaluations during training."""


class TrainConfig(_Strict):
    """A training run."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    description: str = ""
    """For the student's card."""
    seed: int = 3407
    data: DataConfig
    model: ModelConfig = ModelConfig()
    method: MethodConfig = SupervisedConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    budget: BudgetConfig
    machine: MachineConfig = MachineConfig()
    record: RecordConfig = RecordConfig()

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.model.missing == "zero" and self.method.anymodal_dropout:
            raise ValueError("model.missing zero needs method.anymodal_dropout false: it must have seen all modalities")
        height, width = self.data.size
        for _, rung in self.budget.resolution_schedule:
            if rung * width % (32 * height):
                raise ValueError(f"resolution_schedule height {rung} gives no width that is a multiple of 32")
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply overrides like `optim.lr=1e-4`; raises ConfigError that names every fault."""
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of settings")
    for override in overrides:
        _apply(tree, override)
    return parse_config(tree, str(path))


def parse_config(tree: dict[str, Any], origin: str) -> TrainConfig:
    """A config from plain values; raises ConfigError that names every fault."""
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        faults = "\n".join(f"  {'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{origin} is not a valid training configuration:\n{faults}") from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"override {override!r} must be key=value, such as optim.lr=1e-4")
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {parent} is a value, not a group")
    node[leaf] = _scalar(value)


def _scalar(text: str) -> Any:
    """YAML's reading of a value, and of `1e-4`, which YAML 1.1 takes for a string."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
