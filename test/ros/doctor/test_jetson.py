"""What `anyseg doctor` reads of a Jetson, from file systems made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyseg_ros.doctor import doctor
from anyseg_ros.doctor.doctor import Level
from anyseg_ros.doctor.jetson import read_jetson

RELEASE = (
    "# R{} (release), REVISION: {}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8 01:49:37 UTC 2025\n"
)
NVPMODEL = """\
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
CPU_ONLINE CORE_0 1
< PM_CONFIG DEFAULT=1 >
"""


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """An Orin Nano on JetPack 6.2 in its 25 W mode."""
    write(tmp_path, "etc/nv_tegra_release", RELEASE.format(36, "4.3"))
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0")
    write(tmp_path, "etc/nvpmodel.conf", NVPMODEL)
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0001 fmode:fanNull")
    write(tmp_path, "sys/class/devfreq/17000000.gpu/cur_freq", "306000000\n")
    write(tmp_path, "sys/class/devfreq/17000000.gpu/max_freq", "918000000\n")
    write(tmp_path, "proc/meminfo", "MemTotal:        7802080 kB\nMemFree: 100 kB\nMemAvailable:    1500000 kB\n")
    return tmp_path


def test_an_orin_nano(orin: Path) -> None:
    jetson = read_jetson(orin)
    assert jetson is not None
    assert jetson.board == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert (jetson.linux, jetson.jetpack, jetson.supported) == ("36.4.3", "6.2", True)
    assert (jetson.mode, jetson.modes) == ("25W", ("15W", "25W", "MAXN_SUPER"))
    assert (jetson.gpu_mhz, jetson.memory_mb) == ((306, 918), (1464, 7619))


def test_the_doctor_says_what_is_slow_and_what_to_do(orin: Path) -> None:
    findings = {finding.subject: finding for finding in doctor._jetson(orin)}
    assert findings["Jetson"].level is Level.OK
    assert findings["Power mode"].level is Level.OPTIONAL
    assert "number of MAXN_SUPER" in findings["Power mode"].remedy
    assert "jetson_clocks" in findings["GPU clock"].remedy
    assert findings["Memory"].detail == "1464 of 7619 MB available to CPU and GPU together"
    assert all((f.level is Level.OK) == (not f.remedy) for f in findings.values())


def test_at_full_speed_nothing_is_to_be_done(orin: Path) -> None:
    write(orin, "var/lib/nvpmodel/status", "pmode:0002")
    write(orin, "sys/class/devfreq/17000000.gpu/cur_freq", "918000000\n")
    write(orin, "proc/meminfo", "MemTotal: 7802080 kB\nMemAvailable: 5500000 kB\n")
    findings = list(doctor._jetson(orin))
    assert len(findings) == 4
    assert {f.level for f in findings} == {Level.OK}


@pytest.mark.parametrize(
    ("release", "revision", "jetpack", "supported"),
    [
        ("36", "3.0", "6.0", True),
        ("36", "4.0", "6.1", True),
        ("36", "4.7", "6", True),
        ("36", "5.0", "6.2.2", True),
        ("38", "2.0", "7.0", True),
        ("38", "4.0", "7.1", True),
        ("39", "1.2", "7", True),
        ("39", "2.0", "7.2", True),
        ("35", "6.0", "5", False),
        ("50", "1", "unknown", False),
    ],
)
def test_jetpack_of_jetson_linux(tmp_path: Path, release: str, revision: str, jetpack: str, supported: bool) -> None:
    write(tmp_path, "etc/nv_tegra_release", RELEASE.format(release, revision))
    jetson = read_jetson(tmp_path)
    assert jetson is not None
    assert (jetson.jetpack, jetson.supported) == (jetpack, supported)
    level = next(iter(doctor._jetson(tmp_path))).level
    assert level is (Level.OK if supported else Level.MISSING)


def test_another_machine_is_no_jetson(tmp_path: Path) -> None:
    assert read_jetson(tmp_path) is None
    assert list(doctor._jetson(tmp_path)) == []


@given(texts=st.lists(st.text(max_size=60), min_size=6, max_size=6))
def test_files_of_any_content_break_nothing(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "odd"
    names = ["proc/device-tree/model", "etc/nvpmodel.conf", "var/lib/nvpmodel/status", "proc/meminfo"]
    names += [f"sys/class/devfreq/gpu/{name}_freq" for name in ("cur", "max")]
    for name, text in zip(names, texts, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode(errors="replace"))
    write(root, "etc/nv_tegra_release", RELEASE.format(36, "4.3"))
    assert read_jetson(root) is not None
    assert list(doctor._jetson(root))
