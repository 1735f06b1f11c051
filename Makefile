# Everything starts from nothing: each target creates .venv when it is missing or out of date.
PYTHON ?= python3
PROFILE ?= quick
SEED ?= 0
JOBS ?= 2
EXTRAS = book,test,peers,cluster

BIN = .venv/bin
READY = .venv/ready
NOTEBOOKS = $(shell grep -lE '^jupytext:' -r book --include=*.md)
# Some chapters only: make html CHAPTERS="foundations/exact trees/path_dependent"
CHAPTERS =
SOME = $(if $(CHAPTERS),--toc _build/some/_toc.yml --path-output _build/some)
export OMP_NUM_THREADS = 1
export SHAPLAB_QUIET = 1
export PROFILE
export CHAPTERS

K =
.PHONY: help book html lab course editions slides figures pdf picture test test-fast test-unit test-random test-machines test-oldest test-notebooks test-pages chapter lint format clean bench executed
.NOTPARALLEL:

book: html  ## execute the chapters, build the pages, serve them and print the address
	$(BIN)/python book/_ext/serve.py $(if $(CHAPTERS),_build/some/)_build/html

html: executed  ## build without serving; with CHAPTERS="part/topic ..." only these, into _build/some/_build/html
	$(BIN)/jupyter-book build . -W -n --keep-going $(SOME)

executed: $(READY)
	$(BIN)/python book/_ext/run_chapters.py --profile $(PROFILE) --jobs $(JOBS)

chapter: $(READY)  ## run one chapter again: make chapter C=foundations/exact PROFILE=full SEED=3
	@test -n "$(C)" || { echo "Say which chapter: make chapter C=foundations/exact [PROFILE=full] [SEED=3]"; exit 2; }
	$(BIN)/python book/_ext/run_chapters.py $(C) --profile $(PROFILE) --seed $(SEED) --force

course: editions slides figures pdf  ## all that a lecturer hands out, in _build/course

editions: $(READY)  ## notebooks for students, without solutions, and for instructors
	$(BIN)/python book/_ext/course.py

slides: html  ## a deck of slides for each chapter, which needs no network
	$(BIN)/python book/_ext/slides.py

figures: $(READY)  ## all figures as files, with captions and alternative texts
	$(BIN)/python book/_ext/figures.py

pdf: html  ## the book on paper, solutions at the end
	$(BIN)/python book/_ext/printed.py

picture: $(READY)  ## draw the picture of README again
	$(BIN)/python book/_ext/readme_picture.py

lab: $(READY)  ## open a chapter in JupyterLab: make lab C=foundations/exact
	$(BIN)/python -c "import jupyterlab, jupyterlab_myst" 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[lab]"
	$(BIN)/python book/_ext/lab.py $(C)

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | while IFS="	" read -r name text; do printf '%-15s %s\n' "$$name" "$$text"; done

test: lint test-unit test-notebooks html test-pages  ## prove everything, as .ci/run does

test-fast: $(READY)  ## the unit tests that take seconds
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not peers and not book and not browser"

test-unit: $(READY)  ## all unit tests
	$(BIN)/python -m pytest -n $(JOBS) -m "not book and not browser"

# Property tests with new examples at every run, twenty times as many as `make test` has.
test-random: $(READY)  ## property tests with new examples
	SHAPLAB_RANDOM_TESTS=20 $(BIN)/python -m pytest -n $(JOBS) -m "not book and not browser" -k "$(K)" --timeout 3600 \
	  $$(grep -l "@examples" -r tests --include=test_*.py)

# The suite as other processors would run it: no vector units, other blockings of matrix products, two threads.
# What torch.compile keeps on disk belongs to one processor, so each setting has a place of its own.
test-machines: $(READY)  ## the suite as other processors would run it
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 OPENBLAS_CORETYPE=Nehalem \
	  NUMBA_CPU_NAME=nehalem NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4" TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/_build/inductor-default \
	  $(BIN)/python -m pytest -n $(JOBS) -m "not book and not browser" --timeout 600
	ATEN_CPU_CAPABILITY=avx2 OPENBLAS_CORETYPE=Haswell OMP_NUM_THREADS=2 TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/_build/inductor-avx2 \
	  $(BIN)/python -m pytest -n 1 -m "not book and not browser" --timeout 600

# The readers of tree models at the oldest versions that pyproject.toml declares.
OLDEST = _build/oldest
test-oldest:  ## the readers of tree models at their oldest versions
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check -q -r tests/oldest.txt
	PYTHONPATH=$(CURDIR) $(OLDEST)/bin/python -m pytest -p no:cacheprovider tests/trees tests/foundations tests/test_rows.py

# Every executed chapter runs a second time and must print the same again.
test-notebooks: executed
	PYTHONPATH=$(CURDIR):$(CURDIR)/book/_ext $(BIN)/python -m pytest -p no:cacheprovider -p ipc_kernels \
	  --nbval --nbval-current-env --nbval-sanitize-with tests/book/sanitize.cfg -n $(JOBS) --dist loadfile _build/executed/$(PROFILE)

test-pages: html
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "book or browser" tests

# Layout is ruff's: 100 columns for code, 80 for the cells of chapters, which is what a page shows.
lint: $(READY)  ## layout, errors and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/nbqa "ruff format" $(NOTEBOOKS) --check
	$(BIN)/nbqa "ruff check" $(NOTEBOOKS)
	$(BIN)/mypy

format: $(READY)  ## let ruff decide the layout
	$(BIN)/ruff format .
	$(BIN)/nbqa "ruff format" $(NOTEBOOKS)

bench: $(READY)  ## run all benchmarks
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove everything that was built
	rm -rf _build .venv .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@
