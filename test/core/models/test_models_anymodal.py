"""The anymodal network: folding is exact, a missing modality is gone, samples do not touch each other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anyseg_core.models.anymodal import AnymodalSegmenter, MissingPolicy, select_present
from anyseg_core.models.segformer_head import SegformerHead

DEFAULT_SENSORS, CLASSES, SIDE = 4, 5, 64
DIMS = (32, 64, 160, 256)


def make_network(missing: MissingPolicy = "remove") -> AnymodalSegmenter:
    torch.manual_seed(0)
    mean = [[0.1 * m + 0.2] * 3 for m in range(DEFAULT_SENSORS)]
    std = [[0.2, 0.3, 0.4]] * DEFAULT_SENSORS
    network = AnymodalSegmenter(mean, std, CLASSES, head_width=24, missing=missing).eval()
    with torch.no_grad():  # a batch norm that does something, and an answer that depends on the input
        network.head.norm.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
        network.head.norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        network.head.norm.bias.uniform_(-0.5, 0.5)
        network.head.classify.weight.normal_()
    return network


def random_images(samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    shape = (samples, DEFAULT_SENSORS, SIDE, SIDE, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def textbook_head(head: SegformerHead, features: list[Tensor]) -> Tensor:
    """SegFormer's head as published: project, upsample, concatenate, fuse, classify."""
    size = features[0].shape[1:3]
    projected = [layer(feature).permute(0, 3, 1, 2) for layer, feature in zip(head.project, features, strict=True)]
    upsampled = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in projected]
    fused = F.conv2d(torch.cat(upsampled, dim=1), head.fuse.weight[:, :, None, None])
    activated = F.relu(head.norm(fused))
    logits = F.conv2d(activated, head.classify.weight[:, :, None, None], head.classify.bias)
    return logits.permute(0, 2, 3, 1)


@pytest.mark.parametrize("training", [False, True])
def test_folded_head_is_the_textbook_head(training: bool) -> None:
    torch.manual_seed(3)
    head = SegformerHead(DIMS, 24, CLASSES, dropout=0.0).train(training)
    features = [torch.randn(2, 16 >> s, 24 >> s, dim) for s, dim in enumerate(DIMS)]
    gradients = []
    for run in (head, lambda f: textbook_head(head, f)):
        head.zero_grad()
        logits = run(features)
        logits.square().sum().backward()
        gradients.append([logits, *(p.grad.clone() for p in head.parameters() if p.grad is not None)])
    for folded, textbook in zip(*gradients, strict=True):
        torch.testing.assert_close(folded, textbook, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_sample_is_answered_from_its_own_modalities_alone() -> None:
    network, images = make_network(), random_images(3)
    present = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    together = network(select_present(images, present))
    for b in range(3):
        alone = network(select_present(images[b : b + 1], present[b : b + 1]))
        torch.testing.assert_close(together[b : b + 1], alone, atol=1e-4, rtol=1e-4)
    changed = images.clone()
    changed[1, 3] = 0  # a modality that sample 1 does not have
    torch.testing.assert_close(network(select_present(changed, present))[1], together[1], atol=0, rtol=0)
    changed[1, 2] = 0  # one that it has
    assert not torch.allclose(network(select_present(changed, present))[1], together[1], atol=1e-3)


@torch.no_grad()
def test_features_are_averaged_over_the_present_ones() -> None:
    network, images = make_network(), random_images(1)
    singles = [network.encode(images[:, m], torch.tensor([m])) for m in (0, 2)]
    flat = select_present(images, torch.tensor([[True, False, True, False]]))
    means = network.average(network.encode(flat.images, flat.modality), flat.sample, 1)
    for mean, first, second in zip(means, *singles, strict=True):
        torch.testing.assert_close(mean, (first + second) / 2, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@settings(max_examples=15)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=1, max_size=3))
def test_subsets_of_one_encoding_equal_separate_runs(rows: list[list[bool]]) -> None:
    network, images = make_network(), random_images(1)
    subsets = torch.tensor(rows)[:, None]  # [S, 1, M]
    logits = network(select_present(images, subsets.any(dim=0)), subsets)  # [S, h, w, K]
    for subset, together in zip(subsets, logits, strict=True):
        alone = network(select_present(images, subset))[0]
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_zero_policy_counts_a_missing_modality_as_a_zero_image() -> None:
    network, images = make_network("zero"), random_images(1)
    present = torch.tensor([[True, False, True, True]])
    normalised = network.normalise(images[0], torch.arange(DEFAULT_SENSORS))
    normalised[1] = 0.0
    features = [feature.mean(dim=0, keepdim=True) for feature in network.encoder(normalised)]
    expected = network.head(features)
    torch.testing.assert_close(network(select_present(images, present)), expected, atol=1e-4, rtol=1e-4)


def test_a_sample_without_modalities_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one modality"):
        select_present(random_images(1), torch.zeros(1, DEFAULT_SENSORS, dtype=torch.bool))


def test_normalisation_is_that_of_each_modality() -> None:
    network = make_network()
    images = torch.full((2, 1, 1, 3), 51, dtype=torch.uint8)  # 0.2
    normalised = network.normalise(images, torch.tensor([0, 3]))
    torch.testing.assert_close(normalised[0, 0, 0], torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(normalised[1, 0, 0], -0.3 / torch.tensor([0.2, 0.3, 0.4]))
