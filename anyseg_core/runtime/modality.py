"""The names that sensors had before `sensors`; kept while code is moved over."""

from anyseg_core.runtime.sensors import DEFAULT_SENSORS as MODALITIES
from anyseg_core.runtime.sensors import Sensor as Modality
from anyseg_core.runtime.sensors import SensorFrame as ModalityFrame
from anyseg_core.runtime.sensors import all_subsets, subset_name

__all__ = ["MODALITIES", "Modality", "ModalityFrame", "all_subsets", "subset_name"]
