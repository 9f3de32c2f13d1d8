"""The gradient of each term alone, against lengths worked out by hand and the gradient of their sum."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shapes_dataset import shapes_config, write_shapes
from torch import nn

from anyseg_core.benchmarks.gradients import gradient_norms, measure_shares, setup_of_runs, shares
from anyseg_core.training.loop import train

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_lengths_and_shares_by_hand() -> None:
    weight, other = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([5.0]))
    losses = {"a": 3 * weight[0] + 4 * weight[1], "b": (5 * weight[0]).square() / 25, "c": other.sum()}
    norms = gradient_norms(losses, [weight])
    assert norms == pytest.approx({"a": 5.0, "b": 2.0, "c": 0.0})
    assert shares(norms) == pytest.approx({"a": 500 / 7, "b": 200 / 7, "c": 0})
    assert shares({"a": 0.0}) == {"a": 0.0}


def test_every_term_of_every_variant_has_a_share_on_the_data_of_a_run(tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "shapes", train=2, val=1, side=32)
    small = {"data": {"size": [32, 32]}, "budget": {"max_steps": 1}}
    train(shapes_config(root, **small), tmp_path / "student", show_progress=False)
    full = {"method": {"name": "supervised", "anymodal_dropout": False}}
    train(shapes_config(root, **small, **full), tmp_path / "teacher", show_progress=False)
    setup = setup_of_runs(tmp_path / "student", tmp_path / "teacher", 3)
    found = measure_shares(setup)
    assert set(found) == {"paper", "released", "repaired"}
    for per_batch in found.values():
        assert [set(norms) for norms in per_batch] == [{"sup", "mad", "umd", "cmd"}] * 3
        assert all(norms["sup"] > 0 and norms["umd"] > 0 for norms in per_batch)
    for batch in range(3):  # the supervision does not depend on the variant, nor do the subsets drawn
        supervision = [found[variant][batch]["sup"] for variant in found]
        assert supervision == pytest.approx([supervision[0]] * 3, rel=1e-4)
