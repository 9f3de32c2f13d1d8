"""CroDiNo-KD's terms, each by hand; its switches; a training run with modalities that are augmented apart."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shapes_dataset import shapes_config, write_shapes
from torch import Tensor

from anyseg_core.data.datasets import open_dataset
from anyseg_core.data.decoupled import DecoupledConfig, SensorPipeline, augment_apart
from anyseg_core.methods import Batch, CrodinoConfig, CrodinoKd
from anyseg_core.methods.rgbd_losses import (
    Pairs,
    SameClass,
    image_pairs,
    info_nce,
    mix_classes,
    mix_positions,
    orthogonality,
    pooled_pairs,
)
from anyseg_core.models.deeplab import DeepLabSpec
from anyseg_core.models.unimodal import DisentangledNetworks
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.training.batches import Batches
from anyseg_core.training.checkpoint import CheckpointError
from anyseg_core.training.config import ConfigError
from anyseg_core.training.loop import train
from anyseg_core.training.run_log import METRICS_NAME

RESNET = {"backbone": "resnet18", "head_width": 16, "width": 0.125, "aspp_rates": [1, 1, 1], "label_stride": 2}


def test_mixup_is_equation_3() -> None:
    own, other = torch.full((1, 2, 3, 3), 1.0), torch.full((1, 2, 3, 3), 5.0)
    camera, depth = mix_positions([own, other], 0.35)
    assert torch.allclose(camera, torch.tensor(0.35 * 5 + 0.65 * 1))
    assert torch.allclose(depth, torch.tensor(0.35 * 1 + 0.65 * 5))
    assert torch.equal(mix_positions([own, other], 0.0)[0], own)


def moved_apart(seed: int, side: int = 32) -> tuple[Tensor, Tensor]:
    """A smooth picture as two sensors see it, each turned, zoomed and mirrored by itself; and to_view."""
    y, x = np.mgrid[0:side, 0:side] / side
    picture = (60 + 60 * x + 100 * y * x + 20 * np.sin(4 * x)).round().astype(np.uint8)
    image = np.repeat(picture[None, ..., None], 3, axis=3).repeat(2, axis=0)
    labels, rng = np.zeros((side, side), np.uint8), np.random.default_rng(seed)
    smooth = SensorPipeline(scale=(0.8, 1.4), rotation_deg=(-40, 40))
    config = DecoupledConfig(depth=smooth, event=smooth)
    view = augment_apart(image, labels, (Sensor.EVENT,) * 2, (side, side), config, rng)
    return torch.from_numpy(view.images[..., 0].astype(np.float32)), torch.from_numpy(view.to_view)


@pytest.mark.parametrize("seed", range(5))
def test_a_known_warp_comes_back_aligned(seed: int) -> None:
    """Wholly mixed (lambda 1), the other view's picture is the own view's, wherever both show the scene."""
    views, to_view = moved_apart(seed)
    features = [view[None, None] for view in views]
    for own, mixed in enumerate(mix_positions(features, 1.0, to_view[None])):
        taken = mixed[0, 0] != views[own]  # positions that got the other's value
        shown = taken & (views[own] > 0)
        assert shown.float().mean() > 0.2
        # At the border of a view half a pixel is margin; elsewhere one pixel's step of the picture is at most 6.
        assert ((mixed[0, 0] - views[own]).abs() < 6)[shown].float().mean() > 0.8
        assert ((views[1 - own] - views[own]).abs() < 6)[shown].float().mean() < 0.5  # unaligned they differ


def test_where_the_other_view_shows_nothing_the_own_features_stay() -> None:
    features = [torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)]
    still = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    to_the_right = torch.tensor([[1.0, 0, 1.0], [0, 1, 0]])  # by half the image: its right half shows our left half
    camera, depth = mix_positions(features, 0.5, torch.stack([still, to_the_right])[None])
    assert camera[0, 0].tolist() == [[0.5, 0.5, 0.0, 0.0]] * 4
    assert depth[0, 0].tolist() == [[1.0, 1.0, 0.5, 0.5]] * 4


def test_mixing_by_class_takes_the_other_modalitys_mean_of_the_class() -> None:
    labels = [torch.tensor([[[0, 1], [2, 255]]]), torch.tensor([[[1, 1], [0, 255]]])]
    own = torch.tensor([[[[10.0, 20.0], [30.0, 40.0]]]])
    other = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    camera, depth = mix_classes([own, other], 0.5, labels, 3)
    assert camera[0, 0].tolist() == [[(10 + 5) / 2, (20 + 2) / 2], [30.0, 40.0]]  # class 2 is not there, 255 no class
    assert depth[0, 0].tolist() == [[(1 + 20) / 2, (3 + 20) / 2], [(5 + 10) / 2, 7.0]]


def test_orthogonality_is_the_mean_absolute_cosine_at_each_position() -> None:
    invariant = torch.tensor([[[[1.0, 1.0]], [[0.0, 1.0]]]])  # two channels, two positions: (1, 0), (1, 1)
    specific = torch.tensor([[[[0.0, -2.0]], [[3.0, 0.0]]]])  # (0, 3), (-2, 0)
    assert orthogonality(invariant, specific).item() == pytest.approx((0 + math.sqrt(0.5)) / 2, abs=1e-6)


def test_info_nce_by_hand() -> None:
    first = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[0.6, 0.8], [0.0, 5.0]])
    similarity = np.array([[0.6, 0.0], [0.8, 1.0]]) / 0.5
    rows = [-math.log(math.exp(similarity[i, i]) / np.exp(similarity[i]).sum()) for i in range(2)]
    columns = [-math.log(math.exp(similarity[i, i]) / np.exp(similarity[:, i]).sum()) for i in range(2)]
    expected = (np.mean(rows) + np.mean(columns)) / 2
    kind = torch.arange(2)
    assert info_nce(Pairs(first, second, kind), 0.5).item() == pytest.approx(expected, rel=1e-5)
    assert info_nce(Pairs(first, second, kind)).item() == info_nce(Pairs(second, first, kind)).item()
    assert info_nce(Pairs(first, first, kind)).item() < 1e-5 < info_nce(Pairs(first, second.flip(0), kind)).item()


SAME_CLASS: tuple[SameClass, ...] = ("masked", "positive", "negative")


def loop_info_nce(pairs: Pairs, temperature: float, same_class: SameClass) -> float:
    """Row by row, in both directions."""
    total, kinds = 0.0, pairs.kind.tolist()
    for rows, columns in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
        for n, row in enumerate(rows):
            scores = [float(F.cosine_similarity(row, column, dim=0)) / temperature for column in columns]
            alike = [m for m in range(len(kinds)) if kinds[m] == kinds[n]]
            seen = [m for m in range(len(kinds)) if same_class != "masked" or m == n or m not in alike]
            normaliser = math.log(sum(math.exp(scores[m]) for m in seen))
            matches = alike if same_class == "positive" else [n]
            total -= sum(scores[m] - normaliser for m in matches) / len(matches)
    return total / (2 * len(kinds))


@pytest.mark.parametrize("same_class", SAME_CLASS)
@pytest.mark.parametrize("kinds", [[0, 1], [0, 1, 0, 2, 1, 0], [3, 3, 5]], ids=str)
def test_info_nce_is_the_loops(kinds: list[int], same_class: SameClass) -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(len(kinds), 7, generator=generator, dtype=torch.double) for _ in range(2))
    pairs = Pairs(first.requires_grad_(), second, torch.tensor(kinds))
    loss = info_nce(pairs, 0.5, same_class)
    assert loss.item() == pytest.approx(
        loop_info_nce(Pairs(*(part.detach() for part in pairs)), 0.5, same_class), abs=1e-6
    )
    loss.backward()
    assert first.grad is not None
    assert first.grad.isfinite().all()


def test_the_same_class_in_another_image_repels_only_where_it_is_a_mismatch() -> None:
    """Two roads that look alike, and a car: only as a mismatch does the other road raise the loss."""
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    pairs = Pairs(first, first, torch.tensor([0, 0, 1]))
    masked, positive, negative = (info_nce(pairs, 0.07, same_class).item() for same_class in SAME_CLASS)
    assert masked < 1e-4
    assert negative > 2 / 3 * math.log(2) - 1e-4
    assert positive == pytest.approx(2 / 3 * math.log(2), abs=1e-4)  # its least value: two matches share the weight


@pytest.mark.parametrize("same_class", SAME_CLASS)
@pytest.mark.parametrize("kinds", [[], [4], [4, 4]], ids=str)
def test_info_nce_with_nothing_to_tell_apart_is_refused_not_zero(kinds: list[int], same_class: SameClass) -> None:
    pairs = Pairs(torch.ones(len(kinds), 3), torch.ones(len(kinds), 3), torch.tensor(kinds))
    if same_class == "negative" and len(kinds) == 2:
        assert info_nce(pairs, same_class=same_class).item() == pytest.approx(math.log(2))
        return
    with pytest.raises(ValueError, match=f"two pairs to tell apart, not {len(kinds)} of {len(set(kinds))} classes"):
        info_nce(pairs, same_class=same_class)


def test_pairs_are_classes_that_both_views_of_an_image_show() -> None:
    labels = [torch.tensor([[[0, 1]], [[2, 255]]]), torch.tensor([[[1, 1]], [[2, 0]]])]
    camera = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])  # [B=2, C=1, 1, 2]
    depth = torch.tensor([[[[5.0, 7.0]]], [[[8.0, 9.0]]]])
    first, second, kind = pooled_pairs([camera, depth], labels, 3)
    assert first.tolist() == [[2.0], [3.0]]  # class 1 of image 0, class 2 of image 1
    assert second.tolist() == [[6.0], [8.0]]
    assert kind.tolist() == [1, 2]


def test_image_pairs_are_means() -> None:
    first, second, kind = image_pairs([torch.ones(2, 3, 4, 4), torch.arange(8.0).reshape(2, 1, 2, 2)])
    assert first.tolist() == [[1.0] * 3] * 2
    assert second.tolist() == [[1.5], [5.5]]
    assert kind.tolist() == [0, 1]


# --- the method ------------------------------------------------------------------------------------------------


def network() -> DisentangledNetworks:
    torch.manual_seed(0)
    spec = DeepLabSpec("resnet18", 4, 16, 0.125, (1, 1, 1), 0.0)
    return DisentangledNetworks([[0.5] * 3] * 2, [[0.25] * 3] * 2, spec)


def batch(samples: int = 2, side: int = 32, classes: int = 4) -> Batch:
    generator = torch.manual_seed(3)
    images = torch.randint(0, 256, (samples, 2, side, side, 3), dtype=torch.uint8, generator=generator)
    coarse = torch.randint(0, classes, (samples, 2, 2), generator=generator)
    return Batch(images, coarse.repeat_interleave(side // 2, 1).repeat_interleave(side // 2, 2))


def losses(**settings: object) -> dict[str, Tensor]:
    config = CrodinoConfig.model_validate({"loss": "cross_entropy"} | settings)
    return CrodinoKd(config).losses(network().eval(), batch())


@torch.no_grad()
def test_the_total_is_the_blogs_weighted_sum() -> None:
    model, given = network().eval(), batch()
    out = model(given.images, lambda z, _: mix_positions(z, 0.35))
    found = losses()
    assert set(found) == {"sup", "mixed", "ortho", "aux", "contrast"}

    def cross_entropy(logits: Tensor) -> Tensor:
        full = F.interpolate(logits.permute(0, 3, 1, 2), size=(32, 32), mode="bilinear")
        return F.cross_entropy(full, given.labels, ignore_index=255)

    assert torch.allclose(found["sup"], cross_entropy(out.logits[0]) + cross_entropy(out.logits[1]), rtol=1e-4)
    assert torch.allclose(found["mixed"], cross_entropy(out.mixed[0]) + cross_entropy(out.mixed[1]), rtol=1e-4)
    ortho = sum(orthogonality(i, s) for i, s in zip(out.invariant, out.specific, strict=True))
    assert torch.allclose(found["ortho"], 0.1 * torch.as_tensor(ortho), rtol=1e-4)
    four = sum(cross_entropy(out.auxiliary[half, m]) for half in range(2) for m in range(2))
    assert torch.allclose(found["aux"], 0.2 * torch.as_tensor(four), rtol=1e-4)
    pairs = pooled_pairs(list(out.invariant), [given.labels] * 2, 4)
    assert torch.allclose(found["contrast"], 0.5 * info_nce(pairs), rtol=1e-4)


@torch.no_grad()
def test_switches_change_their_term_and_no_other() -> None:
    default = losses()
    switches = ({"mixup": "classes"}, {"contrast": "images"}, {"same_class": "positive"}, {"same_class": "negative"})
    for switch, term in zip(switches, ("mixed", "contrast", "contrast", "contrast"), strict=True):
        other = losses(**switch)
        assert {name for name in default if not torch.allclose(default[name], other[name])} == {term}
    assert set(losses(mixed=0, contrastive=0, orthogonality=0, auxiliary=0)) == {"sup"}


def test_mixed_features_are_supervised_and_teach_the_other_network() -> None:
    model, given = network().train(), batch()
    config = CrodinoConfig(loss="cross_entropy", contrastive=0, orthogonality=0, auxiliary=0)
    mixed = CrodinoKd(config).losses(model, given)["mixed"]
    mixed.backward()
    for part in (model.network(1).encoder.get_submodule("layer4.1.conv2"), model.network(0).decoder.classify):
        grad = next(part.parameters()).grad
        assert grad is not None
        assert bool((grad != 0).any())


@pytest.mark.parametrize("samples", [1, 2])
def test_one_class_alone_is_reported_and_left_out(samples: int) -> None:
    single = Batch(batch(samples).images, torch.zeros(samples, 32, 32, dtype=torch.long))
    with pytest.warns(UserWarning, match=f"{samples} pairs of 1 classes in a batch, nothing to contrast"):
        found = CrodinoKd(CrodinoConfig()).losses(network().eval(), single)
    assert "contrast" not in found


def test_orthogonality_is_the_loops() -> None:
    generator = torch.Generator().manual_seed(2)
    invariant, specific = (torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.double) for _ in range(2))
    positions = [(b, y, x) for b in range(2) for y in range(3) for x in range(4)]
    cosines = [abs(F.cosine_similarity(invariant[b, :, y, x], specific[b, :, y, x], dim=0)) for b, y, x in positions]
    assert orthogonality(invariant, specific).item() == pytest.approx(sum(map(float, cosines)) / 24, abs=1e-6)


@torch.no_grad()
def test_projections_have_both_signs_and_begin_nearly_orthogonal_as_halves_after_a_relu_cannot() -> None:
    cosines = {}
    for projections in (False, True):
        torch.manual_seed(0)
        spec = DeepLabSpec("resnet18", 4, 16, 1.0, (1, 1, 1), 0.0)
        model = DisentangledNetworks([[0.5] * 3] * 2, [[0.25] * 3] * 2, spec, projections=projections)
        out = model.eval()(batch(2, 64).images)
        cosines[projections] = orthogonality(out.invariant[0], out.specific[0]).item()
        assert bool((out.invariant < 0).any()) == projections
    assert cosines[True] < 0.15
    assert cosines[False] > 0.3


def test_projections_go_to_the_robot_and_the_first_weights_of_the_rest_stay_those_of_halves() -> None:
    spec, normalisation = DeepLabSpec("resnet18", 4, 16, 0.125, (1, 1, 1), 0.0), ([[0.5] * 3] * 2, [[0.25] * 3] * 2)
    states, deployed = [], []
    for projections in (False, True):
        torch.manual_seed(0)
        model = DisentangledNetworks(*normalisation, spec, projections=projections)
        states.append(model.state_dict())
        deployed.append(model.deployed_parameters())
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
    dim = model.network(0).encoder.dims[-1]
    assert deployed[1] - deployed[0] == 2 * (dim * dim + dim)


@pytest.mark.parametrize(
    ("parts", "backbone", "projects"),
    [("by_backbone", "resnet50", True), ("by_backbone", "resnet18", False)]
    + [
        (parts, backbone, parts == "projections")
        for parts in ("halves", "projections")
        for backbone in ("resnet18", "resnet50")
    ],
)
def test_a_resnet50_has_projections_unless_told_otherwise(parts: str, backbone: str, projects: bool) -> None:
    assert CrodinoConfig.model_validate({"parts": parts}).projects(backbone) == projects


# --- the loop --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=3, val=1, side=32)


def settings(root: Path, **groups: dict) -> dict:
    data = {"size": [32, 32], "modalities": ["camera", "depth"]}
    return {"data": data, "model": RESNET, "budget": {"max_steps": 2}} | groups


def test_batches_of_views_apart_carry_labels_and_the_way(root: Path) -> None:
    config = shapes_config(root, **settings(root, method={"name": "crodino_kd"}))
    dataset = open_dataset(config.data, "train")
    batches = Batches(dataset, (32, 32), 2, config.augment, label_stride=2, apart=DecoupledConfig())
    given = batches[0]
    assert given.labels.shape == (2, 2, 16, 16)
    assert given.to_view is not None
    assert given.to_view.shape == (2, 2, 2, 3)
    assert given.images.shape == (2, 2, 32, 32, 3)
    assert torch.equal(batches[0].images, given.images)


def test_a_run_with_views_apart_learns_and_scores_every_subset(root: Path, tmp_path: Path) -> None:
    method = {"name": "crodino_kd", "parts": "projections", "same_class": "positive"}
    apart = settings(root, method=method, augment_apart={"depth": {"rotation_deg": [-5, 5]}})
    train(shapes_config(root, **apart), tmp_path / "run", show_progress=False)
    metrics = json.loads((tmp_path / "run" / METRICS_NAME).read_text())
    assert set(metrics["miou"]) == {"camera", "depth", "camera+depth"}
    assert metrics["cost"]["parameters"] > metrics["cost"]["deployed_parameters"] > 0
    assert metrics["cost"]["cpu_s"] > 0


def test_settings_that_cannot_work_are_refused(root: Path, tmp_path: Path) -> None:
    crodino = {"name": "crodino_kd"}
    with pytest.raises(
        ConfigError, match=r"trains networks of resnet18, resnet50, efficientnet_lite0, .*; model\.backbone is b0"
    ):
        shapes_config(root, **settings(root, method=crodino, model={"backbone": "b0"}))
    with pytest.raises(ConfigError, match=r"trains networks of mit_b0, .*; model\.backbone is resnet18"):
        shapes_config(root, **settings(root))
    with pytest.raises(ConfigError, match="needs all modalities to see the same part"):
        shapes_config(root, **settings(root, method={"name": "acnet"}, augment_apart={}))
    four = shapes_config(root, **settings(root, method=crodino, data={"size": [32, 32]}))
    with pytest.raises(CheckpointError, match=r"pairs two modalities, the data has 4: set data\.modalities"):
        train(four, tmp_path / "run", show_progress=False)
