"""Training methods: each is one step that returns named losses. Add one here: its settings, and its class."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from anyseg_core.methods.anyseg import AnySeg, AnySegConfig, DistillationConfig
from anyseg_core.methods.base import Batch, Method, NetworkKind, TaughtConfig
from anyseg_core.methods.baselines import Magic, MagicConfig, PrototypeConfig, PrototypeDistillation
from anyseg_core.methods.crodino_kd import CrodinoConfig, CrodinoKd
from anyseg_core.methods.rgbd_baselines import (
    AcNetConfig,
    Kd,
    KdConfig,
    MaskedGenerative,
    MaskedGenerativeConfig,
    Multimodal,
    ProtoKd,
    ProtoKdConfig,
    SingleModality,
    SingleModalityConfig,
)
from anyseg_core.methods.self_distilled import SelfDistilled, SelfDistilledConfig
from anyseg_core.methods.supervised import Supervised, SupervisedConfig


def _supervised_unless_named(settings: Any) -> Any:
    return {"name": "supervised"} | settings if isinstance(settings, dict) else settings


MethodConfig = Annotated[
    SupervisedConfig
    | SelfDistilledConfig
    | AnySegConfig
    | PrototypeConfig
    | MagicConfig
    | CrodinoConfig
    | SingleModalityConfig
    | AcNetConfig
    | KdConfig
    | ProtoKdConfig
    | MaskedGenerativeConfig,
    Field(discriminator="name"),
    BeforeValidator(_supervised_unless_named),
]
"""The union of all methods' settings, told apart by `name`."""

METHODS: dict[str, type[Any]] = {
    "supervised": Supervised,
    "self_distilled": SelfDistilled,
    "anyseg": AnySeg,
    "prototype": PrototypeDistillation,
    "magic": Magic,
    "crodino_kd": CrodinoKd,
    "single_modality": SingleModality,
    "acnet": Multimodal,
    "kd": Kd,
    "proto_kd": ProtoKd,
    "mgd": MaskedGenerative,
}
"""By the name in the settings. Called with these and class weights, and with `teacher` where they name one."""

TAUGHT_METHODS = frozenset({"anyseg", "prototype", "kd", "proto_kd", "mgd"})
"""Those whose settings name a teacher."""

__all__ = [
    "METHODS",
    "TAUGHT_METHODS",
    "AnySeg",
    "AnySegConfig",
    "Batch",
    "CrodinoConfig",
    "CrodinoKd",
    "DistillationConfig",
    "Magic",
    "MagicConfig",
    "Method",
    "MethodConfig",
    "NetworkKind",
    "PrototypeConfig",
    "PrototypeDistillation",
    "SelfDistilled",
    "SelfDistilledConfig",
    "Supervised",
    "SupervisedConfig",
    "TaughtConfig",
]
