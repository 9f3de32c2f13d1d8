"""What CroDiNo-KD is measured against: two plain networks, a multimodal teacher, and three ways to learn from it.

All students are the two networks of `single_modality` and are trained in one run, so the teacher answers once for
both: cheaper than a run per student, in the competitors' favour. None is a reproduction: teacher, decoder, data and
loop are shared, so that a table compares what is distilled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from anyseg_core.methods.base import Batch, NetworkKind, TaughtConfig
from anyseg_core.methods.crodino_kd import view_labels
from anyseg_core.methods.rgbd_losses import masked_positions, prototype_similarity, softened_divergence
from anyseg_core.methods.supervised import LabelLossConfig, label_size, supervise_each, supervision
from anyseg_core.models.acnet import AcNet, FusedOutput
from anyseg_core.models.anymodal import upsample_logits
from anyseg_core.models.unimodal import UnimodalOutput


class SingleModalityConfig(LabelLossConfig):
    """Settings of the method `single_modality`."""

    network: ClassVar[NetworkKind] = "unimodal"
    views_apart: ClassVar[bool] = True
    name: Literal["single_modality"] = "single_modality"


class SingleModality:
    """Each modality's network learns from labels alone."""

    def __init__(self, config: SingleModalityConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        out: UnimodalOutput = model(batch.images)
        return {"sup": supervise_each(out.logits, view_labels(batch), self.config, self.class_weights)}


class AcNetConfig(LabelLossConfig):
    """Settings of the method `acnet`, the multimodal teacher."""

    network: ClassVar[NetworkKind] = "acnet"
    name: Literal["acnet"] = "acnet"


class Multimodal:
    """Cross entropy on all modalities together."""

    def __init__(self, config: AcNetConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        out: FusedOutput = model(batch.images)
        full = upsample_logits(out.logits.float(), label_size(batch))  # [B, K, H/s, W/s]
        return {"sup": supervision(full, batch.labels, self.config, self.class_weights)}


class AcNetPupilConfig(LabelLossConfig, TaughtConfig):
    """What every method taught by the multimodal teacher has."""

    network: ClassVar[NetworkKind] = "unimodal"
    taught_by: ClassVar[NetworkKind] = "acnet"


class TeacherOutput(NamedTuple):
    """What both students are compared with."""

    logits: Tensor
    """[B, H/4, W/4, K], the teacher's."""
    embedding: Tensor
    """[B, C, H/16, W/16], of its merging branch."""
    labels: Tensor
    """int64 [B, H/s, W/s], the ground truth."""


class AcNetPupil(ABC):
    """L_sup of both networks, and what a subclass distils.

    Args:
        teacher: on the device of the batches.
    """

    def __init__(self, config: AcNetPupilConfig, class_weights: Tensor | None = None, *, teacher: AcNet) -> None:
        self.settings = config
        self.class_weights = class_weights
        self.teacher = teacher.eval().requires_grad_(False)

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        out = self.study(model, batch)
        with torch.no_grad():
            taught: FusedOutput = self.teacher(batch.images)
        losses = {"sup": supervise_each(out.logits, view_labels(batch), self.settings, self.class_weights)}
        return losses | self.distil(out, TeacherOutput(taught.logits, taught.embedding, batch.labels))

    def study(self, model: nn.Module, batch: Batch) -> UnimodalOutput:
        """The students' own answer."""
        return model(batch.images)

    @abstractmethod
    def distil(self, out: UnimodalOutput, taught: TeacherOutput) -> dict[str, Tensor]:
        """Named losses, weighted, each summed over the modalities."""


class PredictionConfig(AcNetPupilConfig):
    """What the methods that distil predictions have."""

    kd: float = Field(default=1.0, ge=0)
    """Weight of the divergence from the teacher's softened predictions."""
    temperature: float = Field(default=4.0, gt=0)
    """By which both predictions are softened."""


class KdConfig(PredictionConfig):
    """Settings of the method `kd`."""

    name: Literal["kd"] = "kd"


class Kd(AcNetPupil):
    """Knowledge distillation of softened predictions (arXiv 1503.02531)."""

    def __init__(self, config: PredictionConfig, class_weights: Tensor | None = None, *, teacher: AcNet) -> None:
        super().__init__(config, class_weights, teacher=teacher)
        self.config = config

    def distil(self, out: UnimodalOutput, taught: TeacherOutput) -> dict[str, Tensor]:
        terms = [softened_divergence(own, taught.logits, self.config.temperature) for own in out.logits]
        return {"kd": self.config.kd * torch.stack(terms).sum()}


class ProtoKdConfig(PredictionConfig):
    """Settings of the method `proto_kd`; the weights are ours."""

    name: Literal["proto_kd"] = "proto_kd"
    prototype: float = Field(default=1.0, ge=0)
    """Weight of the distance between the class prototypes of student and teacher."""


class ProtoKd(Kd):
    """The same, and similarities to class prototypes (arXiv 2303.09830)."""

    def __init__(self, config: ProtoKdConfig, class_weights: Tensor | None = None, *, teacher: AcNet) -> None:
        super().__init__(config, class_weights, teacher=teacher)
        self.prototype = config.prototype

    def distil(self, out: UnimodalOutput, taught: TeacherOutput) -> dict[str, Tensor]:
        classes = out.logits.shape[-1]
        terms = [prototype_similarity(z, taught.embedding, taught.labels, classes) for z in out.embeddings]
        losses = super().distil(out, taught)
        return losses | {"prototype": self.prototype * torch.stack(terms).sum()}


class MaskedGenerativeConfig(AcNetPupilConfig):
    """Settings of the method `mgd`."""

    network: ClassVar[NetworkKind] = "regenerating"
    name: Literal["mgd"] = "mgd"
    mgd: float = Field(default=1.0, ge=0)
    """Weight of the mean square error per element; ours, the published one is of a sum over a map of another size."""
    masked_share: float = Field(default=0.75, ge=0, lt=1)
    """Share of the student's positions that are hidden; 0.75 as published for segmentation."""


class MaskedGenerative(AcNetPupil):
    """Masked generative distillation (arXiv 2205.01529): from masked features, a block regenerates the teacher's."""

    def __init__(self, config: MaskedGenerativeConfig, class_weights: Tensor | None = None, *, teacher: AcNet) -> None:
        super().__init__(config, class_weights, teacher=teacher)
        self.config = config

    def study(self, model: nn.Module, batch: Batch) -> UnimodalOutput:
        return model(batch.images, lambda embeddings: masked_positions(embeddings, self.config.masked_share))

    def distil(self, out: UnimodalOutput, taught: TeacherOutput) -> dict[str, Tensor]:
        assert out.regenerated is not None
        terms = [F.mse_loss(own.float(), taught.embedding.float()) for own in out.regenerated]
        return {"mgd": self.config.mgd * torch.stack(terms).sum()}
