"""Training methods: each is one step that returns named losses. Add one here and in `training/config.py`."""

from __future__ import annotations

from anyseg_core.methods.base import Batch, Method
from anyseg_core.methods.supervised import Supervised, SupervisedConfig

MethodConfig = SupervisedConfig
"""The union of all methods' settings, told apart by `name`."""

METHODS: dict[str, type[Supervised]] = {"supervised": Supervised}

__all__ = ["METHODS", "Batch", "Method", "MethodConfig", "Supervised", "SupervisedConfig"]
