"""The network as its own teacher: its prediction from all sensors teaches, and learns nothing from its pupils."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shapes_dataset import shapes_config, write_shapes

from anyseg_core.methods import Batch, SelfDistilled, SelfDistilledConfig
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.training.loop import train


def make_network() -> AnymodalSegmenter:
    torch.manual_seed(0)
    channels = [[0.5] * 3] * 4
    network = AnymodalSegmenter(channels, channels, 3, "mit_b0", 8, drop_path=0, dropout=0, fusion="gated")
    with torch.no_grad():
        network.head.classify.weight.normal_()
    return network


def make_batch(labels: int = 0) -> Batch:
    images = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.full((2, 16, 16), labels))


def test_a_network_that_sees_the_same_in_every_subset_has_nothing_to_learn_from_itself() -> None:
    network, batch = make_network(), make_batch()
    alike = batch._replace(images=batch.images[:, :1].expand(-1, 4, -1, -1, -1))
    losses = SelfDistilled(SelfDistilledConfig(loss="cross_entropy"))
    torch.manual_seed(2)
    same = losses.losses(network, alike)["own"].detach()
    torch.manual_seed(2)
    different = losses.losses(network, batch)["own"].detach()
    assert float(same) == pytest.approx(0, abs=1e-4)
    assert float(different) > 10 * float(same) + 1e-3


def test_the_teacher_does_not_follow_its_pupils() -> None:
    """Of a step whose only subset is all of them, the divergence has no gradient at all: both sides are one."""
    network, batch = make_network(), make_batch()
    one = batch._replace(images=batch.images[:, :1])
    network.mean, network.std = network.mean[:1], network.std[:1]
    losses = SelfDistilled(SelfDistilledConfig(loss="cross_entropy")).losses(network, one)
    losses["own"].backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-5


def test_it_trains(tmp_path: Path) -> None:
    config = shapes_config(
        write_shapes(tmp_path / "shapes"),
        method={"name": "self_distilled", "subsets_per_step": 2},
        model={"backbone": "efficientnet_lite0", "fusion": "gated"},
        budget={"max_steps": 2},
    )
    assert train(config, tmp_path / "run", show_progress=False).name == "step_00000002"
