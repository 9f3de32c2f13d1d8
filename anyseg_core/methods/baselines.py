"""Other methods as references, on the same network: in the manner of RobustSeg and of MAGIC, not reproductions.

They share AnySeg's encoder, fusion by a mean, head, data and loop, so that a table compares what is distilled and
nothing else. What their papers add to the network (MAGIC's aggregation module, RobustSeg's regulariser) is not here.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from anyseg_core.methods.anyseg import Distillation, DistillationConfig, TeacherOutput
from anyseg_core.methods.base import Batch
from anyseg_core.methods.losses import prediction_distillation, prototype_distillation
from anyseg_core.methods.supervised import SupervisionConfig, label_size, supervision
from anyseg_core.models.anymodal import AnymodalSegmenter, PresentImages, select_present, upsample_logits


class PrototypeConfig(DistillationConfig):
    """Settings of the method `prototype`."""

    name: Literal["prototype"] = "prototype"
    prototype: float = Field(default=100.0, ge=0)
    """Weight of the distillation of class prototypes; 100 is RobustSeg's."""
    target: Literal["own", "fused"] = "fused"
    """Whose prototypes a modality follows: the teacher's of the same modality, or of the mean over all of them."""


class PrototypeDistillation(Distillation):
    """Class prototypes instead of features, in the manner of RobustSeg (CVPR 2026)."""

    def __init__(
        self, config: PrototypeConfig, class_weights: Tensor | None = None, *, teacher: AnymodalSegmenter
    ) -> None:
        super().__init__(config, class_weights, teacher=teacher)
        self.config = config

    def feature_losses(self, student: list[Tensor], taught: TeacherOutput, seen: PresentImages) -> dict[str, Tensor]:
        if self.config.target == "own":
            teacher = taught.features_of(seen)
        else:
            means = [stage.unflatten(0, (seen.batch, -1)).mean(dim=1) for stage in taught.features]  # [B, h, w, C]
            teacher = [mean[seen.sample] for mean in means]  # [P, h, w, C]
        classes = self.teacher.head.classify.out_features
        labels = taught.labels[seen.sample]  # [P, H, W]
        value = prototype_distillation(student, teacher, labels, classes, seen.batch)
        return {"prototype": self.config.prototype * value}


class MagicConfig(SupervisionConfig):
    """Settings of the method `magic`, which has no teacher and always encodes all modalities."""

    name: Literal["magic"] = "magic"
    salient: float = Field(default=1.0, ge=0)
    """Weight of the supervision of the most and the least salient modality together."""
    consistency: float = Field(default=50.0, ge=0)
    """Weight of the agreement between their prediction and that of the others; per pixel 50/K, as in AnySeg."""

    @property
    def anymodal_dropout(self) -> bool:
        """The salient modalities take the place of random ones."""
        return True


class Magic:
    """Selection by similarity instead of at random, in the manner of MAGIC (arXiv 2407.11344).

    The modality most like the mean of all is the robust one, the least like it the fragile one. All modalities,
    robust + fragile, and the others are three subsets: the first two are supervised, the last two agree.
    """

    def __init__(self, config: MagicConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        samples, modalities = batch.images.shape[:2]
        everything = torch.ones(samples, modalities, dtype=torch.bool, device=batch.images.device)
        seen = select_present(batch.images, everything)
        logits = model(seen, lambda features: salient_subsets(features, samples))  # [3 * B, H/4, W/4, K]
        fused, salient, others = upsample_logits(logits.float(), label_size(batch)).chunk(3)  # [B, K, H/s, W/s] each
        config, weights = self.config, self.class_weights
        agreement = prediction_distillation(others, salient, "paper") + prediction_distillation(
            others, salient, "released"
        )
        return {
            "sup": supervision(fused, batch.labels, config, weights),
            "salient": config.salient * supervision(salient, batch.labels, config, weights),
            "consistency": config.consistency * agreement / 2,
        }


@torch.no_grad()
def salient_subsets(features: list[Tensor], samples: int) -> Tensor:
    """Features of all modalities, per stage [B * M, h, w, C] -> all, the salient, the others: bool [3, B, M].

    With two modalities the others are the fragile one alone; with one, all three subsets are the same.
    """
    scores = torch.stack([_likeness_to_mean(stage.unflatten(0, (samples, -1))) for stage in features]).mean(dim=0)
    order = scores.argsort(dim=1, descending=True)  # [B, M]
    modalities = scores.shape[1]
    everything = torch.ones_like(scores, dtype=torch.bool)
    salient = torch.zeros_like(everything).scatter_(1, order[:, :1], value=True)
    if modalities > 2:
        salient = salient.scatter_(1, order[:, -1:], value=True)
    others = ~salient if modalities > 1 else everything
    return torch.stack([everything, salient, others])


def _likeness_to_mean(stage: Tensor) -> Tensor:
    """[B, M, h, w, C] -> cosine similarity of each modality's features to their mean, [B, M]."""
    flat = stage.float().flatten(2)
    return F.cosine_similarity(flat, flat.mean(dim=1, keepdim=True), dim=2)
