"""Lists of classes that people write: names with commas, or a JSON file of names and colours."""

from __future__ import annotations

import colorsys
import json
from pathlib import Path

from pydantic import TypeAdapter

from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.model_card import ClassSpec
from anyseg_core.runtime.model_faults import told

_GOLDEN_ANGLE = 0.618034
"""Of the circle of hues: neighbouring classes get colours that are far apart."""


def parse_classes(text: str) -> tuple[ClassSpec, ...]:
    """`road,car` or the path of a JSON file, a list of `{"name": ..., "color": [r, g, b]}` or one with it in `classes`.

    The position in the list is the label. Raises ValueError for fewer than two classes, or one that is there twice.
    """
    path = Path(text)
    classes = _read(path) if path.suffix == ".json" else _named([name.strip() for name in text.split(",")])
    names = [entry.name for entry in classes]
    if not 2 <= len(classes) < UNLABELLED or not all(names):
        raise ValueError(f"{text!r} has {len(classes)} classes: two to {UNLABELLED - 1} with names are needed")
    if len({*names}) < len(names):
        raise ValueError(f"{text!r} has a class twice: {', '.join(names)}")
    return classes


def _read(path: Path) -> tuple[ClassSpec, ...]:
    try:
        content = json.loads(path.read_bytes())
        entries = content.get("classes") if isinstance(content, dict) else content
        return TypeAdapter(tuple[ClassSpec, ...]).validate_python(entries)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no list of classes with name and color: {told(error, ClassSpec)}") from None


def _named(names: list[str]) -> tuple[ClassSpec, ...]:
    hues = [colorsys.hsv_to_rgb(number * _GOLDEN_ANGLE % 1.0, 0.7, 0.9) for number in range(len(names))]
    colors = [tuple(round(255 * part) for part in rgb) for rgb in hues]
    return tuple(ClassSpec(name=name, color=color) for name, color in zip(names, colors, strict=True))  # type: ignore[arg-type]
