"""Train, distil, export and run anymodal semantic segmentation. No ROS anywhere in this package.

`from anyseg_core import Segmenter` is all that running a student needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyseg_core.runtime.geometry.projection import Rig
    from anyseg_core.runtime.segmenter import Segmentation, Segmenter
    from anyseg_core.runtime.sensors import Sensor, SensorFrame

__version__ = "0.2.0"
__all__ = ["Rig", "Segmentation", "Segmenter", "Sensor", "SensorFrame"]

_MODULES = {
    "Rig": "runtime.geometry.projection",
    "Segmentation": "runtime.segmenter",
    "Segmenter": "runtime.segmenter",
    "Sensor": "runtime.sensors",
    "SensorFrame": "runtime.sensors",
}


def __getattr__(name: str) -> Any:
    """Loaded when it is asked for: most of this package needs neither an engine nor OpenCV."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
