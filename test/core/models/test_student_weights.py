"""Weights of a student's file: found again exactly, batch norms unfolded and given new statistics."""

from __future__ import annotations

import pytest
import torch

from anyseg_core.models.efficientnet_lite import EfficientNetLite
from anyseg_core.models.student_weights import calibrate_norms


def perturbed() -> EfficientNetLite:
    """Batch norms that do something."""
    torch.manual_seed(0)
    encoder = EfficientNetLite("efficientnet_lite0")
    for name, value in encoder.state_dict().items():
        if "_bn" in name and value.is_floating_point():
            value.copy_(torch.rand(value.shape) + 0.5)
    return encoder.eval()


@torch.no_grad()
def test_an_encoder_is_the_same_after_folding_unfolding_and_calibration() -> None:
    encoder, again = perturbed(), EfficientNetLite("efficientnet_lite0").eval()
    images = torch.rand(4, 64, 64, 3)
    expected = encoder(images)
    again.unfold(encoder.folded().state_dict())
    for step in ("unfolded", "calibrated"):
        if step == "calibrated":
            calibrate_norms(again, lambda: again(images))
        for feature, reference in zip(again(images), expected, strict=True):
            torch.testing.assert_close(
                feature, reference, atol=1e-4 * float(reference.abs().max()), rtol=1e-3, msg=step
            )
    for feature, reference in zip(again.train()(images), expected, strict=True):  # in training mode about the same
        assert float((feature - reference).abs().mean()) < 0.02 * float(reference.abs().max())


def test_a_norm_that_met_nothing_keeps_its_statistics() -> None:
    networks = torch.nn.ModuleList([torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)]).eval()
    images = torch.randn(8, 2, 4, 4) * 3 + 1
    calibrate_norms(networks, lambda: networks[0](images))
    met, idle = networks
    assert isinstance(met, torch.nn.BatchNorm2d)
    assert isinstance(idle, torch.nn.BatchNorm2d)
    assert met.running_mean is not None
    assert idle.running_var is not None
    torch.testing.assert_close(met.running_mean, images.mean(dim=(0, 2, 3)))
    assert idle.running_var.tolist() == [1.0, 1.0]
    with pytest.raises(RuntimeError, match="Missing"):
        EfficientNetLite("efficientnet_lite0").unfold({})
