"""Training methods: each is one step that returns named losses. Add one here: its settings, and its class."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from anyseg_core.methods.anyseg import AnySeg, AnySegConfig, DistillationConfig
from anyseg_core.methods.base import Batch, Method
from anyseg_core.methods.baselines import Magic, MagicConfig, PrototypeConfig, PrototypeDistillation
from anyseg_core.methods.supervised import Supervised, SupervisedConfig


def _supervised_unless_named(settings: Any) -> Any:
    return {"name": "supervised"} | settings if isinstance(settings, dict) else settings


MethodConfig = Annotated[
    SupervisedConfig | AnySegConfig | PrototypeConfig | MagicConfig,
    Field(discriminator="name"),
    BeforeValidator(_supervised_unless_named),
]
"""The union of all methods' settings, told apart by `name`."""

METHODS: dict[str, type[Any]] = {
    "supervised": Supervised,
    "anyseg": AnySeg,
    "prototype": PrototypeDistillation,
    "magic": Magic,
}
"""By the name in the settings. Called with these and class weights, and with `teacher` where they name one."""

__all__ = [
    "METHODS",
    "AnySeg",
    "AnySegConfig",
    "Batch",
    "DistillationConfig",
    "Magic",
    "MagicConfig",
    "Method",
    "MethodConfig",
    "PrototypeConfig",
    "PrototypeDistillation",
    "Supervised",
    "SupervisedConfig",
]
