# make demo   six stand-in systems of real people, scored under lite/1
# make test   the tests (two at a time)      make test-all   also those of minutes      make lint   ruff and mypy
# make pages  the metrics' modules, pages and index from the protocols' tables
# Each does all of its own set-up, says what it does, and does nothing twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SYSTEMS := copy recompressed blurred frozen swapped garbled

.PHONY: demo test test-all lint pages setup weights teaser clean

demo: teaser
	@echo "== scoring six systems on three regions (resumes where it was stopped)"
	$(BIN)/jwb-dh score $(addprefix systems/,$(SYSTEMS)) --data jwb-dh-v1 --protocol lite --out runs/demo

test: teaser
	@echo "== tests"
	JWB_TEASER=$(CURDIR)/jwb-dh-v1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: teaser
	@echo "== tests, also the slow ones"
	JWB_TEASER=$(CURDIR)/jwb-dh-v1 $(BIN)/python -m pytest -n 2 --dist loadfile --run-slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

pages: setup
	$(BIN)/python tools/pages.py

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt $(wildcard tools/torchvision_cpu_ops/*)
	@echo "== virtual environment and packages in $(VENV) (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[lite,standard,dwpose,judge,asr,demo,scale,test]"
	@$(BIN)/python -c "import torchvision" 2>/dev/null || { \
	  echo "== torchvision's operators do not fit this torch: declaring them (tools/torchvision_cpu_ops)"; \
	  $(BIN)/python -m pip install --quiet ./tools/torchvision_cpu_ops; }
	@touch $@

weights: setup
	@echo "== weights and media of lite/1 (about 150 MB the first time, each file checked by sha256)"
	@$(BIN)/jwb-dh weights fetch --protocol teaser

teaser: weights
	@echo "== the teaser: a small real dataset and six stand-in systems"
	@$(BIN)/jwb-dh teaser --out jwb-dh-v1 --systems systems

clean:
	rm -rf $(VENV) jwb-dh-v1 systems runs build *.egg-info tools/*/build tools/*/*.egg-info
