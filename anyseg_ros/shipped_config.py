"""Files of config/, found wherever the package was installed and from whatever folder a command is called."""

from __future__ import annotations

from pathlib import Path

PACKAGE = "anyseg_ros"


def shipped_config(name: str) -> Path:
    """`foxglove.json` -> config/foxglove.json of the checkout, or share/anyseg_ros/config/foxglove.json where pip or
    colcon has installed it. Raises FileNotFoundError."""
    for above in Path(__file__).resolve().parents:
        for folder in (above / "config", above / "share" / PACKAGE / "config"):
            if (folder / name).is_file():
                return folder / name
    raise FileNotFoundError(f"this installation has no {name}: it is config/{name} of a checkout, give its path")
