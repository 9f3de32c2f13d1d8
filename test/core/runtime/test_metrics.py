"""The confusion matrix against counts by hand and against its own definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from anyseg_core.runtime.metrics import ConfusionMatrix, Reliability, mean_over_subsets

CLASSES = 4
label_images = npst.arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 3, 255]))


def matrix_of(labels: list[int], prediction: list[int], classes: int = CLASSES) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    matrix.add(np.array(labels, np.uint8), np.array(prediction, np.uint8))
    return matrix


def test_iou_by_hand() -> None:
    matrix = matrix_of([0, 0, 0, 1, 1], [0, 0, 1, 1, 0])
    np.testing.assert_allclose(matrix.iou()[:2], [2 / 4, 1 / 3])
    assert matrix.miou() == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert matrix.pixel_accuracy() == pytest.approx(3 / 5)


def test_a_class_absent_from_the_ground_truth_has_no_iou_but_its_pixels_cost_the_others() -> None:
    matrix = matrix_of([0, 0, 0, 0], [0, 0, 0, 2])
    assert np.isnan(matrix.iou()[1:]).all()
    assert matrix.miou() == pytest.approx(3 / 4)


def test_unlabelled_pixels_are_ignored() -> None:
    assert matrix_of([0, 255, 255], [0, 1, 0]).miou() == 1.0


def test_predicting_nothing_is_a_miss() -> None:
    assert matrix_of([0, 0], [0, 255]).miou() == pytest.approx(0.5)


def test_nothing_labelled_gives_nan() -> None:
    matrix = matrix_of([255, 255], [0, 1])
    assert np.isnan(matrix.miou())
    assert np.isnan(matrix.pixel_accuracy())


@pytest.mark.parametrize(("labels", "prediction"), [([4], [0]), ([0], [4])])
def test_a_value_that_is_no_class_is_refused(labels: list[int], prediction: list[int]) -> None:
    with pytest.raises(ValueError, match="4 is out of range"):
        matrix_of(labels, prediction)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        ConfusionMatrix(2).add(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


def test_merging_other_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot merge"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))


@given(label_images, label_images)
def test_iou_is_intersection_over_union(labels: np.ndarray, prediction: np.ndarray) -> None:
    matrix = ConfusionMatrix(CLASSES)
    matrix.add(labels, prediction)
    known = labels != 255
    for k, iou in enumerate(matrix.iou()):
        truth, guess = (labels == k) & known, (prediction == k) & known
        expected = (truth & guess).sum() / (truth | guess).sum() if truth.any() else np.nan
        np.testing.assert_allclose(iou, expected)


@given(label_images, label_images, label_images, label_images)
def test_merged_matrices_equal_one_matrix(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> None:
    whole, part, other = ConfusionMatrix(CLASSES), ConfusionMatrix(CLASSES), ConfusionMatrix(CLASSES)
    for matrix in (whole, part):
        matrix.add(a, b)
    for matrix in (whole, other):
        matrix.add(c, d)
    part.merge(other)
    np.testing.assert_array_equal(whole.counts, part.counts)


def test_mean_over_subsets_is_plain() -> None:
    assert mean_over_subsets([10.0, 20.0, 60.0]) == pytest.approx(30.0)
    with pytest.raises(ValueError, match="no subset"):
        mean_over_subsets([])


def test_calibration_error_is_the_distance_of_confidence_from_what_is_right() -> None:
    reliability = Reliability(bins=10)
    assert np.isnan(reliability.expected_error())
    reliability.add(np.full(10, 0.95), np.arange(10) < 6)  # says 0.95, is right 6 of 10 times
    reliability.add(np.full(30, 0.55), np.arange(30) < 15)
    assert reliability.expected_error() == pytest.approx(0.25 * 0.35 + 0.75 * 0.05)
    assert reliability.curve() == [pytest.approx((0.55, 0.5, 0.75)), pytest.approx((0.95, 0.6, 0.25))]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_a_confidence_that_is_as_good_as_it_says_has_no_error(confidences: list[float]) -> None:
    reliability = Reliability()
    for confidence in confidences:
        place = min(int(confidence * 20), 19) / 20 + 0.025  # the middle of its bin
        reliability.add(np.full(40, place), np.arange(40) < round(40 * place))
    assert reliability.expected_error() == pytest.approx(0, abs=1e-9)
