"""One label image of several: a vote weighted by confidence, of networks or of sensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]


def fuse(results: Sequence[tuple[Labels, Labels]]) -> tuple[Labels, Labels]:
    """Several (labels, confidence), each uint8 [H, W] -> one; a single one as it is.

    The label with the greatest summed confidence wins a pixel; its confidence is that sum divided by the number
    of voters, so disagreement lowers it. Ties go to the earlier one.
    """
    if len(results) == 1:
        return results[0]
    labels = np.stack([label for label, _ in results])  # [K, H, W]
    weights = np.stack([confidence for _, confidence in results]).astype(np.uint16)  # [K, H, W]
    votes = np.stack([np.where(labels == label, weights, 0).sum(axis=0) for label in labels])  # [K, H, W]
    winner = votes.argmax(axis=0)[None]  # [1, H, W]
    fused = np.take_along_axis(labels, winner, axis=0)[0]
    confidence = np.take_along_axis(votes, winner, axis=0)[0] // len(results)
    return fused, confidence.astype(np.uint8)
