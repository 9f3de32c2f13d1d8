"""Fetch and build what the tests marked `gpu_stubs` need; `make test-gpu-stubs` runs it. Some four minutes, once.

    python test/gpu_stubs/prepare.py [FOLDER]

FOLDER is `$ANYSEG_GPU_STUBS`, else `~/.cache/anyseg_ros/gpu_stubs`. In it, for this Python:

    tensorrt-VERSION/   the real bindings, which load over native libraries that answer nothing (native_stubs.c)
    tensorrt_rtx/       TensorRT-RTX as it is: it builds engines without a GPU
    pycuda/             pycuda, built against the CUDA headers of NVIDIA's wheels
    cuda_bindings/      cuda.bindings
    driver/             libcuda.so.1 of test_driver.c: CUDA's driver interface with the host's memory

It needs a C and C++ compiler and a package index. A part that is there already is left as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
BINDINGS = {"10.3.0": "cu12", "10.13.3.9": "cu12", "11.4.0.106": "cu13"}
"""TensorRT of JetPack 6, of JetPack 7, and of today's desktop; and the CUDA that its wheel is named after."""
PYCUDA = "pycuda==2026.1"
PYCUDA_NEEDS = ("pytools", "platformdirs", "mako", "numpy")
CUDA_HEADERS = ("nvidia-cuda-runtime-cu12==12.9.79", "nvidia-cuda-profiler-api-cu12==12.9.79")
CUDA_BINDINGS = "cuda-bindings>=12.8,<14"
TENSORRT_RTX = "tensorrt-rtx>=1.7,<2"


def stubs_folder() -> Path:
    """Where the parts are, for this version of Python."""
    root = os.environ.get("ANYSEG_GPU_STUBS") or Path.home() / ".cache" / "anyseg_ros" / "gpu_stubs"
    return Path(root) / f"python{sys.version_info.major}.{sys.version_info.minor}"


def prepare(folder: Path) -> list[str]:
    """Make every part that is missing; returns those that could not be made, each with the reason."""
    parts: dict[str, Callable[[Path], None]] = {
        "driver": _compile_driver,
        **{f"tensorrt-{version}": _fetch_bindings for version in BINDINGS},
        "tensorrt_rtx": lambda part: _pip_install(part, TENSORRT_RTX, "numpy"),
        "cuda_bindings": lambda part: _pip_install(part, CUDA_BINDINGS, "numpy"),
        "pycuda": _build_pycuda,
    }
    failures = []
    for name, make in parts.items():
        if (folder / name).is_dir():
            continue
        print(f"{name} ...", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / name
            made.mkdir()
            try:
                make(made)
            except subprocess.CalledProcessError as error:
                failures.append(f"{name}: {(error.stderr or error.stdout or str(error)).strip()[-500:]}")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            shutil.move(made, folder / name)
    return failures


def _compile_driver(part: Path) -> None:
    _compile(HERE / "test_driver.c", part / "libcuda.so.1")


def _fetch_bindings(part: Path) -> None:
    version = part.name.partition("-")[2]
    major = version.partition(".")[0]
    _download(part, f"tensorrt-{BINDINGS[version]}-bindings=={version}")
    (part / "lib").mkdir()
    for library in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        _compile(HERE / "native_stubs.c", part / "lib" / f"lib{library}.so.{major}")


def _build_pycuda(part: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        headers, sources = Path(scratch) / "cuda", Path(scratch) / "pycuda"
        _download(headers, *CUDA_HEADERS)
        includes = [str(path) for path in headers.glob("nvidia/*/include")]
        _compile(HERE / "test_driver.c", headers / "libcuda.so.1")
        (headers / "libcuda.so").symlink_to(headers / "libcuda.so.1")
        sources.mkdir()
        _pip("download", "--no-deps", "--no-binary", "pycuda", "-d", str(sources), PYCUDA)
        archive = next(sources.glob("*.tar.gz"))
        shutil.unpack_archive(archive, sources)
        tree = next(path for path in sources.iterdir() if path.is_dir())
        settings = f"CUDA_INC_DIR = {includes!r}\nCUDADRV_LIB_DIR = [{str(headers)!r}]\nCUDA_ENABLE_CURAND = False\n"
        (tree / "siteconf.py").write_text(settings)
        _pip_install(part, str(tree), *PYCUDA_NEEDS)


def _compile(source: Path, library: Path) -> None:
    compiler = os.environ.get("CC", "cc")
    _run(compiler, "-shared", "-fPIC", "-O1", "-pthread", f"-Wl,-soname,{library.name}", "-o", library, source, "-ldl")


def _download(target: Path, *requirements: str) -> None:
    """Unpack wheels without what they require."""
    with tempfile.TemporaryDirectory() as scratch:
        _pip("download", "--no-deps", "--only-binary", ":all:", "-d", scratch, *requirements)
        for wheel in Path(scratch).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)


def _pip_install(target: Path, *requirements: str) -> None:
    _pip("install", "--target", str(target), *requirements)


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, text=True, capture_output=True)


def main() -> int:
    """Prints what is missing; the exit code says whether anything is."""
    folder = stubs_folder() if len(sys.argv) < 2 else Path(sys.argv[1])
    failures = prepare(folder)
    for failure in failures:
        print(f"not made: {failure}", file=sys.stderr)
    print(f"parts for the tests marked gpu_stubs: {folder}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
