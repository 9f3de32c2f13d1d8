"""Every loss against values worked out by hand, a loop that does what the equation says, and its own gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anyseg_core.methods.losses import (
    Variant,
    class_counts,
    crossmodal_distillation,
    hard_example_mean,
    labelled_cross_entropy,
    pixel_cross_entropy,
    plain_mean,
    prediction_distillation,
    prototype_distillation,
    prototypes,
    similarity_matrix,
    unimodal_distillation,
)
from anyseg_core.models.anymodal import upsample_logits

pytestmark = pytest.mark.usefixtures("one_torch_thread")

VARIANTS: tuple[Variant, ...] = ("paper", "released", "repaired")
every_variant = pytest.mark.parametrize("variant", VARIANTS)
LOG3, LN2 = math.log(3), math.log(2)


def features(images: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Four stages [P, h, w, C] of a tiny encoder."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(images, 4, 4, 2), (images, 4, 2, 3), (images, 2, 2, 4), (images, 1, 1, 5)]
    return [(scale * torch.randn(shape, generator=generator)).to(dtype) for shape in shapes]


# --- supervision


def test_ohem_by_hand() -> None:
    """Three of four pixels are labelled: p = 0.9 (easy), 0.5 and 0.25 (hard)."""
    probabilities = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.25, 0.75], [0.5, 0.5]])
    logits = probabilities.log().T.reshape(1, 2, 2, 2)  # [B, K, H, W]
    labels = torch.tensor([[[0, 0], [0, 255]]])
    losses = labelled_cross_entropy(logits, labels)
    torch.testing.assert_close(losses, torch.tensor([-math.log(0.9), LN2, 2 * LN2]))
    torch.testing.assert_close(hard_example_mean(losses, 0.7), torch.tensor(1.5 * LN2))
    torch.testing.assert_close(plain_mean(losses), losses.mean())


def test_ohem_keeps_a_sixteenth_of_the_labelled_pixels() -> None:
    losses = torch.linspace(0.01, 0.2, 64)  # all easier than p = 0.7
    torch.testing.assert_close(hard_example_mean(losses), losses[-4:].mean())


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.3, 0.95))
def test_ohem_is_what_a_loop_over_pixels_finds(seed: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.double)  # [B, h, w, K]
    labels = torch.randint(0, 5, (2, 6, 6), generator=generator)
    labels[labels == 4] = 255
    full = upsample_logits(logits, (6, 6)).softmax(dim=1)
    pixels = [
        -math.log(full[b, labels[b, y, x], y, x])
        for b in range(2)
        for y in range(6)
        for x in range(6)
        if labels[b, y, x] != 255
    ]
    hard = [loss for loss in pixels if loss > -math.log(threshold)]
    least = max(1, len(pixels) // 16)
    expected = hard if len(hard) >= least else sorted(pixels)[-least:]
    found = hard_example_mean(pixel_cross_entropy(logits, labels), threshold)
    assert found.item() == pytest.approx(sum(expected) / len(expected), abs=1e-6)


def test_nothing_labelled_gives_zero_and_a_gradient() -> None:
    logits = torch.randn(1, 2, 2, 3, requires_grad=True)
    loss = hard_example_mean(pixel_cross_entropy(logits, torch.full((1, 4, 4), 255)))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


# --- L_mad


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        # student (1/4, 3/4), teacher (1/2, 1/2); mean over K = 2 and one pixel
        ("paper", (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2),
        ("released", (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2),
    ],
)
def test_prediction_distillation_by_hand(variant: Variant, expected: float) -> None:
    student = torch.tensor([0.0, LOG3]).reshape(1, 2, 1, 1)
    loss = prediction_distillation(student, torch.zeros(1, 2, 1, 1), variant)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@every_variant
def test_prediction_distillation_is_the_loop_s(variant: Variant) -> None:
    student, teacher = (2 * torch.randn(2, 5, 4, 3, dtype=torch.double) for _ in range(2))
    pixels = [(b, y, x) for b in range(2) for y in range(4) for x in range(3)]
    pairs = [(student[b, :, y, x], teacher[b, :, y, x]) for b, y, x in pixels]
    total = sum(_kl(s, t) if variant == "paper" else _kl(t, s) for s, t in pairs)
    expected = total / student.numel()
    assert prediction_distillation(student, teacher, variant).item() == pytest.approx(expected, abs=1e-6)


def test_released_prediction_distillation_is_torch_s_mean() -> None:
    student, teacher = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4)
    expected = F.kl_div(student.log_softmax(dim=1), teacher.softmax(dim=1), reduction="none").mean()
    torch.testing.assert_close(prediction_distillation(student, teacher, "released"), expected, atol=1e-6, rtol=0)


# --- L_umd


def loop_unimodal(student: list[Tensor], teacher: list[Tensor], samples: int, variant: Variant) -> float:
    """Image by image, stage by stage, line by line."""
    total = 0.0
    for g_stage, f_stage in zip(student, teacher, strict=True):
        for g, f in zip(g_stage, f_stage, strict=True):  # [h, w, C]
            lines = zip(*(_lines(x, variant) for x in (g, f)), strict=True)
            divergence = sum(_kl(a, b) if variant == "paper" else _kl(b, a) for a, b in lines)
            total += divergence / g.numel()
    return total / samples


def _lines(feature: Tensor, variant: Variant) -> list[Tensor]:
    """The distributions of one image: over channels at each position, or over rows of each column and channel."""
    channels_first = feature.permute(2, 0, 1)  # [C, H, W], as in the release
    moved = channels_first.movedim(1 if variant == "released" else 0, -1)
    return list(moved.flatten(0, 1))


def _kl(first: Tensor, second: Tensor) -> float:
    p, q = first.softmax(dim=0).tolist(), second.softmax(dim=0).tolist()
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@every_variant
@pytest.mark.parametrize(("images", "samples"), [(1, 1), (5, 2)])
def test_unimodal_distillation_is_the_loop_s(variant: Variant, images: int, samples: int) -> None:
    student, teacher = features(images, 0, dtype=torch.double), features(images, 1, dtype=torch.double)
    loss = unimodal_distillation(student, teacher, samples, variant)
    assert loss.item() == pytest.approx(loop_unimodal(student, teacher, samples, variant), abs=1e-6)


def test_unimodal_distillation_by_hand() -> None:
    """One position of two channels: student (1/4, 3/4), teacher even. Over the single row everything is certain."""
    student, teacher = [torch.tensor([0.0, LOG3]).reshape(1, 1, 1, 2)], [torch.zeros(1, 1, 1, 2)]
    expected = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    assert unimodal_distillation(student, teacher, 1, "paper").item() == pytest.approx(expected, rel=1e-5)
    assert unimodal_distillation(student, teacher, 1, "released") == 0


# --- L_cmd


def loop_crossmodal(student: list[Tensor], teacher: list[Tensor], sample: list[int], variant: Variant) -> float:
    """Pair by pair, channel by channel."""
    images = range(len(sample))
    if variant == "released":
        stages = [_released_squares(g, f) for g, f in zip(student, teacher, strict=True)]
        return sum(stages) / len(sample) ** 2 / (max(sample) + 1)
    pairs = [(p, q) for p in images for q in images if p < q and sample[p] == sample[q]]
    of_pair = _pair_divergence if variant == "paper" else _pair_square
    total = sum(of_pair(g, f, p, q) for g, f in zip(student, teacher, strict=True) for p, q in pairs)
    return total / max(1, len(pairs))


def _released_squares(g: Tensor, f: Tensor) -> float:
    images, logs, shares = range(len(g)), g.log_softmax(dim=1), f.softmax(dim=1)
    pairs = [(p, q) for p in images for q in images if p != q]
    return sum((_mean_cosine(logs[p], logs[q]) - _mean_cosine(shares[p], shares[q])) ** 2 for p, q in pairs)


def _pair_square(student: Tensor, teacher: Tensor, p: int, q: int) -> float:
    return (_mean_cosine(student[p], student[q]) - _mean_cosine(teacher[p], teacher[q])) ** 2


def _cosines(first: Tensor, second: Tensor) -> list[float]:
    """Per channel, over positions: [h, w, C] twice -> C values."""
    pairs = zip(first.flatten(0, 1).T, second.flatten(0, 1).T, strict=True)
    return [float(F.cosine_similarity(a, b, dim=0)) for a, b in pairs]


def _mean_cosine(first: Tensor, second: Tensor) -> float:
    values = _cosines(first, second)
    return sum(values) / len(values)


def _pair_divergence(student: Tensor, teacher: Tensor, p: int, q: int) -> float:
    pairs = zip(_cosines(student[p], student[q]), _cosines(teacher[p], teacher[q]), strict=True)
    shifted = [((1 + s) / 2, (1 + t) / 2) for s, t in pairs]
    terms = [max(x, 1e-6) * math.log(max(x, 1e-6) / max(y, 1e-6)) - max(x, 1e-6) + max(y, 1e-6) for x, y in shifted]
    return sum(terms) / len(terms)


@every_variant
@pytest.mark.parametrize("sample", [[0], [0, 0], [0, 0, 0, 1, 2, 2]], ids=["lone", "pair", "uneven"])
def test_crossmodal_distillation_is_the_loop_s(variant: Variant, sample: list[int]) -> None:
    student, teacher = (features(len(sample), seed, dtype=torch.double) for seed in (2, 3))
    loss = crossmodal_distillation(student, teacher, torch.tensor(sample), max(sample) + 1, variant)
    assert loss.item() == pytest.approx(loop_crossmodal(student, teacher, sample, variant), abs=1e-6)


@pytest.mark.parametrize("variant", ["paper", "repaired"])
def test_crossmodal_distillation_does_not_grow_with_the_number_of_pairs(variant: Variant) -> None:
    """A batch of twice the same sample has the loss of the sample."""
    student, teacher = features(2, 2, dtype=torch.double), features(2, 3, dtype=torch.double)
    one = crossmodal_distillation(student, teacher, torch.tensor([0, 0]), 1, variant)
    twice = [[torch.cat([stage, stage]) for stage in given] for given in (student, teacher)]
    two = crossmodal_distillation(twice[0], twice[1], torch.tensor([0, 0, 1, 1]), 2, variant)
    assert two.item() == pytest.approx(one.item(), rel=1e-9)


def test_the_repaired_cmd_sees_only_pairs_of_one_sample() -> None:
    student, teacher = features(3, 2), features(3, 3)
    sample = torch.tensor([0, 0, 1])
    moved = [torch.cat([stage[:2], 5 * torch.randn_like(stage[2:])]) for stage in student]
    before, after = (crossmodal_distillation(given, teacher, sample, 2, "repaired") for given in (student, moved))
    assert before.item() == after.item() > 0


def test_the_repaired_cmd_by_hand() -> None:
    """Right angles for the student (S = 0), equal modalities for the teacher (S = 1), in one of two channels."""
    student = [torch.tensor([[[1.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 1.0]]]).reshape(2, 1, 2, 2)]
    teacher = [torch.ones(2, 1, 2, 2)]
    loss = crossmodal_distillation(student, teacher, torch.zeros(2, dtype=torch.long), 1, "repaired")
    assert loss.item() == pytest.approx((0.5 - 1) ** 2, abs=1e-6)


def test_crossmodal_distillation_by_hand() -> None:
    """One channel, two positions: the student's modalities are at right angles, the teacher's the same."""
    student = [torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 2, 1)]  # S = 0 -> x = 1/2
    teacher = [torch.tensor([[1.0, 0.0], [1.0, 0.0]]).reshape(2, 1, 2, 1)]  # S = 1 -> y = 1
    loss = crossmodal_distillation(student, teacher, torch.zeros(2, dtype=torch.long), 1, "paper")
    assert loss.item() == pytest.approx(0.5 * math.log(0.5) - 0.5 + 1, rel=1e-4)


def test_the_matrix_of_similarities_by_hand() -> None:
    images = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]]).reshape(4, 1, 2, 1)
    root = math.sqrt(0.5)
    expected = torch.tensor([[1, 0, root, -1], [0, 1, root, 0], [root, root, 1, -root], [-1, 0, -root, 1]])
    torch.testing.assert_close(similarity_matrix(images), expected, atol=1e-6, rtol=0)


def test_opposite_features_have_a_finite_loss() -> None:
    """S = -1 has no logarithm; the printed equation is undefined there."""
    one = torch.randn(1, 4, 4, 3)
    opposite, alike = [torch.cat([one, -one]).requires_grad_()], [torch.cat([one, one])]
    sample = torch.zeros(2, dtype=torch.long)
    for student, teacher in ((opposite, alike), ([alike[0].clone().requires_grad_()], [opposite[0].detach()])):
        loss = crossmodal_distillation(student, teacher, sample, 1, "paper")
        loss.backward()
        assert loss.isfinite()
        assert student[0].grad is not None
        assert student[0].grad.isfinite().all()


# --- what all distillation has in common

Loss = Callable[[list[Tensor], list[Tensor], Variant], Tensor]
SAMPLE = torch.tensor([0, 0, 1])


def _mad(student: list[Tensor], teacher: list[Tensor], variant: Variant) -> Tensor:
    return prediction_distillation(student[0].permute(0, 3, 1, 2), teacher[0].permute(0, 3, 1, 2), variant)


def _umd(student: list[Tensor], teacher: list[Tensor], variant: Variant) -> Tensor:
    return unimodal_distillation(student, teacher, 2, variant)


def _cmd(student: list[Tensor], teacher: list[Tensor], variant: Variant) -> Tensor:
    return crossmodal_distillation(student, teacher, SAMPLE[: len(student[0])], 2, variant)


def _proto(student: list[Tensor], teacher: list[Tensor], _variant: Variant) -> Tensor:
    labels = torch.arange(16).reshape(1, 16, 1).expand(len(student[0]), 16, 16) // 4
    return prototype_distillation(student, teacher, labels, 5, 2)


every_loss = pytest.mark.parametrize("loss", [_mad, _umd, _cmd, _proto], ids=["mad", "umd", "cmd", "prototype"])


@every_loss
@every_variant
def test_gradients(loss: Loss, variant: Variant) -> None:
    student = [stage.requires_grad_() for stage in features(3, 4, dtype=torch.double)]
    teacher = features(3, 5, dtype=torch.double)
    # log_softmax's cosine (released CMD) is flat to 1e-5: a finite difference needs that much slack
    assert torch.autograd.gradcheck(lambda *stages: loss(list(stages), teacher, variant), student, atol=1e-6)


def test_the_released_cmd_is_not_zero_even_for_an_equal_student() -> None:
    """It compares log-softmaxes of the student with softmaxes of the teacher."""
    same = features(3, 6)
    assert _cmd(same, same, "released") > 1e-3


@pytest.mark.parametrize(
    ("loss", "variant"),
    [(loss, variant) for loss in (_mad, _umd) for variant in VARIANTS]
    + [(_cmd, "paper"), (_cmd, "repaired"), (_proto, "paper")],
)
def test_a_student_that_equals_its_teacher_loses_nothing(loss: Loss, variant: Variant) -> None:
    same = [stage.requires_grad_() for stage in features(3, 6)]
    value = loss(same, [stage.detach() for stage in same], variant)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-5)
    for stage in same:
        assert stage.grad is None or stage.grad.abs().max() < 1e-4


@every_loss
@every_variant
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("images", [1, 3])
def test_finite_in_bfloat16_for_one_image_too(loss: Loss, variant: Variant, scale: float, images: int) -> None:
    student = [stage.requires_grad_() for stage in features(images, 7, scale, torch.bfloat16)]
    value = loss(student, features(images, 8, scale, torch.bfloat16), variant)
    value.backward()
    assert value.isfinite()
    assert value >= 0
    assert all(stage.grad is None or stage.grad.isfinite().all() for stage in student)


@every_loss
@every_variant
def test_half_precision_is_close(loss: Loss, variant: Variant) -> None:
    exact = loss(features(3, 9), features(3, 10), variant)
    coarse = loss(features(3, 9, dtype=torch.bfloat16), features(3, 10, dtype=torch.bfloat16), variant)
    assert coarse.item() == pytest.approx(exact.item(), rel=0.05, abs=1e-4)


# --- prototypes


def test_prototypes_are_class_means() -> None:
    labels = torch.tensor([[[0, 0], [2, 255]]])
    feature = torch.tensor([1.0, 3.0, 5.0, 100.0]).reshape(1, 2, 2, 1)
    counts = class_counts(labels, (2, 2), 3)
    assert counts.sum(dim=1).tolist() == [[2, 0, 1]]
    assert prototypes(feature, counts).flatten().tolist() == [2.0, 0.0, 5.0]


def test_prototype_distillation_is_the_loop_s() -> None:
    student, teacher = (features(3, seed, dtype=torch.double)[:2] for seed in (2, 3))  # stages of 4x4 and 4x2
    labels = torch.randint(0, 4, (3, 4, 4), generator=torch.Generator().manual_seed(4))
    labels[labels == 3] = 255
    total = 0.0
    for g, f in zip(student, teacher, strict=True):
        small = labels[:, :: 4 // g.shape[1], :: 4 // g.shape[2]]
        for image in range(3):
            shown = [k for k in range(3) if (small[image] == k).any()]
            means = [torch.stack([x[image][small[image] == k].mean(dim=0) for k in shown]) for x in (g, f)]  # [k, C]
            channels = zip(means[0].T, means[1].T, strict=True)
            total += sum(_kl(of_teacher, of_student) for of_student, of_teacher in channels) / (3 * g.shape[-1])
    assert prototype_distillation(student, teacher, labels, 3, 2).item() == pytest.approx(total / 2, abs=1e-6)


def test_prototype_distillation_by_hand() -> None:
    """Two classes of one pixel: softmax over classes (1/4, 3/4) for the student, even for the teacher."""
    labels = torch.tensor([[[0, 1]]])
    student = [torch.tensor([0.0, LOG3]).reshape(1, 1, 2, 1)]
    expected = (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 3  # mean over three classes, one of them absent
    loss = prototype_distillation(student, [torch.zeros(1, 1, 2, 1)], labels, 3, 1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
