# Two commands matter: `make demo` and `make test`. Both set up .venv themselves.
PYTHON ?= python3
VENV   ?= .venv
# pip's default for Linux is torch's CUDA build; for a CPU build give its file, or its index after the version.
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install
# uv does not read pip's settings.
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
UV     := $(BIN)/uv
SPEC   := setup.py pyproject.toml
LOCKS  := requirements

.PHONY: demo test test-no-torch test-extras test-oldest test-newest test-gpu-stubs test-robot robot-size fuzz lint format docs
.PHONY: students lock wheel clean

demo: $(VENV)/.robot
	$(BIN)/anyseg demo --out out/demo

# Two at a time: many tests wait for messages. Each of the two has a ROS domain of its own.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile --all-parts

# The robot's tests in an environment of their own: without torch, as on a robot; with the Python halves of CUDA and
# TensorRT and no driver, as torch's CUDA build brings them; beside a plugin that imports test modules, as launch_testing's.
# NO_TORCH_TESTS: words for pytest that leave some out.
NO_TORCH_VENV ?= .venv-no-torch
test-no-torch: $(VENV)/.test
	$(UV) venv --quiet --clear --seed --python $(BIN)/python $(NO_TORCH_VENV)
	$(UV) pip install --quiet --python $(NO_TORCH_VENV) --constraint $(LOCKS)/test.txt -e ".[ros,sim,replay,test]" $(GPU_HALVES)
	PYTHONPATH=test $(NO_TORCH_VENV)/bin/python -m pytest -n 2 --dist loadfile -p importing_plugin $(NO_TORCH_TESTS)
GPU_HALVES := "cuda-bindings>=12.8,<14" tensorrt-cu13-bindings==11.4.0.106

# Every extra in a fresh environment with nothing else, and there every command that README and docs give for it.
test-extras: $(VENV)/.test
	$(BIN)/python test/extras/run.py --uv $(UV) --torch "$(TORCH)" $(ONLY)

# Both ends of every range in setup.py, but that of [gpu], which needs a driver, and the newest torch.
RANGE_EXTRAS := ros sim replay train pretrained muses nyu potsdam openvino fleet events test
RANGE_TESTS ?= test/core/runtime test/ros/bags test/ros/pipeline $(ONE_EXPORT)
ONE_EXPORT := 'test/core/export/test_export.py::test_the_student_answers_as_the_network_does_on_every_subset[remove]'
test-oldest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-oldest test-newest: test-%: $(VENV)/.test
	$(UV) venv --quiet --clear --seed --python $(BIN)/python .venv-$*
	$(UV) pip compile --quiet setup.py $(RANGE_EXTRAS:%=--extra %) --override $(LOCKS)/no_torch.txt \
	  --resolution $(RESOLUTION) --python-version $$($(BIN)/python -c 'import platform; print(platform.python_version())') \
	  -o .venv-$*/requirements.txt
	$(UV) pip install --quiet --python .venv-$* --no-deps -r .venv-$*/requirements.txt
	$(UV) pip install --quiet --python .venv-$* -c .venv-$*/requirements.txt $(TORCH)
	PYTHONPATH=$(CURDIR) .venv-$*/bin/python -m pytest -n 2 --dist loadfile $(RANGE_TESTS)

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
ROBOT_TESTS := test/core/runtime test/ros/pipeline test/project/test_imports.py
test-robot:
	$(PYTHON) -m venv --clear $(ROBOT_VENV)
	$(ROBOT_VENV)/bin/pip install --no-deps --require-hashes -r $(LOCKS)/image.txt
	$(ROBOT_VENV)/bin/pip install -r $(LOCKS)/image.in "pytest>=8.2,<10" "pytest-timeout>=2.3,<3" "hypothesis>=6.100,<7" "onnx>=1.17,<2"
	$(ROBOT_VENV)/bin/python -m pytest $(ROBOT_TESTS)

# What a robot installs beside TensorRT, by package, for each kind of board; the limit is 300 MB.
robot-size: $(VENV)/.robot
	$(BIN)/python test/robot_size.py

# The documentation as a site, in out/site.
docs: $(VENV)/.docs
	$(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Simulate the data, then train, export and check every bundled student but `street` (hours on a CPU, minutes on a GPU).
students: $(VENV)/.test
	$(BIN)/anyseg simulate dataset datasets/vehicle_sim
	$(BIN)/anyseg simulate dataset datasets/vehicle_sim_640 --train-drives 640 --frames 6 --every-s 1.2 --size 288 384
	for name in vehicle_sim vehicle_sim_lite vehicle_sim_zero_fill pothole; do \
	  $(BIN)/anyseg train config/train/$$name.yaml --out runs/$$name --resume || exit 1; \
	done
	$(BIN)/anyseg export runs/vehicle_sim_lite anyseg_core/students/vehicle_sim --name vehicle_sim
	$(BIN)/anyseg export runs/vehicle_sim_zero_fill anyseg_core/students/vehicle_sim_zero_fill
	$(BIN)/anyseg export runs/pothole anyseg_core/students/pothole
	$(BIN)/anyseg train config/train/rgbd_sim.yaml --out runs/rgbd_sim --resume
	$(BIN)/anyseg export runs/rgbd_sim anyseg_core/students/rgbd_sim --precision fp16

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# What runs the demo: no torch, no GPU, no ROS distribution (rclpy comes as a wheel).
$(VENV)/.robot: $(VENV)/bin/python $(SPEC) $(LOCKS)/demo.txt
	@echo "make: the demo's packages go into $(VENV): 180 MB to download, 600 MB on disk."
	$(PIP) --no-deps --require-hashes -r $(LOCKS)/demo.txt
	$(PIP) --no-deps -e .
	touch $@

# What runs the tests: the above, torch, and the checkers.
$(VENV)/.test: $(VENV)/.robot $(LOCKS)/test.txt
	@echo "make: the tests' packages go into $(VENV): 0.5 GB to download, and $(TORCH), whose default for Linux is the CUDA"
	@echo "make: build: 2.7 GB more, 7 GB on disk in all. With less:"
	@echo "make:   make test TORCH='torch==2.13.0 --index-url INDEX'   with the CPU index that pytorch.org names"
	@echo "make:   make test-robot                                     the robot's tests alone, without torch"
	$(PIP) --no-deps --require-hashes -r $(LOCKS)/test.txt
	$(PIP) $(TORCH)
	$(PIP) --no-deps -e .
	$(BIN)/python -m pip check
	touch $@

# What builds the documentation: the above, for its reference is made from the code.
$(VENV)/.docs: $(VENV)/.test $(LOCKS)/docs.txt
	$(PIP) --no-deps --require-hashes -r $(LOCKS)/docs.txt
	$(PIP) --no-deps -e .
	touch $@

# The lock files anew, within setup.py's ranges; see requirements/README.md.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --upgrade --custom-compile-command "make lock"
NO_IMAGE := numpy sympy mpmath coloredlogs humanfriendly pyreadline3
lock: $(VENV)/.test
	$(LOCK) setup.py --extra ros --extra sim --extra replay -o $(LOCKS)/demo.txt
	$(LOCK) setup.py $(LOCKS)/test.in $(RANGE_EXTRAS:%=--extra %) --extra dev --override $(LOCKS)/no_torch.txt \
	  -c $(LOCKS)/demo.txt -o $(LOCKS)/test.txt
	$(LOCK) setup.py --extra docs -o $(LOCKS)/docs.txt
	$(LOCK) setup.py $(LOCKS)/image.in $(NO_IMAGE:%=--no-emit-package %) -o $(LOCKS)/image.txt

# The table of training methods, three seeds each, on whatever machine this is; killed, the same command goes on.
JOBS ?= 1
science: $(VENV)/.test
	$(BIN)/anyseg simulate dataset datasets/vehicle_sim --test-drives 20
	$(BIN)/anyseg bench methods config/train/ablation/vehicle_sim.yaml --out runs/ablation --jobs $(JOBS)

clean:
	rm -rf $(VENV) .venv-* build install log dist *.egg-info .pytest_cache .ruff_cache
