"""AnySeg's student and the reference methods: the step equals the plain one, the teacher stays, every method learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from anyseg_core.methods import (
    METHODS,
    AnySeg,
    AnySegConfig,
    Batch,
    Magic,
    MagicConfig,
    Method,
    PrototypeConfig,
    PrototypeDistillation,
    Supervised,
    SupervisedConfig,
)
from anyseg_core.methods import anyseg as anyseg_module
from anyseg_core.methods.baselines import salient_subsets
from anyseg_core.methods.supervised import step_subsets
from anyseg_core.methods.textbook import textbook_losses
from anyseg_core.models.anymodal import AnymodalOutput, AnymodalSegmenter, PresentImages, select_present

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SIDE, CLASSES, TEACHER = 32, 5, Path("teacher")


def network(seed: int, modalities: int = 4) -> AnymodalSegmenter:
    torch.manual_seed(seed)
    model = AnymodalSegmenter(
        [[0.4] * 3] * modalities, [[0.2] * 3] * modalities, CLASSES, head_width=16, drop_path=0.0, dropout=0.0
    )
    torch.nn.init.normal_(model.head.classify.weight, std=0.5)  # an opinion, also untrained
    return model


def batch_of(samples: int, modalities: int = 4, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (samples, modalities, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES + 1, (samples, SIDE // 2, SIDE // 2), generator=generator)
    labels[labels == CLASSES] = 255
    return Batch(images, labels)


def fixed_subset(monkeypatch: pytest.MonkeyPatch, subset: list[int], modalities: int = 4) -> None:
    """Anymodal dropout that leaves this subset."""
    member = torch.zeros(1, modalities, dtype=torch.bool)
    member[0, subset] = True
    monkeypatch.setattr(
        anyseg_module, "step_subsets", lambda batch, _: member[:, None].expand(1, len(batch.labels), -1)
    )


@pytest.mark.parametrize(("samples", "subset"), [(1, [2]), (3, [0, 3]), (2, [0, 1, 2, 3])], ids=str)
def test_the_step_is_the_plain_step(monkeypatch: pytest.MonkeyPatch, samples: int, subset: list[int]) -> None:
    config, batch = AnySegConfig(teacher=TEACHER, variant="released"), batch_of(samples)
    teacher, outcomes = network(1).eval(), []
    fixed_subset(monkeypatch, subset)
    for plain in (False, True):
        model = network(0).train()
        if plain:
            losses = textbook_losses(model, teacher, batch, subset, config)
        else:
            losses = AnySeg(config, teacher=teacher).losses(model, batch)
        torch.stack(list(losses.values())).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        outcomes.append(({name: value.detach() for name, value in losses.items()}, gradients))
    torch.testing.assert_close(outcomes[0][0], outcomes[1][0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(outcomes[0][1], outcomes[1][1], atol=2e-3, rtol=2e-2)


def test_the_total_is_weighted_as_published() -> None:
    batch, teacher = batch_of(2), network(1)
    named: list[dict[str, Tensor]] = []
    for weights in ({}, {"mad": 1.0, "umd": 1.0, "cmd": 1.0}):
        torch.manual_seed(5)  # the same subsets
        config = AnySegConfig(teacher=TEACHER, **weights)  # type: ignore[arg-type]
        named.append(AnySeg(config, teacher=teacher).losses(network(0), batch))
    published, plain = named
    assert list(published) == ["sup", "mad", "umd", "cmd"]
    for name, weight in (("sup", 1), ("mad", 50), ("umd", 5), ("cmd", 10)):
        torch.testing.assert_close(published[name], weight * plain[name])


def test_a_term_of_weight_zero_is_left_out() -> None:
    config = AnySegConfig(teacher=TEACHER, mad=0, umd=0)
    assert set(AnySeg(config, teacher=network(1)).losses(network(0), batch_of(2))) == {"sup", "cmd"}
    config = AnySegConfig(teacher=TEACHER, cmd=0, umd=0)
    assert set(AnySeg(config, teacher=network(1)).losses(network(0), batch_of(2))) == {"sup", "mad"}


ALL_METHODS = [
    SupervisedConfig(),
    SupervisedConfig(anymodal_dropout=False),
    SupervisedConfig(subsets="per_batch", subsets_per_step=2),
    AnySegConfig(teacher=TEACHER, variant="paper"),
    AnySegConfig(teacher=TEACHER, variant="released", subsets="per_batch"),
    AnySegConfig(teacher=TEACHER, subsets_per_step=3),
    PrototypeConfig(teacher=TEACHER),
    PrototypeConfig(teacher=TEACHER, target="own"),
    MagicConfig(),
]
every_method = pytest.mark.parametrize("config", ALL_METHODS, ids=[f"{c.name}-{i}" for i, c in enumerate(ALL_METHODS)])


def make(config: SupervisedConfig | AnySegConfig | PrototypeConfig | MagicConfig, modalities: int = 4) -> Method:
    if isinstance(config, (AnySegConfig, PrototypeConfig)):
        return METHODS[config.name](config, None, teacher=network(1, modalities))
    return METHODS[config.name](config, None)


@every_method
@pytest.mark.parametrize(("samples", "modalities"), [(1, 1), (1, 4), (3, 2)])
def test_every_method_has_finite_losses_and_gradients(config: SupervisedConfig, samples: int, modalities: int) -> None:
    torch.manual_seed(3)
    model = network(0, modalities).train()
    losses = make(config, modalities).losses(model, batch_of(samples, modalities))
    assert all(value.ndim == 0 and value.isfinite() for value in losses.values()), losses
    torch.stack(list(losses.values())).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_method
def test_every_method_works_under_bfloat16(config: SupervisedConfig) -> None:
    torch.manual_seed(3)
    model = network(0).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = make(config).losses(model, batch_of(2))
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())


@pytest.mark.parametrize("config", [AnySegConfig(teacher=TEACHER), PrototypeConfig(teacher=TEACHER)])
def test_the_teacher_learns_nothing_and_has_no_dropout(config: AnySegConfig | PrototypeConfig) -> None:
    teacher = network(1).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    method = METHODS[config.name](config, None, teacher=teacher)
    torch.stack(list(method.losses(network(0).train(), batch_of(2)).values())).sum().backward()
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    torch.testing.assert_close(teacher.state_dict(), before, atol=0, rtol=0)  # batch norm's statistics included


def test_an_equal_student_on_all_modalities_has_nothing_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_subset(monkeypatch, [0, 1, 2, 3])
    config = AnySegConfig(teacher=TEACHER, variant="paper")
    losses = AnySeg(config, teacher=network(1)).losses(network(1).eval(), batch_of(2))
    assert losses["mad"] + losses["umd"] + losses["cmd"] < 1e-4


def test_subsets_are_per_sample_or_per_batch() -> None:
    torch.manual_seed(0)
    batch = batch_of(64)
    shared = step_subsets(batch, SupervisedConfig(subsets="per_batch"))
    assert (shared == shared[:, :1]).all()
    own = step_subsets(batch, SupervisedConfig(subsets_per_step=2))
    assert own.shape == (2, 64, 4)
    assert len({tuple(row) for row in own.flatten(0, 1).tolist()}) == 15


def test_the_student_sees_only_its_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_subset(monkeypatch, [1, 3])
    seen: list[PresentImages] = []
    model = network(0)
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    AnySeg(AnySegConfig(teacher=TEACHER), teacher=network(1)).losses(model, batch_of(2))
    assert seen[0].modality.tolist() == [1, 3, 1, 3]


def test_features_come_with_the_logits() -> None:
    model, batch = network(0).eval(), batch_of(2)
    seen = select_present(batch.images, torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool))
    output = model(seen, with_features=True)
    assert isinstance(output, AnymodalOutput)
    torch.testing.assert_close(output.logits, model(seen))
    assert [tuple(stage.shape) for stage in output.features] == [
        (3, 8, 8, 32), (3, 4, 4, 64), (3, 2, 2, 160), (3, 1, 1, 256)
    ]  # fmt: skip


@torch.no_grad()
def test_zero_filled_subsets_of_one_encoding_equal_separate_runs() -> None:
    model = network(0).eval()
    model.missing = "zero"
    batch = batch_of(2)
    subsets = torch.tensor([[[1, 0, 0, 0], [1, 1, 0, 1]], [[1, 1, 1, 1], [0, 0, 1, 0]]], dtype=torch.bool)
    together = model(select_present(batch.images, subsets.any(dim=0)), subsets).unflatten(0, (2, 2))
    for subset, logits in zip(subsets, together, strict=True):
        torch.testing.assert_close(logits, model(select_present(batch.images, subset)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("full", [True, False])
def test_batch_norm_learns_nothing_of_the_image_that_stands_for_a_missing_sensor(full: bool) -> None:
    """The statistics after a training step are those that the same step has where nothing is put in."""
    torch.manual_seed(0)
    channels = [[0.0] * 3] * 2, [[1.0] * 3] * 2
    filled, plain = (
        AnymodalSegmenter(*channels, 5, "efficientnet_lite0", 16, drop_path=0, dropout=0, missing=missing).train()
        for missing in ("zero", "remove")
    )
    plain.load_state_dict(filled.state_dict())
    images = torch.randint(0, 255, (2, 2, 64, 64, 3), dtype=torch.uint8)
    subsets = torch.tensor([[[True, full], [True, True]]])
    for model in (filled, plain):
        model(select_present(images, torch.ones(2, 2, dtype=torch.bool)), subsets)
    assert filled.encoder.training
    for (name, own), other in zip(filled.encoder.named_buffers(), plain.encoder.buffers(), strict=True):
        torch.testing.assert_close(own, other, msg=name)


def test_the_salient_modalities_are_the_most_and_the_least_like_the_mean() -> None:
    shared = torch.randn(1, 2, 2, 8)
    one_sample = torch.cat([shared, shared + 0.1 * torch.randn_like(shared), -shared, shared.roll(1, 3)])  # [M, ...]
    everything, salient, others = salient_subsets([one_sample], samples=1)
    assert everything.all()
    assert salient[0, 2]  # the opposite of the rest
    assert salient.sum() == others.sum() == 2
    assert (salient ^ others).all()


def test_magic_is_supervised_on_all_and_on_the_salient() -> None:
    losses = Magic(MagicConfig()).losses(network(0), batch_of(2))
    assert set(losses) == {"sup", "salient", "consistency"}


def test_prototypes_join_sup_and_mad() -> None:
    method = PrototypeDistillation(PrototypeConfig(teacher=TEACHER), teacher=network(1))
    assert set(method.losses(network(0), batch_of(2))) == {"sup", "mad", "prototype"}


def test_supervised_alone_has_one_loss() -> None:
    assert set(Supervised(SupervisedConfig()).losses(network(0), batch_of(2))) == {"sup"}
