"""Our MiT against transformers' SegFormer, weight for weight, under each naming of the weights."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from anyseg_core.models.mix_transformer import VARIANTS, MixTransformer, load_encoder_weights


def official_names(encoder: MixTransformer) -> dict[str, Tensor]:
    """The encoder's weights under the keys of the official `mit_b*.pth`, written down by hand."""
    named = {}
    for key, value in encoder.state_dict().items():
        stage = int(key.split(".")[1]) + 1
        rest = key.split(".", 2)[2]
        name = re.sub(r"^embed\.", f"patch_embed{stage}.", rest)
        name = re.sub(r"^blocks\.", f"block{stage}.", name)
        name = re.sub(r"^norm\.", f"norm{stage}.", name)
        name = name.replace("attn.reduce_norm.", "attn.norm.").replace("attn.reduce.", "attn.sr.")
        named[name.replace("mlp.dwconv.", "mlp.dwconv.dwconv.")] = value
    return named


def perturbed(encoder: MixTransformer) -> MixTransformer:
    """Every parameter random, so that swapped or skipped weights cannot go unnoticed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return encoder.eval()


def hugging_face_published_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers 5's names -> those of the files on the hub, as in nvidia/mit-b0."""
    rules = (
        (r"^stages\.(\d)\.patch_embeddings\.", r"segformer.encoder.patch_embeddings.\1."),
        (r"^stages\.(\d)\.blocks\.(\d+)\.", r"segformer.encoder.block.\1.\2."),
        (r"^stages\.(\d)\.layer_norm\.", r"segformer.encoder.layer_norm.\1."),
        (r"layernorm_before", "layer_norm_1"),
        (r"layernorm_after", "layer_norm_2"),
        (r"attention\.sequence_reduction\.sequence_reduction", "attention.self.sr"),
        (r"attention\.sequence_reduction\.layer_norm", "attention.self.layer_norm"),
        (r"attention\.q_proj", "attention.self.query"),
        (r"attention\.k_proj", "attention.self.key"),
        (r"attention\.v_proj", "attention.self.value"),
        (r"attention\.o_proj", "attention.output.dense"),
        (r"mlp\.fc", "mlp.dense"),
    )
    renamed = {}
    for key, value in weights.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)  # noqa: PLW2901
        renamed[key] = value
    return renamed


@pytest.mark.parametrize("published", [False, True], ids=["in_memory", "published_file"])
def test_equals_transformers_segformer(published: bool) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is installed for tests only")
    torch.manual_seed(0)
    reference = transformers.SegformerModel(transformers.SegformerConfig(initializer_range=0.1)).eval()
    weights = dict(reference.state_dict())
    if published and "stages.0.patch_embeddings.proj.weight" in weights:
        weights = hugging_face_published_names(weights)
        weights["classifier.weight"] = torch.zeros(1)
    encoder = MixTransformer("b0").eval()
    load_encoder_weights(encoder, weights)
    images = torch.randn(2, 64, 96, 3)
    with torch.no_grad():
        expected = reference(images.permute(0, 3, 1, 2), output_hidden_states=True).hidden_states[-4:]
        features = encoder(images)
    for ours, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(ours.permute(0, 3, 1, 2), theirs, atol=1e-4, rtol=0)


def test_loads_official_weights() -> None:
    source, target = perturbed(MixTransformer("b0")), MixTransformer("b0").eval()
    load_encoder_weights(target, official_names(source) | {"head.weight": torch.zeros(1000, 256)})
    for key, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[key], value)


def test_a_missing_weight_is_named() -> None:
    weights = official_names(MixTransformer("b0"))
    del weights["block3.1.attn.sr.weight"]
    with pytest.raises(RuntimeError, match=r"stages\.2\.blocks\.1\.attn\.reduce\.weight"):
        load_encoder_weights(MixTransformer("b0"), weights)


def test_weights_of_another_size_are_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_encoder_weights(MixTransformer("b1"), official_names(MixTransformer("b0")))


def test_unknown_variant_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="b0, b1"):
        MixTransformer("b9")


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_variant_has_four_stages(variant: str) -> None:
    with torch.device("meta"):
        encoder = MixTransformer(variant)
        features = encoder(torch.empty(1, 64, 128, 3))
    dims = VARIANTS[variant].dims
    assert [tuple(f.shape) for f in features] == [(1, 16 >> s, 32 >> s, dims[s]) for s in range(4)]
    assert [len(stage.blocks) for stage in encoder.stages] == list(VARIANTS[variant].depths)  # type: ignore[arg-type]


def test_drop_path_drops_whole_samples_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = MixTransformer("b0", drop_path=0.9)
    images = torch.randn(1, 64, 64, 3)
    once, again = encoder.train()(images)[3], encoder(images)[3]
    assert not torch.equal(once, again)
    encoder.eval()
    assert torch.equal(encoder(images)[3], encoder(images)[3])
