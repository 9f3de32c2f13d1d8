"""YAML in which a key may stand only once in a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


class _UniqueKeyLoader(yaml.SafeLoader):
    """A key that stands twice in one mapping is a mistake: YAML would take the last without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As SafeLoader; raises ConstructorError for a key that stands there twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# launch_ros writes the lists of a node's parameters with this tag, which ROS 2 does not look at.
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:python/tuple", _UniqueKeyLoader.construct_yaml_seq)

_MERGE = "tag:yaml.org,2002:merge"
"""`<<`, which takes over another mapping's keys, may stand often."""


def load_yaml(text: str) -> Any:
    """Plain values of a YAML document. Raises yaml.YAMLError, also for a key that stands twice in one mapping."""
    return yaml.load(text, Loader=_UniqueKeyLoader)  # a safe loader


def load_yaml_file(path: Path) -> Any:
    """The same of a file that a user has named. Raises also OSError, which says so where there is none, and
    UnicodeDecodeError."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    return load_yaml(path.read_text(encoding="utf-8"))
