"""CroDiNo-KD's competitors: their terms by hand, a plan with them at toy scale, its costs and claims."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from shapes_dataset import shapes_config, write_shapes
from torch import Tensor
from typer.testing import CliRunner

from anyseg_core.benchmarks.claims import Insensitive, NoWorse, Ratio, judge
from anyseg_core.methods import Batch
from anyseg_core.methods.rgbd_baselines import Kd, KdConfig, MaskedGenerative, MaskedGenerativeConfig
from anyseg_core.methods.rgbd_losses import masked_positions, prototype_similarity, softened_divergence
from anyseg_core.models.acnet import AcNet
from anyseg_core.models.deeplab import DeepLabSpec
from anyseg_core.models.unimodal import RegeneratingNetworks
from anyseg_core.training.checkpoint import CheckpointError
from anyseg_core.training.loop import train
from anyseg_ros.cli import app

CHANNELS = [[0.5] * 3] * 2, [[0.25] * 3] * 2
SPEC = DeepLabSpec("resnet18", 4, 16, 0.125, (1, 1, 1), 0.0)
RESNET = {"backbone": "resnet18", "head_width": 16, "width": 0.125, "aspp_rates": [1, 1, 1], "label_stride": 2}


def test_softened_divergence_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 4.0]]), torch.tensor([[8.0, 0.0]])
    p_t, p_s = torch.tensor([2.0, 0.0]).softmax(0), torch.tensor([0.0, 1.0]).softmax(0)
    expected = 16 * (p_t * (p_t / p_s).log()).sum()
    assert torch.allclose(softened_divergence(student, teacher, 4.0), expected)
    assert softened_divergence(teacher, teacher).item() == 0
    assert softened_divergence(student, teacher, 2.0) != softened_divergence(student, teacher, 4.0)


def test_prototype_similarity_by_hand() -> None:
    """Two positions of class 0, one of class 1, one unlabelled, two channels."""
    labels = torch.tensor([[[0, 0], [1, 255]]])
    student = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [2.0, 0.0]]]])  # (1,0) (0,1) (0,2) (1,0)
    teacher = torch.tensor([[[[1.0, 1.0], [0.0, 3.0]], [[0.0, 0.0], [1.0, 0.0]]]])  # (1,0) (1,0) (0,1) (3,0)
    half = 0.5**0.5
    of_student = torch.tensor([[half, 0.0], [half, 1.0], [half, 1.0], [half, 0.0]])  # prototypes (1,1)/2 and (0,2)
    of_teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # prototypes (1,0) and (0,1)
    expected = ((of_student - of_teacher) ** 2).mean()
    assert torch.allclose(prototype_similarity(student, teacher, labels, 5), expected)  # absent classes do not count
    assert prototype_similarity(teacher, teacher, labels, 5).item() == 0
    assert prototype_similarity(student, teacher, torch.full((1, 2, 2), 255), 5).item() == 0


def test_masking_hides_all_channels_of_a_share_of_the_positions() -> None:
    torch.manual_seed(0)
    masked = masked_positions(torch.ones(2, 3, 4, 20, 20), 0.75)
    hidden = masked == 0
    assert torch.equal(hidden.all(dim=2), hidden.any(dim=2))
    assert hidden.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert not torch.equal(masked[0], masked[1])


def batch() -> Batch:
    generator = torch.manual_seed(3)
    images = torch.randint(0, 256, (2, 2, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.randint(0, 4, (2, 16, 16), generator=generator))


def test_a_pupil_follows_its_teacher_and_the_teacher_stays() -> None:
    torch.manual_seed(0)
    teacher, model = AcNet(*CHANNELS, SPEC), RegeneratingNetworks(*CHANNELS, SPEC)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    for method in (
        Kd(KdConfig(teacher=Path("x")), teacher=teacher),
        MaskedGenerative(MaskedGenerativeConfig(teacher=Path("x")), teacher=teacher),
    ):
        losses = method.losses(model, batch())
        torch.stack(list(losses.values())).sum().backward()
        assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    generator = model.generators[0].get_submodule("0").weight
    assert generator.grad is not None


@torch.no_grad()
def test_masked_distillation_compares_what_is_regenerated_with_the_teachers_embedding() -> None:
    torch.manual_seed(0)
    teacher, model = AcNet(*CHANNELS, SPEC).eval(), RegeneratingNetworks(*CHANNELS, SPEC).eval()
    config = MaskedGenerativeConfig(teacher=Path("x"), masked_share=0.0, mgd=3.0)
    found = MaskedGenerative(config, teacher=teacher).losses(model, batch())["mgd"]
    taught = teacher(batch().images).embedding
    embeddings = model(batch().images).embeddings
    expected = sum(F.mse_loss(model.generators[m](embeddings[m]), taught) for m in range(2))
    assert torch.allclose(found, 3.0 * torch.as_tensor(expected), rtol=1e-4)


# --- a plan ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=2, val=1, side=32)


def test_a_teacher_of_another_kind_is_refused(root: Path, tmp_path: Path) -> None:
    data = {"size": [32, 32], "modalities": ["camera", "depth"]}
    plain = shapes_config(root, data=data, budget={"max_steps": 1})
    train(plain, tmp_path / "mit", show_progress=False)
    pupil = {"name": "kd", "teacher": str(tmp_path / "mit")}
    config = shapes_config(root, data=data, model=RESNET, method=pupil, budget={"max_steps": 1})
    with pytest.raises(CheckpointError, match=r"method kd takes a teacher of kind acnet; .*mit is anymodal"):
        train(config, tmp_path / "kd", show_progress=False)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_plan_at_toy_scale_tells_costs_with_the_teachers_and_judges_claims(root: Path, tmp_path: Path) -> None:
    plan = {
        "name": "toy",
        "data": {
            "root": str(root),
            "cache": str(tmp_path / "cache"),
            "size": [32, 32],
            "modalities": ["camera", "depth"],
        },
        "model": RESNET,
        "optim": {"batch_size": 2, "lr": 1e-3},
        "budget": {"max_steps": 1},
        "machine": {"accelerator": "cpu", "torch_threads": 1},
        "teacher": "acnet",
        "split": "val",
        "costs": True,
        "claims": [
            {"kind": "ratio", "figure": "parameters_m", "of": "acnet", "to": "mgd", "at_most": 0.9},
            {"kind": "no_worse", "figure": "depth", "of": "mgd", "than": ["acnet", "proto_kd"]},
        ],
        "variants": {
            "mgd": {"method": {"name": "mgd"}},
            "acnet": {"method": {"name": "acnet"}},
        },
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    words = ["bench", "methods", tmp_path / "plan.yaml", "--out", tmp_path / "out", "--seeds", 1]
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "220", "OMP_NUM_THREADS": "1"})
    assert done.exit_code == 0, done.output
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    rows = table["rows"]
    alone = json.loads((tmp_path / "out" / "mgd_seed1" / "metrics.json").read_text())["cost"]
    taught = json.loads((tmp_path / "out" / "acnet_seed1" / "metrics.json").read_text())["cost"]
    assert rows["mgd"]["parameters_m"]["mean"] == round((alone["parameters"] + taught["parameters"]) / 1e6, 2)
    assert rows["mgd"]["train_min"]["mean"] == round((alone["cpu_s"] + taught["cpu_s"]) / 60, 2)
    assert rows["mgd"]["peak_mb"]["mean"] == max(alone["peak_memory_mb"], taught["peak_memory_mb"])
    assert [claim["held"] for claim in table["claims"]] == [True, None]
    assert "parameters_m of acnet <= 0.9 x that of mgd" in (tmp_path / "out" / "table.md").read_text()
    assert "no figures of proto_kd, not run" in done.output


ROWS = {
    "ours": {"depth": {"mean": 40.0, "std": 0.5}, "train_min": {"mean": 5.0, "std": 0.1}},
    "theirs": {"depth": {"mean": 41.0, "std": 0.2}, "train_min": {"mean": 10.0, "std": 0.1}},
    "other": {"depth": {"mean": 39.0, "std": 0.2}, "train_min": {"mean": 20.0, "std": 0.1}},
}


@pytest.mark.parametrize(
    ("claim", "words", "held"),
    [
        (Ratio(figure="train_min", of="ours", to="theirs", at_most=0.53), "0.50 x, held", True),
        (Ratio(figure="train_min", of="ours", to="theirs", at_most=0.34), "0.50 x, NOT held", False),
        (NoWorse(figure="depth", of="ours", than=("other",)), "+1.00 against other, the best of them, held", True),
        (
            NoWorse(figure="depth", of="ours", than=("other", "theirs")),
            "-1.00 against theirs, the best of them, NOT",
            False,
        ),
        (Insensitive(figure="depth", among=("ours", "theirs", "other"), within=2.0), "2.00 (standard", True),
        (Insensitive(figure="depth", among=("ours", "theirs"), within=0.3), "up to 0.50), NOT held", False),
        (Ratio(figure="train_min", of="ours", to="nobody", at_most=1), "no figures of nobody, not run", None),
    ],
)
def test_claims_are_held_against_the_table(claim: Ratio, words: str, held: bool | None) -> None:
    verdict = judge(claim, ROWS)
    assert verdict.held is held
    assert words in str(verdict)


def test_shapes_of_tensors_are_those_of_the_contract() -> None:
    """Both students and the teacher have embeddings of one size, or nothing could be compared."""
    out: Tensor = RegeneratingNetworks(*CHANNELS, SPEC)(batch().images, lambda z: z).regenerated
    assert out.shape[1:] == AcNet(*CHANNELS, SPEC)(batch().images).embedding.shape
