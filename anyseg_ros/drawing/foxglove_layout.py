"""The Foxglove layout for a vehicle in a namespace: Foxglove has no relative topics, so they are written out."""

from __future__ import annotations

from typing import Any

GLOBAL_TOPICS = ("/diagnostics", "/tf", "/tf_static")
"""They have the same name in every namespace."""
OF_NODE = "anyseg "
"""In the name of a status the node's full name follows."""


def in_namespace(layout: Any, namespace: str) -> Any:
    """A layout (what its JSON file holds) in that namespace: a text that begins with `/` is a topic or a node, and the
    name of a status has its node behind `OF_NODE`."""
    prefix = "/" + namespace.strip("/") if namespace.strip("/") else ""
    if isinstance(layout, dict):
        return {in_namespace(key, namespace): in_namespace(value, namespace) for key, value in layout.items()}
    if isinstance(layout, list):
        return [in_namespace(item, namespace) for item in layout]
    if not isinstance(layout, str) or layout in GLOBAL_TOPICS:
        return layout
    start, slash, name = layout.partition("/")
    return f"{start}{prefix}/{name}" if slash and start in ("", OF_NODE) else layout
