# Two commands on a fresh machine with Python and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow sweep board gallery rules bench-ops bench-layers bench-kernels gpu-check sanitize lint lint-types lint-examples clean

demo: $(VENV)/.installed
	$(BIN)/metric-zoo demo --out build/demo

# Two workers of one thread each: most of the tests' time is not spent where threads help.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# What would take the tests beyond a quarter of an hour: another quarter.
test-slow: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

# Every registered architecture, about three hours on 2 cores; it goes on where it was interrupted.
sweep: $(VENV)/.installed
	$(BIN)/metric-zoo conversion sweep --out docs

# The leaderboard from the committed records: a site in build/board, and its tables and picture that are committed.
BROWSER := $(firstword $(shell command -v chromium || command -v chromium-browser || command -v google-chrome))
SHOT := --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,800
board: $(VENV)/.installed
	$(BIN)/metric-zoo leaderboard publish leaderboards/results --out build/board \
		--kernels docs/kernels.json --operators docs/operators.json --conversion docs/conversion.csv --strict
	cp build/board/leaderboard.md build/board/leaderboard.csv leaderboards/published
	$(if $(BROWSER),timeout 60 $(BROWSER) $(SHOT) --screenshot=docs/leaderboard.png file://$(CURDIR)/build/board/classification.html \
		>/dev/null 2>&1,@echo "docs/leaderboard.png stays as it is: there is no Chromium")

# The pictures of docs/gallery.md, a few minutes.
gallery: $(VENV)/.installed
	$(BIN)/python docs/gallery.py

# docs/rules.md, what each number of a sampling rule buys, from the committed records.
rules: $(VENV)/.installed
	$(BIN)/python docs/rules.py

# The operators beside a dense convolution and torchvision's deformable one, about twenty minutes on 2 cores.
bench-ops: $(VENV)/.installed
	$(BIN)/metric-zoo ops bench --out docs

# A layer of every kind, head included, forward with backward; five minutes on 2 cores.
bench-layers: $(VENV)/.installed
	$(BIN)/metric-zoo ops layers --out docs

# Sparse kernel complexes beside low-rank, tempered and dense filters, half an hour and more on 2 cores.
bench-kernels: $(VENV)/.installed
	$(BIN)/metric-zoo kernels bench --out docs

# The triton backend on a CUDA device: right, and how fast; one JSON. It is meant to take less than eight minutes.
gpu-check: $(VENV)/.installed
	$(BIN)/metric-zoo ops gpu-check

# The tests of the operators on a library that stops at the first address or undefined operation that is wrong.
SANITIZED := build/sanitize/libmetric_zoo.so
sanitize: $(VENV)/.installed
	mkdir -p $(dir $(SANITIZED))
	$(CXX) -std=c++17 -O1 -g -fPIC -shared -fopenmp -fno-omit-frame-pointer -Wno-unknown-pragmas \
		-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all \
		metric_zoo/ops/backends/native/csrc/*.cpp -o $(SANITIZED)
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" METRIC_ZOO_LIBRARY=$(SANITIZED) \
		$(BIN)/python -m pytest tests/ops --ignore tests/ops/test_triton.py

# What a reader, a type checker and a compiler's formatter see, and the examples of docstrings; the slow two side by side.
lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror metric_zoo/ops/backends/native/csrc/*
	$(MAKE) --no-print-directory --jobs 2 lint-types lint-examples

lint-types: $(VENV)/.installed
	.ci/types $(BIN)

lint-examples: $(VENV)/.installed
	$(BIN)/python -m tests.doctests

# torch and torchvision come in ONE resolution, so that the registry's newest matching pair is chosen.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	# Trained denoisers to compare with: its files only, not what it needs to run.
	$(BIN)/python -m pip install --quiet --no-deps scico==0.0.7
	touch $@

clean:
	rm -rf $(VENV) build
