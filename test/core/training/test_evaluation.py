"""Evaluation: robustness figures against their formulas, groups by name, the release's mIoU, and the report's files."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapes_dataset import shapes_config, write_shapes
from typer.testing import CliRunner

from anyseg_core.data.datasets import open_dataset
from anyseg_core.models.anymodal import select_present
from anyseg_core.models.base import all_subsets
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.training.checkpoint import load_anymodal, load_model
from anyseg_core.training.evaluation import (
    ALL,
    class_iou,
    decide_labels,
    groups_of,
    score_groups,
    score_subsets,
    subset_miou,
    subset_name,
    summarise,
)
from anyseg_core.training.evaluation_plots import letters, plot_bars, plot_heat_map, tile
from anyseg_core.training.evaluation_report import (
    EvaluationOptions,
    evaluate_fully,
    robustness_rows,
    write_report,
)
from anyseg_core.training.loop import train
from anyseg_core.training.robustness import (
    ZEROED_SHARES,
    add_noise,
    add_normalised_noise,
    expectations,
    missing_metrics,
    normalised,
    normalised_contributions,
    score_robustness,
    score_ummss,
    zero_elements,
    zero_normalised,
)
from anyseg_ros.cli import app

SIDE = 32
NAMES = [subset_name(subset, DEFAULT_SENSORS) for subset in all_subsets(4)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two weathers, one of them with a failing camera."""
    root = write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=2, val=2, side=SIDE)
    for file in root.glob("*/sun/val/MAP_1_point0/000000_*.png"):
        copy = file.parents[3] / "night" / "val" / "MAP_2_point0_overexposure" / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    config = shapes_config(root, data={"size": [SIDE, SIDE]}, optim={"lr": 3e-3}, budget={"max_steps": 20})
    return train(config, tmp_path_factory.mktemp("runs") / "run", show_progress=False)


# --- figures


def test_emm_is_the_mean_where_something_is_missing() -> None:
    miou = dict(zip(NAMES, range(15), strict=True))
    assert missing_metrics(miou)["emm"] == pytest.approx(np.mean(range(14)), abs=0.01)


def test_expected_emm_by_hand() -> None:
    """Two modalities at p = 0.2: 0.16 for each alone, 0.64 for both, of 0.96."""
    miou = {"camera": 10.0, "depth": 20.0, "camera+depth": 40.0}
    expected = missing_metrics(miou)["expected_emm"]
    assert expected["0.2"] == pytest.approx((0.16 * 10 + 0.16 * 20 + 0.64 * 40) / 0.96, abs=0.01)
    assert list(expected) == ["0.2", "0.1", "0.05"]


@given(st.lists(st.floats(0, 100), min_size=15, max_size=15))
def test_expected_emm_is_the_sum_of_the_equation(values: list[float]) -> None:
    expected = missing_metrics(dict(zip(NAMES, values, strict=True)))["expected_emm"]["0.1"]
    above = below = 0.0
    for size in range(1, 5):
        for subset in combinations(DEFAULT_SENSORS, size):
            weight = 0.1 ** (4 - size) * 0.9**size
            above += weight * values[NAMES.index("+".join(subset))]
            below += weight
    assert expected == pytest.approx(above / below, abs=0.011)


def test_one_modality_has_nothing_to_miss() -> None:
    assert missing_metrics({"camera": 50.0}) == {
        "emm": None,
        "expected_emm": dict.fromkeys(("0.2", "0.1", "0.05"), 50.0),
        "robustness": "ours",
    }


def test_zeroed_elements_are_as_many_as_asked_for() -> None:
    images = np.full((2, 100, 100, 3), 7, np.uint8)
    damaged = zero_elements(images, 0.25, np.random.default_rng(0))
    assert set(np.unique(damaged)) == {0, 7}
    assert (damaged == 0).mean() == pytest.approx(0.25, abs=0.01)


def test_noise_is_as_strong_as_asked_for_and_spares_events_its_gaussian_part() -> None:
    images = np.full((4, 200, 200, 3), 128, np.uint8)
    salted = add_noise(images, DEFAULT_SENSORS, 0.1, 0.0, np.random.default_rng(0))
    for image in salted:
        assert [(image == value).all(axis=2).mean() for value in (0, 255)] == pytest.approx([0.05, 0.05], abs=0.005)
    noisy = add_noise(images, DEFAULT_SENSORS, 0.0, 0.1, np.random.default_rng(0))
    spread = dict(zip(DEFAULT_SENSORS, (noisy.astype(float) - 128).std(axis=(1, 2, 3)), strict=True))
    assert spread.pop(Sensor.EVENT) == 0
    assert list(spread.values()) == pytest.approx([25.5] * 3, rel=0.03)


def test_the_release_counts_absent_classes_as_zero() -> None:
    matrix = ConfusionMatrix(4)
    matrix.add(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 0, 1, 2]], np.uint8))
    assert subset_miou(matrix) == 75.0  # (1 + 1/2) / 2
    assert subset_miou(matrix, released_protocol=True) == 37.5  # (1 + 1/2 + 0 + 0) / 4
    assert class_iou(matrix, list("abcd")) == {"a": 100.0, "b": 50.0}


def test_groups_are_read_off_the_name() -> None:
    assert groups_of("night/val/MAP_3_point1_motionblur/000001_semantic_front.png") == ["night", "motionblur"]
    assert groups_of("val/fog/night/REC_frame_camera.png") == ["fog", "night"]
    assert groups_of("dataset1_03") == []
    assert groups_of("train/drive_1/night") == []  # a file's own name says nothing


# --- a checkpoint


def test_groups_add_up(checkpoint: Path) -> None:
    model, state = load_model(checkpoint)
    dataset = open_dataset(state.config.data, "val")
    groups, reliability = score_groups(model, dataset, 2, show_progress=False)
    assert set(reliability) == set(groups[ALL])
    assert set(groups) == {ALL, "sun", "night", "overexposure"}
    for name in NAMES:
        parts = groups["sun"][name].counts + groups["night"][name].counts
        np.testing.assert_array_equal(groups[ALL][name].counts, parts)
        np.testing.assert_array_equal(groups["night"][name].counts, groups["overexposure"][name].counts)
    assert score_subsets(model, dataset, 2, show_progress=False).keys() == groups[ALL].keys()


@torch.inference_mode()
def test_shared_encoding_counts_as_fifteen_separate_runs_do(checkpoint: Path) -> None:
    model, state = load_model(checkpoint)
    dataset = open_dataset(state.config.data, "val")
    shared = score_subsets(model, dataset, 2, show_progress=False)
    for subset in all_subsets(4):
        matrix = ConfusionMatrix(len(dataset.classes))
        present = torch.zeros(1, 4, dtype=torch.bool)
        present[0, list(subset)] = True
        for index in range(len(dataset)):
            sample = dataset[index]
            logits = model(select_present(torch.from_numpy(np.array(sample.images))[None], present))
            matrix.add(sample.labels, decide_labels(logits, dataset.size, 2))
        difference = np.abs(matrix.counts - shared[subset_name(subset, DEFAULT_SENSORS)].counts).sum() / 2
        assert difference <= 2  # pixels on which two classes are equal to the last bit but one


def test_robustness_of_undamaged_images_is_that_of_all_modalities(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, state = load_model(checkpoint)
    dataset = open_dataset(state.config.data, "val")
    monkeypatch.setattr("anyseg_core.training.robustness.zero_elements", lambda images, *_: images)
    monkeypatch.setattr("anyseg_core.training.robustness.add_noise", lambda images, *_: images)
    scores = score_robustness(model, dataset, 2, show_progress=False)
    whole = summarise(score_subsets(model, dataset, 2, show_progress=False), [c.name for c in dataset.classes])
    full = whole["miou"][NAMES[-1]]
    assert scores["rmm"] == {**{str(share): full for share in ZEROED_SHARES}, "mean": full}
    assert scores["nm"] == dict.fromkeys(("low", "medium", "high", "mean"), full)


def test_elements_are_zeroed_and_salted_as_the_benchmarks_code_does() -> None:
    random = np.random.default_rng(0)
    tensors = random.uniform(1, 2, (4, 60, 50, 3)).astype(np.float32)
    assert (zero_normalised(tensors, 0.25, random) == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert not zero_normalised(tensors, 1.0, random).any()
    salted = add_normalised_noise(tensors, DEFAULT_SENSORS, 0.2, 0.0, random)
    for image, before in zip(salted, tensors, strict=True):
        changed = image != before
        assert set(np.unique(image[changed])) <= {before.max(), before.min()}
        assert changed.mean() == pytest.approx(1 - np.exp(-0.2), abs=0.01)  # drawn with replacement
        assert not changed.all(axis=2)[changed.any(axis=2)].all()  # elements, not pixels
    noisy = add_normalised_noise(tensors, DEFAULT_SENSORS, 0.0, 0.5, random) - tensors
    assert [image.std() for image in noisy] == pytest.approx([0.5, 0.5, 0.0, 0.5], abs=0.01)


def test_expectations_over_the_damaged_by_hand() -> None:
    """Two modalities: none damaged 60, the one 40, the other 20; p = 0.2."""
    found = expectations([0, 1, 1], [60, 40, 20], 2)["0.2"]
    assert found == pytest.approx((0.64 * 60 + 0.16 * 40 + 0.16 * 20) / 0.96, abs=0.005)


@torch.inference_mode()
def test_ummss_scores_what_a_loop_over_zeroed_tensors_finds(checkpoint: Path) -> None:
    """All four images always go through the network; a missing one is all zero after normalisation."""
    model, state = load_anymodal(checkpoint)
    dataset = open_dataset(state.config.data, "val")
    scores = score_ummss(model, dataset, 2, show_progress=False)
    combinations = [(), *all_subsets(4)[:-1]]
    assert len(combinations) == 15
    matrices = {missing: ConfusionMatrix(len(dataset.classes)) for missing in combinations}
    for index in range(len(dataset)):
        tensors = torch.from_numpy(normalised(model, dataset[index].images))
        for missing in combinations:
            zeroed = tensors.clone()
            zeroed[list(missing)] = 0
            maps = [stage.mean(dim=0, keepdim=True) for stage in model.encoder(zeroed)]
            matrices[missing].add(dataset[index].labels, decide_labels(model.head(maps), dataset.size, 2))
    miou = [subset_miou(matrix, released_protocol=True) for matrix in matrices.values()]
    assert scores["emm"] == pytest.approx(float(np.mean(miou)), abs=0.05)  # labels that are equal to the last bit
    assert scores["robustness"] == "UMMSS"
    assert set(scores["rmm"]) == {*map(str, ZEROED_SHARES), "mean"}
    assert set(scores["expected_rmm"]["0.25"]) == {"0.2", "0.1", "0.05"}
    assert set(scores["nm"]) == {"low", "medium", "high", "mean"}


@torch.inference_mode()
def test_normalised_tensors_reach_the_network_as_they_are(checkpoint: Path) -> None:
    model, state = load_model(checkpoint)
    images = np.array(open_dataset(state.config.data, "val")[0].images)
    whole = model.contributions(torch.from_numpy(images))
    torch.testing.assert_close(normalised_contributions(model, normalised(model, images)), whole, atol=1e-4, rtol=1e-4)


def test_the_report_has_all_its_files_and_figures(checkpoint: Path, tmp_path: Path) -> None:
    evaluation = evaluate_fully(checkpoint, EvaluationOptions(robustness=True, pictures=2), show_progress=False)
    metrics = evaluation.metrics
    assert metrics["miou"] == json.loads((checkpoint.parents[1] / "metrics.json").read_text())["miou"]
    assert set(metrics["iou_by_subset"]) == set(NAMES)
    assert set(metrics["groups"]) == {"sun", "night", "overexposure"}
    page = write_report(evaluation, tmp_path / "report", "anyseg evaluate runs/x").read_text()
    assert page.count('src="data:image/png;base64,') == 6  # bars, heat map, calibration, confusion, two grids
    assert f"{metrics['rmm']['mean']:.2f}" in page
    written = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert written == metrics | {"command": "anyseg evaluate runs/x"}
    text = (tmp_path / "report" / "report.md").read_text()
    assert all(f"| {name} | {value:.2f} |" in text for name, value in metrics["miou"].items())
    assert f"| **mean** | **{metrics['mean']:.2f}** |" in text
    assert "| sun |" in text


def test_the_released_protocol_is_said_so(checkpoint: Path, tmp_path: Path) -> None:
    evaluation = evaluate_fully(checkpoint, EvaluationOptions(released_protocol=True, limit=1), show_progress=False)
    assert "Robustness" not in write_report(evaluation, tmp_path / "plain", "anyseg evaluate").read_text()
    released = evaluation.metrics
    ours = evaluate_fully(checkpoint, EvaluationOptions(limit=1), show_progress=False).metrics
    assert released["protocol"] == "released"
    assert "emm" not in released  # that of the release takes passes of its own: --robustness
    assert ours["robustness"] == "ours"
    assert 0 < released["mean"] < ours["mean"]  # 25 classes, of which 4 occur
    assert "1 of them scored" in ours["data"]
    options = EvaluationOptions(released_protocol=True, robustness=True, limit=1)
    with_robustness = evaluate_fully(checkpoint, options, show_progress=False)
    assert "Robustness, UMMSS" in write_report(with_robustness, tmp_path / "report", "anyseg evaluate").read_text()
    rows = dict(robustness_rows(with_robustness.metrics))
    assert "EMM (UMMSS): zeroed, all combinations" in rows
    assert all("(UMMSS)" in name for name in rows)
    assert all("(ours)" in name for name, _ in robustness_rows(ours))


def test_the_command_prints_percent_and_writes(checkpoint: Path, tmp_path: Path) -> None:
    words = ["evaluate", checkpoint, "--json", tmp_path / "new" / "scores.json", "--out", tmp_path / "report"]
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    scores = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert f"{scores['mean']:.2f} " in done.output
    assert (tmp_path / "report" / "report.html").is_file()


# --- pictures


def test_plots_are_pictures_of_what_they_were_given() -> None:
    miou = dict(zip(NAMES, np.linspace(5, 60, 15), strict=True))
    bars = plot_bars(miou)
    heat = plot_heat_map({name: {"Road": value, "Car": 3.0} for name, value in miou.items()})
    for picture in (bars, heat):
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert not np.array_equal(bars, plot_bars(dict.fromkeys(NAMES, 10.0)))


def test_tiles_stand_in_rows_at_one_size() -> None:
    red = np.zeros((50, 100, 3), np.uint8)
    red[..., 0] = 255
    grid = tile([("a", red)] * 5, columns=3, width=60)
    assert grid.shape == (2 * (30 + 22), 3 * 66, 3)
    assert (grid == (255, 0, 0)).all(axis=2).sum() == pytest.approx(5 * 30 * 60, rel=0.01)
    assert cv2.imencode(".png", grid)[0]


def test_letters() -> None:
    assert letters("camera+event+lidar") == "CEL"
