"""Which labels are published, and what names mean: classes of the student, groups of them, other ids and colours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.model_card import ModelCard

Groups = Mapping[str, Sequence[str]]
"""Name of a group -> names of classes."""
_NONE: Mapping[str, Any] = MappingProxyType({})


class ClassNameError(ValueError):
    """Classes or groups that do not fit the student; the message names them and what there is."""


def class_table(card: ModelCard, groups: Groups, names: Iterable[str]) -> NDArray[np.bool_]:
    """bool [256] by the student's label: which are meant by names of classes and groups. Raises ClassNameError."""
    index = {spec.name: i for i, spec in enumerate(card.classes)}
    table = np.zeros(256, np.bool_)
    for name in names:
        for member in groups.get(name, (name,)):
            if member not in index:
                near = difflib.get_close_matches(member, [*index, *groups], n=1)
                remedy = f"did you mean {near[0]}?" if near else f"its classes: {', '.join(index)}"
                raise ClassNameError(f"student {card.name} has no class or group {member!r}: {remedy}")
            table[index[member]] = True
    return table


@dataclass(frozen=True, eq=False)
class PublishedClasses:
    """The classes as everybody outside sees them."""

    table: NDArray[np.uint8]
    """uint8 [256]: the student's label -> the published one; 255 = not published."""
    names: Mapping[int, str]
    """By published label."""
    palette: NDArray[np.uint8]
    """uint8 [256, 3], RGB by published label; black where there is no class."""

    is_identity: bool
    """Whether the published labels are the student's."""

    def of(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Published labels of the student's, of any shape; the same array where they are the same."""
        return labels if self.is_identity else self.table.take(labels)

    def legend(self) -> dict[str, str]:
        """The colour of every class in its masks, by name, such as `#804080`."""
        return {name: "#{:02x}{:02x}{:02x}".format(*self.palette[label]) for label, name in self.names.items()}


def published_classes(
    card: ModelCard,
    groups: Groups = _NONE,
    *,
    as_groups: bool = False,
    ids: Mapping[str, int] = _NONE,
    colors: Mapping[str, Sequence[int]] = _NONE,
) -> PublishedClasses:
    """What is published: the student's classes, or the groups instead of them (other classes are then 255).

    Args:
        ids: other labels, by the name of a class or group; without one a class has the student's, a group its place.
        colors: RGB, by the name of a class or group; without one a group has the colour of its first class.

    Raises ClassNameError: an unknown name, a class in two groups, a label that is given twice.
    """
    class_table(card, groups, [*groups, *ids, *colors])  # every name must mean something
    members: Groups = groups if as_groups else {spec.name: (spec.name,) for spec in card.classes}
    table, palette = np.full(256, UNLABELLED, np.uint8), np.zeros((256, 3), np.uint8)
    own_colors = {spec.name: spec.color for spec in card.classes}
    own_colors = {spec.name: spec.color for spec in card.classes}
    names: dict[int, str] = {}
    for place, (name, classes) in enumerate(members.items()):
        label = ids.get(name, place)
        if label == UNLABELLED:
            continue
        taken = class_table(card, _NONE, classes)
        if label in names:
            raise ClassNameError(
                f"{name} and {names[label]} are both published as {label}: give one of them another id"
            )
        if (table[taken] != UNLABELLED).any():
            raise ClassNameError(f"a class of group {name} is in another group, too: a pixel has one label")
        table[taken] = label
        names[label] = name
        palette[label] = colors.get(name, own_colors[classes[0]])
    return PublishedClasses(
        table, names, palette, is_identity=bool((table[: len(card.classes)] == np.arange(len(card.classes))).all())
    )
