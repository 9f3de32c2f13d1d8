"""The published network that students are timed against: its labels, and a ratio that is one of the same turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anyseg_core.benchmarks import plain_segformer
from anyseg_core.benchmarks.plain_segformer import PlainSegformer, measure_ratio


def test_the_plain_network_labels_as_the_folded_one_of_the_same_weights() -> None:
    torch.manual_seed(0)
    plain = PlainSegformer().eval()
    images, modality = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    with torch.inference_mode():
        labels, _ = plain(images, modality)
        logits = plain.model.head(plain.model.encode(images, modality))  # [1, K, h, w], computed folded
        upsampled = torch.nn.functional.interpolate(logits.permute(0, 3, 1, 2), (64, 96), mode="bilinear")
    assert (upsampled[0].argmax(dim=0) == labels).float().mean() > 0.999


class FakeEngine:
    def run(self, images: np.ndarray, _index: np.ndarray) -> None:
        assert images.shape == (1, 64, 64, 3)

    def close(self) -> None:
        pass


def test_the_ratio_is_that_of_each_turn_and_has_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(plain_segformer, "write_plain_segformer", lambda file, _side: written.append(file.name))
    monkeypatch.setattr(plain_segformer, "write_untrained", lambda folder, *_: written.append(folder.name))
    monkeypatch.setattr(plain_segformer, "open_engine", lambda *_: FakeEngine())
    monkeypatch.setattr(
        plain_segformer, "in_turns", lambda *_: {"plain SegFormer-B0": [100.0, 200.0], "mine": [30.0, 40.0]}
    )
    (plain, mine, ratio), _ = measure_ratio("efficientnet_lite0", tmp_path, 64, 2, 1)
    assert (plain.samples, mine.samples) == ([100.0, 200.0], [30.0, 40.0])
    assert (ratio.samples, ratio.bar, ratio.met) == ([0.3, 0.2], "p50 <= 0.25", True)
    assert written == ["plain_segformer_b0_64.onnx", "efficientnet_lite0_gated_64"]
    with pytest.raises(ValueError, match="multiple of 32"):
        measure_ratio("efficientnet_lite0", tmp_path, 100)
