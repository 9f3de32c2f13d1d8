"""A student folder becomes a run again: to fine-tune, to distil, or to teach with what a robot was shipped.

`models/student_weights.py` finds the weights in the network's file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.student_weights import StudentWeightsError, calibrate_norms, load_exported, only_network
from anyseg_core.runtime.model_card import load_card
from anyseg_core.training.checkpoint import CheckpointError, TrainingState, build_anymodal, save_checkpoint
from anyseg_core.training.config import TrainConfig
from anyseg_core.training.same_meaning import open_same

CALIBRATION_SAMPLES = 32
"""From which batch norm's statistics are taken: folding has removed them."""


def import_student(folder: Path, out: Path, config: TrainConfig) -> Path:
    """Write a checkpoint of a student's network to the run `out`; returns its folder.

    Args:
        folder: a student with one fp32 network for all of its modalities.
        config: data and model that it was trained with; the training split calibrates batch norm.

    Raises StudentError for a damaged folder, DataError for the data, CheckpointError where network and config differ.
    """
    card = load_card(folder)
    try:
        network = only_network(card, folder)
    except StudentWeightsError as error:
        raise CheckpointError(str(error)) from None
    state = TrainingState(
        config=config,
        inputs=card.inputs,
        classes=card.classes,
        data=card.training.data,
        git_revision=card.training.git_revision,
        command=f"anyseg import-weights {folder.name}",
        licence=card.training.licence,
        non_commercial=card.training.non_commercial,
    )
    dataset = open_same(state, config.data, config.data.train_split)
    model = build_anymodal(state).eval()
    try:
        load_exported(model, network, card)
    except StudentWeightsError as error:
        raise CheckpointError(str(error)) from None
    chosen = np.linspace(0, len(dataset) - 1, min(CALIBRATION_SAMPLES, len(dataset))).astype(int)
    samples = [torch.from_numpy(np.array(dataset[int(index)].images)) for index in chosen]
    calibrate_norms(model, lambda: _answer_all_subsets(model, samples))
    return save_checkpoint(out, state, model, optimizer=None)


def _answer_all_subsets(model: AnymodalSegmenter, samples: list[Tensor]) -> None:
    for images in samples:
        for _ in model.subset_logits(images):
            pass
