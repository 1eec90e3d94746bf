# The short names for what CMake, ctest and tools/ do. `make help` lists them.
#
#   JOBS=N              parallel jobs (default: all processors)
#   SLUICE_NO_INSTALL=1 never call apt; say what is missing instead

JOBS ?= $(shell nproc)
SECONDS ?= 20
MODEL ?= models/three-voices
RELEASE = build/release
PYTHON ?= python3

.DEFAULT_GOAL := build
.PHONY: help deps build all demo test oracles python bench format check asan tsan fuzz tidy portable clean

help:
	@sed -n 's/^## \([a-z ]*\): \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

deps:
	@tools/install_debian.sh build

## build: the program, at build/release/sluice
build: deps
	@mkdir -p build
	@cmake --preset release >$(RELEASE).log 2>&1 || { cat $(RELEASE).log; exit 1; }
	@cmake --build $(RELEASE) --target sluice -j $(JOBS)

## all: the program, the tests and the micro-benchmarks
all: deps
	@cmake --preset release
	@cmake --build $(RELEASE) -j $(JOBS)

## demo: build, then the bundled model in three voices, with its experts
demo: build
	@MODEL=$(MODEL) tools/demo.sh $(RELEASE)/sluice

## test: everything that needs no network and no GPU
test: deps
	@JOBS=$(JOBS) tools/run_tests

## oracles: the Python environment that the oracle tests use, outside the tree
oracles: deps
	@tools/make_oracles

## python: the Python module, at build/release/python
python: deps
	@tools/install_debian.sh python
	@cmake --preset release >/dev/null
	@cmake --build $(RELEASE) --target sluice_python -j $(JOBS)

## bench: the micro-benchmarks of every op
bench: deps
	@cmake --preset release
	@cmake --build $(RELEASE) --target benches -j $(JOBS)
	@tools/run_benches $(RELEASE)

## format: rewrite the sources with the pinned clang-format
format:
	@tools/install_debian.sh lint
	@tools/format --write

## check: layers, sizes, formatting, links, generated documents
check: deps
	@tools/install_debian.sh lint
	@tools/check_all

## portable: build and test without any SIMD path
portable: deps
	@JOBS=$(JOBS) tools/run_variant portable

## asan: the tests under AddressSanitizer and UndefinedBehaviorSanitizer
asan: deps
	@JOBS=$(JOBS) tools/run_variant asan

## tsan: the engine's and pool's tests under ThreadSanitizer
tsan: deps
	@JOBS=$(JOBS) tools/run_variant tsan

## fuzz: every fuzzer for SECONDS seconds
fuzz: deps
	@tools/install_debian.sh lint
	@JOBS=$(JOBS) tools/run_fuzzers $(SECONDS)

## tidy: clang-tidy over the sources
tidy: deps
	@tools/install_debian.sh lint
	@JOBS=$(JOBS) tools/run_tidy

## clean: remove the build folder
clean:
	@rm -rf build
