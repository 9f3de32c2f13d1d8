"""What a Jetson says of itself: board, Jetson Linux and JetPack, power mode, GPU clock, memory. Reads files only.

Places: Jetson Linux Developer Guide (r36, r38), "Platform Power and Performance" and "Software Packages". Every
function takes the root of the file system, so that tests can bring their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

RELEASE = Path("etc/nv_tegra_release")
BOARD = Path("proc/device-tree/model")
MODES = Path("etc/nvpmodel.conf")
MODE_NOW = Path("var/lib/nvpmodel/status")
CLOCKS = Path("sys/class/devfreq")
MEMORY = Path("proc/meminfo")
JETPACKS = {
    "36.2": "6.0 DP", "36.3": "6.0", "36.4": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.5": "6.2.2",
    "38.2": "7.0", "38.4": "7.1", "39.2": "7.2",
}  # fmt: skip
"""Jetson Linux -> JetPack, from NVIDIA's JetPack archive."""
JETPACK_MAJORS = {35: "5", 36: "6", 38: "7", 39: "7"}
SUPPORTED = ("6", "7")


@dataclass(frozen=True)
class Jetson:
    """One Jetson; an empty text or None is what it does not say."""

    board: str
    linux: str
    """Version of Jetson Linux (L4T), such as `36.4.3`."""
    jetpack: str
    """Such as `6.2`, or only the major version where the release is not known here."""
    mode: str
    """Power mode, such as `MAXN`."""
    modes: tuple[str, ...]
    gpu_mhz: tuple[int, int] | None
    """Now, and at most in this mode."""
    memory_mb: tuple[int, int] | None
    """Available, and in total; CPU and GPU share it."""

    @property
    def supported(self) -> bool:
        """Whether there is a TensorRT for it that this package runs on."""
        return self.jetpack.partition(".")[0] in SUPPORTED


def read_jetson(root: Path = Path("/")) -> Jetson | None:
    """What this machine says; None where it is no Jetson."""
    release = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", _text(root / RELEASE))
    if release is None:
        return None
    linux = f"{release[1]}.{release[2]}"
    modes = _modes(_text(root / MODES))
    return Jetson(
        board=_text(root / BOARD).strip("\0 \n") or "unknown board",
        linux=linux,
        jetpack=_jetpack(linux),
        mode=modes.get(_mode_id(_text(root / MODE_NOW)), ""),
        modes=tuple(modes.values()),
        gpu_mhz=_gpu_mhz(root / CLOCKS),
        memory_mb=_memory_mb(_text(root / MEMORY)),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _jetpack(linux: str) -> str:
    """Of the release, else of the longest known version that it begins with, else the major one."""
    parts = linux.split(".")
    exact = ".".join(parts[:-1] if parts[-1] == "0" and len(parts) > 2 else parts)
    return JETPACKS.get(exact, JETPACK_MAJORS.get(int(parts[0]), "unknown"))


def _modes(text: str) -> dict[int, str]:
    """Power modes of nvpmodel.conf: `< POWER_MODEL ID=0 NAME=MAXN >`."""
    found = re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text, re.MULTILINE)
    return {int(number): name for number, name in found}


def _mode_id(text: str) -> int:
    """Of the status file, `pmode:0002`; -1 where it says nothing."""
    found = re.search(r"pmode:\s*(\d+)", text)
    return int(found[1]) if found else -1


def _gpu_mhz(folder: Path) -> tuple[int, int] | None:
    for device in sorted(folder.glob("*")):
        if re.search(r"gpu|gpc", device.name):
            now, most = _text(device / "cur_freq"), _text(device / "max_freq")
            if now.strip().isdigit() and most.strip().isdigit():
                return int(now) // 1_000_000, int(most) // 1_000_000
    return None


def _memory_mb(text: str) -> tuple[int, int] | None:
    values = {name: int(kb) // 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    if "MemAvailable" not in values or "MemTotal" not in values:
        return None
    return values["MemAvailable"], values["MemTotal"]
