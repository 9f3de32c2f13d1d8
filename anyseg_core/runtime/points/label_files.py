"""Labels of points in files, in the form of SemanticKITTI: one `.label` a scan, a uint32 a point.

The lower 16 bits are the class, the upper ones the instance, which is not read (Behley et al., "SemanticKITTI", ICCV
2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.strict_yaml import load_yaml_file

SUFFIX = ".label"
_IDS = 1 << 16


class PointLabelError(ValueError):
    """Labels of points that cannot be used; the message names the file and the remedy."""


def write_point_labels(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write uint8 [N], 255 = unlabelled, as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(labels.astype("<u4").tobytes())


def read_point_labels(path: Path, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [N] of a file; `table` uint8 [65536] gives the class of each id. Raises PointLabelError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PointLabelError(f"{path} cannot be read: {error}") from None
    if len(content) % 4:
        raise PointLabelError(f"{path} has {len(content)} bytes, which is no whole number of 4 a point")
    return table.take(np.frombuffer(content, "<u4") & (_IDS - 1))


def id_table(classes: Sequence[str], names: Mapping[int, str] | None = None) -> NDArray[np.uint8]:
    """uint8 [65536]: the label of each id in the files, 255 for all others.

    Args:
        classes: of the student, in their order.
        names: id in the files -> class; None: the ids are the student's labels.

    Raises PointLabelError for a name that is none of the classes, and an id that is no class.
    """
    table = np.full(_IDS, UNLABELLED, np.uint8)
    for number, name in (dict(enumerate(classes)) if names is None else names).items():
        if name not in classes:
            raise PointLabelError(f"id {number} of the point labels is {name!r}, which is none of {', '.join(classes)}")
        if not 0 <= number < _IDS:
            raise PointLabelError(f"id {number} of the point labels ({name}) must be 0 to {_IDS - 1}")
        table[number] = classes.index(name)
    return table


def load_names(path: Path) -> dict[int, str]:
    """Of a YAML file such as config/replay/semantic_kitti.yaml: id -> name of a class. Raises PointLabelError."""
    try:
        content = load_yaml_file(path)
        return {int(number): str(name) for number, name in content.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PointLabelError(
            f"{path} is no list of `id: class` ({reason}): see config/replay/semantic_kitti.yaml"
        ) from None
