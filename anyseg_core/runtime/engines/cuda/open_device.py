"""Chooses the library through which a GPU is used."""

from __future__ import annotations

from anyseg_core.runtime.engines.cuda.device import Device, DeviceError


def open_device() -> Device:
    """The first GPU, by pycuda where it is installed, else by cuda.bindings.

    Raises DeviceError that names what is missing: the libraries, the driver or the GPU.
    """
    from anyseg_core.runtime.engines.cuda.bindings import BindingsDevice  # deferred: they load the driver
    from anyseg_core.runtime.engines.cuda.pycuda import PycudaDevice

    reasons: list[str] = []
    for kind in (PycudaDevice, BindingsDevice):
        try:
            return kind()
        except DeviceError as error:
            reasons.append(str(error))
    raise DeviceError("no GPU can be used here: " + "; ".join(reasons))
