# make demo    the whole chain on a rendered world, a few minutes
# make test    the tests
# make check   style, types, import directions
# make lock    the lock files, anew from pyproject.toml
# make clean   what make made; studies and .contrafact stay

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
READY := $(VENV)/.ready
UV := $(VENV)/bin/uv
RUN := $(VENV)/bin/python -m

.PHONY: demo test check lock clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(VENV)/bin/contrafact demo $(ARGS)

# Two processes of one thread each: torch's own threads would fight over the same two cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses 2 --dist loadfile $(ARGS)

check: $(READY)
	$(RUN) ruff check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports

# uv is pinned by hash and installed by pip; everything else is pinned by hash and installed by uv.
$(READY): requirements-bootstrap.lock requirements-dev.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "Python is missing. Type: sudo apt-get install -y python3 python3-venv" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is older. Name another one: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing. Type: sudo apt-get install -y python3-venv" >&2; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --require-hashes -r requirements-dev.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

LOCK := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

lock: $(READY)
	$(UV) $(LOCK) pyproject.toml -o requirements.lock
	$(UV) $(LOCK) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	echo uv | $(UV) $(LOCK) - -o requirements-bootstrap.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
