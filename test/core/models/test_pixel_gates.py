"""Pixel gates: a mean when new, a softmax over those present, and images still encoded one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anyseg_core.models.anymodal import AnymodalSegmenter, select_present
from anyseg_core.models.base import all_subsets
from anyseg_core.models.pixel_gates import MAX_SCORE, PixelGates, divide, pack_stages, unpack_stages

DEFAULT_SENSORS, HEIGHT, WIDTH = 4, 64, 96


def make_network(backbone: str = "efficientnet_lite0") -> AnymodalSegmenter:
    torch.manual_seed(0)
    channels = [[0.5] * 3] * DEFAULT_SENSORS
    network = AnymodalSegmenter(channels, channels, 5, backbone, 16, drop_path=0, fusion="gated").eval()
    with torch.no_grad():
        network.head.classify.weight.normal_()
        meet_images(network)
    return network


def meet_images(network: AnymodalSegmenter) -> None:
    """Give batch norm the statistics of images: without them nothing is left of an image after a few layers."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(select_present(random_images(), torch.ones(1, DEFAULT_SENSORS, dtype=torch.bool)))
    network.eval()


def open_gates(network: AnymodalSegmenter) -> AnymodalSegmenter:
    """Gates that prefer something."""
    assert network.gates is not None
    with torch.no_grad():
        for parameter in network.gates.parameters():
            parameter.normal_(std=0.3)
    return network


def random_images(samples: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (samples, DEFAULT_SENSORS, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_new_gates_are_a_plain_mean() -> None:
    gated = make_network()
    torch.manual_seed(0)
    channels = [[0.5] * 3] * DEFAULT_SENSORS
    plain = AnymodalSegmenter(channels, channels, 5, "efficientnet_lite0", 16, drop_path=0).eval()
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.startswith("gates.")})
    images = random_images()[0]
    for (_, one), (_, other) in zip(gated.subset_logits(images), plain.subset_logits(images), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_weights_of_those_present_are_a_softmax_of_their_scores() -> None:
    gates = PixelGates([3, 4])
    for parameter in gates.parameters():
        parameter.normal_()
    features = [torch.randn(3, 4, 6, 3), torch.randn(3, 2, 3, 4)]
    weights = gates(features)
    (fused, coarse) = divide([stage.mean(dim=0) for stage in gates.weigh(features)])
    for weight, feature, result in zip(weights, features, (fused, coarse), strict=True):
        softmax = weight.log().softmax(dim=0)  # [3, h, w, 1]
        torch.testing.assert_close(result, (softmax * feature).sum(dim=0), atol=1e-5, rtol=1e-4)
        assert float(weight.log().abs().max()) <= MAX_SCORE


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mit_b0"])
def test_every_subset_of_one_encoding_is_answered_as_if_alone(backbone: str) -> None:
    network, images = open_gates(make_network(backbone)), random_images()
    subsets = torch.zeros(15, 1, DEFAULT_SENSORS, dtype=torch.bool)
    for row, subset in zip(subsets, all_subsets(DEFAULT_SENSORS), strict=True):
        row[0, list(subset)] = True
    together = network(select_present(images, subsets.any(dim=0)), subsets)  # [15, h, w, K]
    for (subset, logits), shared, row in zip(network.subset_logits(images[0]), together, subsets, strict=True):
        alone = network(select_present(images, row))[0]
        torch.testing.assert_close(shared, alone, atol=1e-3, rtol=1e-3, msg=str(subset))
        torch.testing.assert_close(logits[0], alone, atol=1e-3, rtol=1e-3, msg=str(subset))


@torch.no_grad()
def test_opened_gates_are_no_mean() -> None:
    network, images = make_network(), random_images()
    everything = select_present(images, torch.ones(1, DEFAULT_SENSORS, dtype=torch.bool))
    before = network(everything)
    assert not torch.allclose(open_gates(network)(everything), before, atol=1e-2)


def test_the_gates_learn_from_the_first_step_on() -> None:
    network = make_network()
    network(select_present(random_images(), torch.ones(1, DEFAULT_SENSORS, dtype=torch.bool))).square().sum().backward()
    assert network.gates is not None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.gates.parameters())


def test_packing_is_undone_by_unpacking() -> None:
    stages = [torch.randn(2, 8 * h, 12 * h, dim) for h, dim in ((8, 2), (4, 3), (2, 4), (1, 5))]
    unpacked = unpack_stages(pack_stages(stages), [2, 3, 4, 5])
    for before, after in zip(stages, unpacked, strict=True):
        torch.testing.assert_close(after, before, atol=0, rtol=0)


def test_gates_need_missing_modalities_to_be_gone() -> None:
    channels = [[0.5] * 3] * 2
    with pytest.raises(ValueError, match="cannot be had with missing zero"):
        AnymodalSegmenter(channels, channels, 5, fusion="gated", missing="zero")


@torch.no_grad()
def test_shares_say_who_counts_where() -> None:
    images = random_images()[0]
    even, uneven = make_network().shares(images), open_gates(make_network()).shares(images)
    assert even.shape == (DEFAULT_SENSORS, HEIGHT // 4, WIDTH // 4)
    torch.testing.assert_close(even, torch.full_like(even, 0.25))
    torch.testing.assert_close(uneven.sum(dim=0), torch.ones(HEIGHT // 4, WIDTH // 4))
    assert float(uneven.std()) > 0.01
