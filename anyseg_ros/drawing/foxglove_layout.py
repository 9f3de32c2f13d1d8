"""The Foxglove layout for a vehicle in a namespace: Foxglove has no relative topics, so they are written out."""

from __future__ import annotations

from typing import Any

GLOBAL_TOPICS = ("/diagnostics", "/tf", "/tf_static")
"""They have the same name in every namespace."""


def in_namespace(layout: Any, namespace: str) -> Any:
    """A layout (what its JSON file holds) with its topics in that namespace: every text that begins with `/` is one."""
    prefix = "/" + namespace.strip("/") if namespace.strip("/") else ""
    if isinstance(layout, dict):
        return {in_namespace(key, namespace): in_namespace(value, namespace) for key, value in layout.items()}
    if isinstance(layout, list):
        return [in_namespace(item, namespace) for item in layout]
    if isinstance(layout, str) and layout.startswith("/") and layout not in GLOBAL_TOPICS:
        return prefix + layout
    return layout
