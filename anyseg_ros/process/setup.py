"""What a process needs before rclpy starts, so that images and clouds travel fast: Fast DDS profile, allocator.

The profile is package data (`anyseg_ros/process/fastdds_profile.xml`): the same single file is found by an import,
whether the package was installed by pip, by colcon or not at all. The launch files import `process_environment`.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

PROFILE_ENV = "FASTDDS_DEFAULT_PROFILES_FILE"
_OLD_PROFILE_ENV = "FASTRTPS_DEFAULT_PROFILES_FILE"
_OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")  # Fast DDS 2; later ones warn of the old name

_MMAP_THRESHOLD = 32 << 20  # bytes; the most that every glibc accepts
_TRIM_THRESHOLD = 2**31 - 1
_TOP_PAD = 64 << 20
MALLOC_ENV: dict[str, str] = {
    "MALLOC_MMAP_THRESHOLD_": str(_MMAP_THRESHOLD),
    "MALLOC_TRIM_THRESHOLD_": str(_TRIM_THRESHOLD),
    "MALLOC_TOP_PAD_": str(_TOP_PAD),
}
"""glibc's allocator settings as a process' environment: message buffers are reused, not mapped afresh each time."""

_MALLOPT = {-3: _MMAP_THRESHOLD, -1: _TRIM_THRESHOLD, -2: _TOP_PAD}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD


def profile_path() -> Path:
    """The shipped Fast DDS profile."""
    return Path(__file__).resolve().with_name("fastdds_profile.xml")


def process_environment() -> dict[str, str]:
    """Environment variables for a child process; one that the user has set already keeps its value."""
    profile = str(profile_path())
    wanted = {PROFILE_ENV: profile, **MALLOC_ENV}
    if os.environ.get("ROS_DISTRO") in _OLD_DISTRIBUTIONS:
        wanted[_OLD_PROFILE_ENV] = profile
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def set_up_process() -> None:
    """Apply the settings to this process; call it before `rclpy.init`. A profile that is set already stays."""
    os.environ.update(process_environment())  # children inherit the allocator settings as well
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another libc than glibc: slower, nothing else
        return
    for parameter, value in _MALLOPT.items():
        mallopt(ctypes.c_int(parameter), ctypes.c_int(value))
