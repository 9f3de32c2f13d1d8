"""The authors' released networks and ImageNet's encoders: every weight finds its place, and nothing else is let in."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from anyseg_core.export.import_weights import import_weights
from anyseg_core.methods.textbook import decode
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.mix_transformer import MixTransformer
from anyseg_core.training.checkpoint import CheckpointError, init_encoder, load_anymodal
from anyseg_core.training.config import TrainConfig, parse_config
from anyseg_ros.cli import app

WIDTH = 24


@pytest.fixture(scope="module")
def network() -> AnymodalSegmenter:
    """Random values in every weight, batch norm's statistics included."""
    torch.manual_seed(0)
    model = AnymodalSegmenter([[0.0] * 3] * 3, [[1 / 255] * 3] * 3, 19, head_width=WIDTH).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.1 * torch.randn_like(value)).abs_()
    return model


def released(model: AnymodalSegmenter) -> dict[str, Tensor]:
    """A network's weights under the keys of the authors' model files."""
    weights = {f"encoder.{key}": value for key, value in official(model.encoder).items()}
    head = model.head.state_dict()
    for stage in range(4):
        for kind in ("weight", "bias"):
            weights[f"decoder.linear_c{stage + 1}.proj.{kind}"] = head[f"project.{stage}.{kind}"]
    reversed_parts = head["fuse.weight"].split(WIDTH, dim=1)[::-1]  # they join stages 4, 3, 2, 1
    weights["decoder.linear_fuse.conv.weight"] = torch.cat(reversed_parts, dim=1)[:, :, None, None]
    for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        weights[f"decoder.linear_fuse.bn.{kind}"] = head[f"norm.{kind}"]
    weights["decoder.linear_pred.weight"] = head["classify.weight"][:, :, None, None]
    weights["decoder.linear_pred.bias"] = head["classify.bias"]
    weights["classifier.weight"] = torch.randn(19, 256, 1, 1)
    return weights


def official(encoder: nn.Module) -> dict[str, Tensor]:
    """The keys of SegFormer's own files."""
    renamed = {}
    for key, value in encoder.state_dict().items():
        name = re.sub(r"^stages\.(\d)\.", lambda match: f"{int(match[1]) + 1}.", key)
        stage, _, rest = name.partition(".")
        rest = rest.replace("attn.reduce.", "attn.sr.").replace("attn.reduce_norm.", "attn.norm.")
        rest = rest.replace("mlp.dwconv.", "mlp.dwconv.dwconv.")
        if rest.startswith("embed."):
            renamed[f"patch_embed{stage}.{rest.removeprefix('embed.')}"] = value
        elif rest.startswith("blocks."):
            renamed[f"block{stage}.{rest.removeprefix('blocks.')}"] = value
        else:
            renamed[f"norm{stage}.{rest.removeprefix('norm.')}"] = value
    return renamed


def muses_config(**model: object) -> TrainConfig:
    tree = {
        "name": "released",
        "data": {"kind": "muses", "root": "nowhere", "size": [64, 64], "source": "png", "released_protocol": True},
        "model": {"head_width": WIDTH} | model,
        "budget": {"max_steps": 1},
    }
    return parse_config(tree, "test")


@pytest.mark.parametrize("wrapping", ["plain", "checkpoint", "data_parallel", "safetensors"])
def test_a_released_network_becomes_a_checkpoint_of_ours(
    network: AnymodalSegmenter, tmp_path: Path, wrapping: str
) -> None:
    weights = released(network)
    file = tmp_path / "MUSES_FEL.pth"
    if wrapping == "safetensors":
        file = file.with_suffix(".safetensors")
        save_file({key: value.contiguous() for key, value in weights.items()}, file)
    elif wrapping == "checkpoint":
        torch.save({"epoch": 3, "model_state_dict": weights, "best_miou": 46.69}, file)
    else:
        prefix = "module." if wrapping == "data_parallel" else ""
        torch.save({prefix + key: value for key, value in weights.items()}, file)
    checkpoint = import_weights(file, tmp_path / "run", muses_config())
    model, state = load_anymodal(checkpoint)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, atol=0, rtol=0, msg=key)
    assert [str(spec.modality) for spec in state.inputs] == ["camera", "event", "lidar"]
    assert len(state.classes) == 19
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode(images, torch.arange(3))[3], network.encode(images, torch.arange(3))[3], atol=0, rtol=0
        )


@torch.no_grad()
def test_the_imported_head_answers_as_the_authors_head(network: AnymodalSegmenter) -> None:
    """Their decoder, written out with their keys and their order, against the head it came from."""
    weights, features = released(network), [
        torch.randn(2, dim, 16 >> stage, 16 >> stage) for stage, dim in enumerate(MixTransformer("b0").dims)
    ]  # fmt: skip
    maps = []
    for stage in (3, 2, 1, 0):
        key = f"decoder.linear_c{stage + 1}.proj"
        linear = torch.einsum("bchw,oc->bohw", features[stage], weights[f"{key}.weight"])
        linear = linear + weights[f"{key}.bias"][:, None, None]
        maps.append(torch.nn.functional.interpolate(linear, (16, 16), mode="bilinear", align_corners=False))
    joined = torch.nn.functional.conv2d(torch.cat(maps, dim=1), weights["decoder.linear_fuse.conv.weight"])
    mean, var, scale, shift = (
        weights[f"decoder.linear_fuse.bn.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
    )
    activated = torch.relu(torch.nn.functional.batch_norm(joined, mean, var, scale, shift))
    logits = torch.nn.functional.conv2d(
        activated, weights["decoder.linear_pred.weight"], weights["decoder.linear_pred.bias"]
    )
    torch.testing.assert_close(decode(network, features), logits, atol=1e-4, rtol=1e-4)
    channels_last = [feature.permute(0, 2, 3, 1) for feature in features]
    torch.testing.assert_close(network.head(channels_last).permute(0, 3, 1, 2), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "model", "says"),
    [
        (lambda w: w.pop("encoder.norm4.bias"), {}, "norm"),
        (lambda w: w.pop("decoder.linear_pred.bias"), {}, "classify.bias"),
        (lambda w: w.update({"encoder.extra.weight": torch.zeros(1)}), {}, "extra"),
        (lambda w: w.update({"radar_branch.weight": torch.zeros(1)}), {}, "radar_branch"),
        (lambda w: w.update({"decoder.linear_pred.weight": torch.zeros(25, WIDTH, 1, 1)}), {}, "19 classes"),
        (dict.copy, {"backbone": "b1"}, "does not fit"),
        (dict.copy, {"head_width": 32}, "head width 32"),
    ],
    ids=["encoder_lacks", "head_lacks", "encoder_more", "other_part", "other_classes", "backbone", "width"],
)
def test_weights_that_do_not_all_fit_are_refused(
    network: AnymodalSegmenter, tmp_path: Path, change: object, model: dict, says: str
) -> None:
    weights = released(network)
    change(weights)  # type: ignore[operator]
    torch.save(weights, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=re.escape(says)) as caught:
        import_weights(tmp_path / "net.pth", tmp_path / "run", muses_config(**model))
    assert "net.pth" in str(caught.value)
    assert not (tmp_path / "run").exists()


class Exploit:
    """A pickle that would run a command when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("pwned"),))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["exploit", "rubbish", "list", "nothing"])
def test_a_file_that_is_no_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "net.pth"
    if kind == "exploit":
        file.write_bytes(pickle.dumps({"weight": Exploit()}, protocol=2))
    elif kind == "list":
        torch.save([torch.zeros(1)], file)
    elif kind == "rubbish":
        file.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"net\.pth"):
        import_weights(file, tmp_path / "run", muses_config())
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "run").exists()


def test_an_imagenet_encoder_becomes_a_safe_file_to_start_from(network: AnymodalSegmenter, tmp_path: Path) -> None:
    weights = official(network.encoder) | {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}
    torch.save(weights, tmp_path / "mit_b0.pth")
    written = import_weights(tmp_path / "mit_b0.pth", tmp_path / "mit_b0.safetensors")
    target = MixTransformer("b0")
    init_encoder(target, written, "mit_b0")
    torch.testing.assert_close(dict(target.state_dict()), dict(network.encoder.state_dict()), atol=0, rtol=0)
    weights.pop("norm1.bias")
    torch.save(weights, tmp_path / "mit_b0.pth")
    with pytest.raises(CheckpointError, match="fits no MiT"):
        import_weights(tmp_path / "mit_b0.pth", tmp_path / "other.safetensors")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "mit_b0.pth")
    with pytest.raises(CheckpointError, match="0 blocks"):
        import_weights(tmp_path / "mit_b0.pth", tmp_path / "other.safetensors")


def test_the_command(network: AnymodalSegmenter, tmp_path: Path) -> None:
    torch.save(released(network), tmp_path / "net.pth")
    config = tmp_path / "released.yaml"
    config.write_text(
        "name: released\ndata: {kind: muses, root: nowhere, size: [64, 64], source: png, released_protocol: true}\n"
        f"model: {{head_width: {WIDTH}}}\nbudget: {{max_steps: 1}}\n"
    )
    words = ["import-weights", str(tmp_path / "net.pth"), str(tmp_path / "run")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "--config" in refused.stderr
    done = CliRunner().invoke(app, [*words, "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert load_anymodal(tmp_path / "run" / "checkpoints" / "step_00000000")[1].step == 0
    again = CliRunner().invoke(app, [*words, "--config", str(config)])
    assert again.exit_code == 2
    assert "holds a run already" in again.stderr
