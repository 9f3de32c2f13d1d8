"""The ResNet networks: published shapes and names, every subset, and what the robot would need of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anyseg_core.models.acnet import AcNet
from anyseg_core.models.base import SegmentationModel, all_subsets
from anyseg_core.models.deeplab import Aspp, DeepLab, DeepLabSpec
from anyseg_core.models.efficientnet_lite import EfficientNetLite, load_efficientnet_weights
from anyseg_core.models.resnet import ResNet, load_resnet_weights
from anyseg_core.models.staged_encoders import StagedLite
from anyseg_core.models.unimodal import (
    DisentangledNetworks,
    RegeneratingNetworks,
    UnimodalNetworks,
    average_probabilities,
)

CHANNELS = [[0.4, 0.5, 0.6]] * 2, [[0.2, 0.3, 0.25]] * 2
SMALL = DeepLabSpec("resnet18", classes=5, head_width=16, width=0.125, aspp_rates=(1, 2, 3))


def network(kind: type[SegmentationModel] = UnimodalNetworks, seed: int = 0) -> SegmentationModel:
    torch.manual_seed(seed)
    return kind(*CHANNELS, SMALL).eval()  # type: ignore[call-arg]


def images(batch: int = 2, side: int = 64) -> Tensor:
    return torch.randint(0, 256, (batch, 2, side, side, 3), dtype=torch.uint8, generator=torch.manual_seed(1))


@pytest.mark.parametrize(
    ("variant", "parameters", "channels"),
    [("resnet18", 11_176_512, 512), ("resnet50", 23_508_032, 2048)],
)
def test_the_encoders_have_the_published_number_of_weights(variant: str, parameters: int, channels: int) -> None:
    """Those of torchvision's networks without `fc` (11,689,512 - 513,000 and 25,557,032 - 2,049,000)."""
    encoder = ResNet(variant)
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert encoder.dims[-1] == channels
    keys = encoder.state_dict().keys()
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer4.1.bn2.bias"} <= keys
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var"} <= keys


def test_the_maps_have_strides_4_4_8_16_16() -> None:
    maps = ResNet("resnet50", 0.125)(torch.zeros(1, 3, 96, 64))
    assert [tuple(x.shape[2:]) for x in maps] == [(24, 16), (24, 16), (12, 8), (6, 4), (6, 4)]


def test_imagenet_weights_load_strictly_and_into_a_merging_branch_too() -> None:
    weights = ResNet("resnet18").state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    teacher = AcNet(*CHANNELS, DeepLabSpec("resnet18", 5, 16))
    for encoder in teacher.encoders:
        assert isinstance(encoder, ResNet)
        load_resnet_weights(encoder, weights)
        assert torch.equal(encoder.state_dict()["layer4.1.conv2.weight"], weights["layer4.1.conv2.weight"])
    del weights["layer3.0.conv1.weight"]
    with pytest.raises(RuntimeError, match=r"layer3\.0\.conv1\.weight"):
        load_resnet_weights(ResNet("resnet18"), weights)


def test_aspp_sees_near_far_and_everything() -> None:
    """The reach of a gradient from one position: its 1x1 and atrous taps; the image's mean reaches everywhere."""
    torch.manual_seed(0)
    aspp = Aspp(4, 8, (1, 2, 4), dropout=0.0).eval()
    x = torch.randn(1, 4, 11, 11, requires_grad=True)
    far = torch.stack([branch(x)[0, :, 5, 5].sum() for branch in aspp.branches]).sum()
    (reach,) = torch.autograd.grad(far, x)
    touched = {(int(i), int(j)) for i, j in (reach[0].abs().sum(dim=0) > 0).nonzero()}
    wanted = {(5 + r * i, 5 + r * j) for r in (1, 2, 4) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert touched == wanted
    (everywhere,) = torch.autograd.grad(aspp.pool(x.mean(dim=(2, 3), keepdim=True)).sum(), x)
    assert (everywhere != 0).any(dim=1).all()


def test_the_decoder_uses_the_low_level_skip() -> None:
    torch.manual_seed(0)
    deeplab = DeepLab(SMALL).eval()
    embedding, low = deeplab.encode(torch.randn(1, 3, 64, 64))
    assert deeplab.decoder(embedding, low).shape == (1, 16, 16, 5)
    assert not torch.allclose(deeplab.decoder(embedding, low), deeplab.decoder(embedding, torch.zeros_like(low)))


@pytest.mark.parametrize("kind", [UnimodalNetworks, RegeneratingNetworks, DisentangledNetworks, AcNet])
@torch.no_grad()
def test_every_subset_has_logits_and_only_its_members_matter(kind: type[SegmentationModel]) -> None:
    model = network(kind)
    sample = images(1)[0]
    answers = dict(model.subset_logits(sample))
    assert list(answers) == all_subsets(2)
    assert all(logits.shape == (1, 16, 16, 5) for logits in answers.values())
    other = sample.clone()
    other[1] = 255 - other[1]
    changed = dict(model.subset_logits(other))
    assert torch.allclose(answers[(0,)], changed[(0,)], atol=1e-5)
    assert not torch.allclose(answers[(1,)], changed[(1,)])
    assert not torch.allclose(answers[(0, 1)], changed[(0, 1)])


@pytest.mark.parametrize("kind", [UnimodalNetworks, AcNet])
@torch.no_grad()
def test_what_each_brings_makes_the_answer_of_all(kind: type[SegmentationModel]) -> None:
    model, sample = network(kind), images(1)[0]
    everything = dict(model.subset_logits(sample))[(0, 1)]
    assert torch.allclose(model.together(model.contributions(sample)), everything, atol=1e-5)


@torch.no_grad()
def test_two_networks_average_their_probabilities() -> None:
    model = network()
    answers = dict(model.subset_logits(images(1)[0]))
    mean = (answers[(0,)].softmax(dim=-1) + answers[(1,)].softmax(dim=-1)) / 2
    assert torch.allclose(answers[(0, 1)].softmax(dim=-1), mean, atol=1e-6)


def test_the_average_of_one_is_itself() -> None:
    logits = torch.randn(1, 2, 2, 3)
    assert average_probabilities(logits) is logits


@torch.no_grad()
def test_the_teachers_missing_modality_is_zero_after_normalisation() -> None:
    model = network(AcNet)
    sample = images(1)[0]
    blank = sample.clone()
    blank[1] = torch.tensor([102, 128, 153], dtype=torch.uint8)  # 255 x the mean
    assert torch.allclose(dict(model.subset_logits(sample))[(0,)], model(blank[None]).logits, atol=1e-5)


@torch.no_grad()
def test_the_halves_are_the_embeddings_channels_and_mixing_changes_the_mixed_logits_alone() -> None:
    model = network(DisentangledNetworks)
    assert isinstance(model, DisentangledNetworks)
    out = model(images(), lambda invariant, classes: [z * (1 + classes) for z in invariant])
    embeddings, lows = model.encode(images())
    assert torch.equal(torch.cat([out.invariant, out.specific], dim=2), torch.stack(embeddings))
    plain = model(images())
    assert plain.mixed is None
    assert torch.allclose(out.logits, plain.logits, atol=1e-5)
    assert out.mixed is not None
    half = embeddings[0].shape[1] // 2
    louder = torch.cat([6 * embeddings[0][:, :half], embeddings[0][:, half:]], dim=1)
    assert torch.allclose(out.mixed[0], model.network(0).decoder(louder, lows[0]), atol=1e-4)
    assert out.auxiliary.shape == (2, 2, 2, 4, 4, 5)
    alone = model.auxiliary(out.specific[1]).permute(0, 2, 3, 1)
    assert torch.allclose(out.auxiliary[1, 1], alone, atol=1e-5)


def test_what_only_training_needs_is_not_deployed() -> None:
    plain = network().deployed_parameters()
    assert sum(p.numel() for p in network().parameters()) == plain
    for kind in (DisentangledNetworks, RegeneratingNetworks):
        model = network(kind)
        assert model.deployed_parameters() == plain < sum(p.numel() for p in model.parameters())


def test_at_the_published_size_crodino_trains_a_quarter_of_masked_distillations_weights() -> None:
    """ResNet-50, decoder 256 wide, 40 classes; masked distillation with its teacher and generators."""
    spec = DeepLabSpec("resnet50", classes=40)
    with torch.device("meta"):
        kinds = (DisentangledNetworks, RegeneratingNetworks, AcNet)
        crodino, masked, teacher = (sum(p.numel() for p in kind(*CHANNELS, spec).parameters()) for kind in kinds)
        projected = DisentangledNetworks(*CHANNELS, spec, projections=True)
    assert round(crodino / 1e6, 1) == 83.1
    assert round(sum(p.numel() for p in projected.parameters()) / 1e6, 1) == 91.5
    assert round((masked + teacher) / 1e6, 1) == 330.2


@pytest.mark.parametrize("kind", [UnimodalNetworks, DisentangledNetworks, RegeneratingNetworks, AcNet])
def test_every_network_can_have_efficientnet_lite_with_its_published_weights(
    kind: Callable[..., SegmentationModel],
) -> None:
    """Also the merging branch, which begins after the stem; the maps are those of the encoder as AnySeg has it."""
    torch.manual_seed(1)
    published = EfficientNetLite("efficientnet_lite0").eval()
    weights = published.state_dict() | {"_fc.weight": torch.zeros(2, 2), "_conv_head.weight": torch.zeros(2, 2)}
    model = kind(*CHANNELS, DeepLabSpec("efficientnet_lite0", 5, 16, 1.0, (1, 1, 1), 0.0)).eval()
    for encoder in model.encoders:
        assert isinstance(encoder, StagedLite)
        load_efficientnet_weights(encoder, weights)
    first, given = model.encoders[0], torch.randn(1, 64, 96, 3)
    assert isinstance(first, StagedLite)
    with torch.no_grad():
        maps = first(given.permute(0, 3, 1, 2))
        assert [tuple(m.shape[2:]) for m in maps] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
        for own, expected in zip(maps[1:], published(given), strict=True):
            torch.testing.assert_close(own.permute(0, 2, 3, 1), expected, atol=1e-4, rtol=1e-4)
        assert {tuple(logits.shape) for _, logits in model.subset_logits(images(1)[0])} == {(1, 16, 16, 5)}


@torch.no_grad()
def test_images_are_normalised_by_their_modality() -> None:
    model = network()
    assert isinstance(model, UnimodalNetworks)
    image = images(1)[:, 0]
    got = model.planes(image, 1)
    mean, std = (torch.tensor(values[1])[:, None, None] for values in CHANNELS)
    assert torch.allclose(got[0], (image[0].permute(2, 0, 1) / 255 - mean) / std, atol=1e-5)
    assert F.conv2d(got, torch.ones(1, 3, 1, 1)).shape == (1, 1, 64, 64)
