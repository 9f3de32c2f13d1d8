# Two commands matter: `make demo` and `make test`. Both set up .venv themselves.
PYTHON ?= python3
VENV   ?= .venv
# pip's default torch for Linux brings CUDA (gigabytes); set TORCH to a CPU build where that is not wanted.
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SPEC   := setup.py pyproject.toml

.PHONY: demo test test-gpu-stubs test-robot robot-size fuzz lint format students wheel clean

demo: $(VENV)/.robot
	$(BIN)/anyseg demo --out out/demo

# Two at a time: many tests wait for messages. Each of the two has a ROS domain of its own.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

# A million malformed messages; RUNS=... for another number. Guided by coverage where atheris is installed.
RUNS ?= 1000000
fuzz: $(VENV)/.test
	$(BIN)/python test/fuzz/run.py --runs $(RUNS)

# The tests that need CUDA's and TensorRT's own libraries but no GPU: fetches and builds those first (minutes, once).
GPU_STUBS ?= $(HOME)/.cache/anyseg_ros/gpu_stubs
test-gpu-stubs: $(VENV)/.test
	ANYSEG_GPU_STUBS=$(GPU_STUBS) $(BIN)/python test/gpu_stubs/prepare.py
	ANYSEG_GPU_STUBS=$(GPU_STUBS) $(BIN)/python -m pytest -m gpu_stubs

# The runtime with what a robot installs and nothing else, on any Python: `make test-robot PYTHON=python3.10`.
ROBOT_VENV ?= .venv-robot
test-robot:
	$(PYTHON) -m venv --clear $(ROBOT_VENV)
	$(ROBOT_VENV)/bin/pip install --quiet -r docker/robot.txt "pytest>=8,<10" "pytest-timeout>=2.3,<3" "hypothesis>=6.100,<7" "onnx>=1.17,<2"
	$(ROBOT_VENV)/bin/pip install --quiet --no-deps -r docker/onnxruntime.txt
	$(ROBOT_VENV)/bin/python -m pytest test/core/runtime/test_*.py test/core/runtime/engines/test_runtime_engine.py test/core/runtime/health test/ros/pipeline/test_pipeline.py test/project/test_imports.py

# What a robot installs beside TensorRT, by package, for each kind of board; the limit is 300 MB.
robot-size: $(VENV)/.robot
	$(BIN)/python test/robot_size.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Simulate the data, then train, export and check every bundled student (hours on a CPU, minutes on a GPU).
students: $(VENV)/.test
	$(BIN)/anyseg simulate dataset datasets/vehicle_sim
	for name in vehicle_sim vehicle_sim_continued vehicle_sim_zero_fill pothole; do \
	  $(BIN)/anyseg train config/train/$$name.yaml --out runs/$$name --resume || exit 1; \
	done
	$(BIN)/anyseg export runs/vehicle_sim_continued anyseg_core/students/vehicle_sim --name vehicle_sim
	$(BIN)/anyseg export runs/vehicle_sim_zero_fill anyseg_core/students/vehicle_sim_zero_fill
	$(BIN)/anyseg export runs/pothole anyseg_core/students/pothole
	$(BIN)/anyseg train config/train/rgbd_sim.yaml --out runs/rgbd_sim --resume
	$(BIN)/anyseg export runs/rgbd_sim anyseg_core/students/rgbd_sim --precision fp16

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# What runs the demo: no torch, no GPU, no ROS distribution (rclpy comes as a wheel).
$(VENV)/.robot: $(VENV)/bin/python $(SPEC)
	$(PIP) -e ".[ros,sim,replay]"
	touch $@

# What runs the tests: the above, torch, and the checkers.
$(VENV)/.test: $(VENV)/.robot
	$(PIP) "$(TORCH)"
	$(PIP) -e ".[ros,sim,replay,train,test,dev]"
	touch $@

# The table of training methods, three seeds each, on whatever machine this is; killed, the same command goes on.
JOBS ?= 1
science: $(VENV)/.test
	$(BIN)/anyseg simulate dataset datasets/vehicle_sim --test-drives 20
	$(BIN)/anyseg bench methods config/train/ablation/vehicle_sim.yaml --out runs/ablation --jobs $(JOBS)

clean:
	rm -rf $(VENV) build install log dist *.egg-info .pytest_cache .ruff_cache
