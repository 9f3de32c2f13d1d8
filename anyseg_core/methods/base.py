"""What the loop and a method share."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple, Protocol

from pydantic import BaseModel
from torch import Tensor, nn

from anyseg_core.runtime.user_paths import UserPath

NetworkKind = Literal["anymodal", "unimodal", "regenerating", "disentangled", "acnet"]
"""One network for any subset (MiT); or of ResNets: one per modality, the same with generators for masked distillation,
the same with two halves for CroDiNo-KD, and the multimodal teacher."""


class Batch(NamedTuple):
    """Samples with all their modalities; the method decides which ones the network sees."""

    images: Tensor
    """uint8 [B, M, H, W, 3]."""
    labels: Tensor
    """int64 [B, H/s, W/s], class index, 255 = ignored; s is the stride at which labels are decided.
    [B, M, H/s, W/s] where each modality was augmented by itself."""
    to_view: Tensor | None = None
    """float32 [B, M, 2, 3], from the common frame to each modality's view; None where all have one view."""
    present: Tensor | None = None
    """bool [B, M], which modalities each sample has; None = all."""
    members: Tensor | None = None
    """bool [K + G, K], the classes that each label stands for; None where every label is a class. See
    `data/mixture.py`."""


class Method(Protocol):
    """One way to train."""

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of one step, weighted; the loop minimises their sum and logs each."""
        ...


class TaughtConfig(BaseModel):
    """Settings of a method that has a teacher."""

    taught_by: ClassVar[NetworkKind] = "anymodal"
    """The kind of network that the teacher is."""
    teacher: UserPath
    """The teacher's run, or one of its checkpoints."""
