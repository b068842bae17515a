# Everything here sets itself up: the virtual environment is made on first use and remade when the
# project's metadata changes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
EXTRAS ?= plot,report,test,check
# where the other environments are that `make test-oldest` and `make test-pythons` test in
VENVS ?= .venvs
OLDEST := $(VENVS)/oldest
# `make demo` needs the package alone; an environment of the tests is used if there is one
DEMO := $(if $(wildcard $(READY)),$(VENV),$(VENVS)/demo)
PYTHONS ?= 3.10 3.11 3.12 3.13
# passed on to pytest: ARGS="-x tests/caffe_io"
ARGS ?=
# how many processes `make test-random` tests in
JOBS ?= 2
# how long `make fuzz` works on each kind of file
SECONDS ?= 20
# what training is tested with; TORCH="torch --index-url https://download.pytorch.org/whl/cpu" is smaller where a
# plain torch comes with CUDA, and TORCH= leaves training untested
TORCH ?= torch==2.13.0

METADATA := setup.cfg pyproject.toml proto/caffe.proto proto/forks.proto proto/build_backend.py
PIP := -m pip install --quiet --disable-pip-version-check
# torch is large and has wheels for some Pythons only; without it the tests of training are skipped.
with_torch = $(if $(TORCH),$(1)/bin/python $(PIP) --only-binary torch $(TORCH) ||) echo "no torch: training is not tested"

.PHONY: demo test test-random test-oldest test-pythons check schema fuzz bench docs clean

$(READY): $(METADATA)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) --editable ".[$(EXTRAS)]"
	@# plyvel has no wheel for every Python; without it the tests of LevelDB are skipped.
	@$(BIN)/python $(PIP) --only-binary plyvel plyvel \
		|| echo "no plyvel for this Python: LevelDB databases are not tested"
	@$(call with_torch,$(VENV))
	touch $(READY)

# uv installs the lowest versions that setup.cfg allows. The floors have wheels for these two Pythons.
$(OLDEST)/ready: $(METADATA)
	python=$$(.ci/find-python 3.11 3.10) && $$python -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python $(PIP) uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct \
		--editable ".[leveldb,plot,report,test]"
	@$(call with_torch,$(OLDEST))
	touch $(OLDEST)/ready

$(VENVS)/demo/ready: $(METADATA)
	$(PYTHON) -m venv --clear $(VENVS)/demo
	$(VENVS)/demo/bin/python $(PIP) --editable .
	touch $(VENVS)/demo/ready

demo: $(DEMO)/ready  ## quantize the embedded example
	models/digits/demo.sh $(DEMO)/bin

test: $(READY)  ## run the tests; ARGS are pytest's
	$(BIN)/python -m pytest $(ARGS)

test-random: SEED := $(or $(SEED),$(shell od -An -N2 -tu2 /dev/urandom))
test-random: $(READY)  ## run the tests in random order, in JOBS processes; SEED=N repeats an order
	$(BIN)/python -m pytest -n $(JOBS) -p randomly --randomly-seed=$(strip $(SEED)) $(ARGS)

test-oldest: $(OLDEST)/ready  ## run the tests with the lowest versions of all dependencies that setup.cfg allows
	@# Old libraries and new ones that they depend on deprecate each other's calls: "make test" is where that counts.
	$(OLDEST)/bin/python -m pytest -W ignore::DeprecationWarning $(ARGS)

test-pythons:  ## run the tests on each of PYTHONS that there is
	MAKE="$(MAKE)" VENVS="$(VENVS)" .ci/test-pythons $(PYTHONS)

check: $(READY)  ## style, types, import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schema: $(if $(wildcard $(READY)),,$(READY))  ## compile proto/*.proto into ristretto_cli/caffe_io/caffe.desc
	@# The compiler is installed for the build alone: its protobuf is not ours to choose.
	$(BIN)/python $(PIP) --no-deps --editable .
	$(BIN)/python -c "from ristretto_cli.caffe_io import messages; messages.new('NetParameter')"

fuzz: $(READY)  ## feed the readers damaged files, each kind for SECONDS; findings go to build/fuzz
	@# atheris has no wheel for every Python; without it hypothesis makes the inputs.
	@$(BIN)/python -c "import atheris" 2>/dev/null \
		|| $(BIN)/python $(PIP) --only-binary atheris --editable ".[fuzz]" \
		|| echo "no atheris for this Python: hypothesis is used"
	$(BIN)/python fuzz/run.py --seconds $(SECONDS)

bench: $(READY)  ## time nets and searches; NETS="lenet vgg16" chooses
	$(BIN)/python -m benchmarks $(NETS)

docs: $(READY)  ## regenerate docs/reference and the index of decisions, and build the site in build/site
	$(BIN)/python docs/generate.py
	@$(BIN)/python -c "import material" 2>/dev/null || $(BIN)/python $(PIP) --editable ".[docs]"
	$(BIN)/python docs/build_site.py

clean:
	rm -rf $(VENV) $(VENVS) build dist *.egg-info
