# Everything here sets itself up: the virtual environment is made on first use and remade when the
# project's metadata changes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# how long `make fuzz` works on each kind of file
SECONDS ?= 20
# what training is tested with; TORCH="torch --index-url https://download.pytorch.org/whl/cpu" is smaller where a
# plain torch comes with CUDA
TORCH ?= torch==2.13.0

.PHONY: demo test check fuzz bench clean

$(READY): setup.cfg pyproject.toml proto/caffe.proto proto/forks.proto proto/build_backend.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[demo,plot,test,check]"
	@# plyvel has no wheel for every Python; without it the tests of LevelDB are skipped.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary plyvel plyvel \
		|| echo "no plyvel for this Python: LevelDB databases are not tested"
	@# torch is large and has wheels for some Pythons alone; without it the tests of training are skipped.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary torch $(TORCH) \
		|| echo "no torch: training is not tested"
	touch $(READY)

demo: $(READY)  ## quantize the embedded example
	models/digits/demo.sh $(abspath $(BIN))

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest

check: $(READY)  ## style, types, import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(READY)  ## feed the readers damaged files, each kind for SECONDS; findings go to build/fuzz
	@# atheris has no wheel for every Python; without it hypothesis makes the inputs.
	@$(BIN)/python -c "import atheris" 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary atheris --editable ".[fuzz]" \
		|| echo "no atheris for this Python: hypothesis is used"
	$(BIN)/python fuzz/run.py --seconds $(SECONDS)

bench: $(READY)  ## time nets and searches; NETS="lenet vgg16" chooses
	$(BIN)/python -m benchmarks $(NETS)

clean:
	rm -rf $(VENV) build dist *.egg-info
