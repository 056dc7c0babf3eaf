# Each target sets up what it needs. Needs: python3.11, make, the package index.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
CONFIG := configs/quickstart.py
RUN := runs/quickstart
DATA := runs/data/quickstart
BLANK := 'An array of the same <extra_id_0> as the first input.'
QUICKSTART_FLAGS ?=
TESTS := $(BIN)/python -m pytest
FAST := -n 2 --dist loadfile -m "not slow and not parity"
# Pythons that get the newest packages that pyproject.toml allows, unless PINS="jax<0.12" or the like.
MATRIX ?= 3.12 3.13
PINS ?=

.PHONY: quickstart test test-matrix test-newest test-all lint format bench plans docs lock clean

quickstart: $(VENV)/installed $(DATA)/quickstart.mixture.json
	$(BIN)/t5jax train $(CONFIG) $(QUICKSTART_FLAGS)
	@echo; echo "On source files that training never saw, with the class that is most frequent there beside it:"
	@$(BIN)/t5jax evaluate $(RUN) --only metrics --show 3
	@echo; echo "A sentence of no file, and the model's word for its blank:"
	@echo '  '$(BLANK)
	@$(BIN)/t5jax predict $(RUN) $(BLANK) | sed 's/^/  /'
	@echo; echo "Loss curve: $(RUN)/loss.png    TensorBoard: $(BIN)/tensorboard --logdir $(RUN)"
	@echo "Next:"
	@echo "  source $(BIN)/activate"
	@echo "  t5jax train $(CONFIG) --train.num-train-steps 5000     # goes on where this run ended"
	@echo "  t5jax predict $(RUN) 'The <extra_id_0> must be a string.'"
	@echo "  t5jax inspect data $(CONFIG) --step 10                 # what the model sees"
	@echo "  t5jax inspect model configs/t5_1_1_base_c4.py          # a real size"

# Text, vocabulary and token stores, once; who is killed goes on with the same command.
$(DATA)/quickstart.mixture.json: | $(VENV)/installed
	$(BIN)/python -m t5jax.data.docstring_corpus.rows $(DATA)/text
	test -e $(DATA)/vocabulary.model || \
		$(BIN)/t5jax vocab train $(CONFIG) --num-pieces 2000 --max-characters 5000000
	$(BIN)/t5jax cache $(CONFIG)

test: $(VENV)/installed
	$(TESTS) $(FAST)

# The fast tests with the lock, then with each Python of MATRIX.
test-matrix: $(UV)
	@failed=; for part in test test-newest; do \
		$(MAKE) --no-print-directory $$part || failed="$$failed $$part"; \
	done; \
	if [ -n "$$failed" ]; then echo "test-matrix: FAILED:$$failed"; exit 1; fi

test-newest: $(UV)
	@failed=; for version in $(MATRIX); do \
		if ! .ci/find_python $$version $(UV) >/dev/null; then \
			echo "test-newest: SKIPPED Python $$version, which is not installed here"; continue; \
		fi; \
		$(MAKE) --no-print-directory $(VENV)-$$version/installed && \
		$(UV) pip list --python $(VENV)-$$version/bin/python | grep -E "^(jax|flax|optax|numpy) " && \
		$(VENV)-$$version/bin/python -m pytest $(FAST) || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "test-newest: FAILED on Python$$failed"; exit 1; fi

test-all: $(VENV)/installed-parity $(VENV)/installed-plan $(VENV)/installed-lint $(VENV)/transformers-4.46/installed
	$(TESTS) -n 2 --dist loadfile -m "not parity"
	XLA_FLAGS= $(TESTS) -n 2 --dist loadfile -m parity

lint: $(VENV)/installed-parity $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/shellcheck .ci/run .ci/find_python .ci/engines launch/*.sh launch/*/*.sh launch/slurm/*.sbatch
	$(BIN)/python -m tests.launch.kubernetes_schema launch/gke/*.yaml

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site in build/site; a broken link or an unresolved name fails.
docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict --site-dir build/site

bench: $(VENV)/installed-parity
	$(BIN)/python benchmarks/data_loader.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/decode.py

# Predictions for the pre-training configs on their hardware: docs/plans.md and the configs' headers.
# Compiles what is missing, minutes each; who is killed goes on with the same command.
plans: $(VENV)/installed-plan
	$(BIN)/python -m benchmarks.plans

# Exact versions, with hashes, for Python 3.11; from the ranges in pyproject.toml.
lock: $(VENV)/installed
	$(UV) pip compile pyproject.toml --extra dev --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url -o requirements.lock
	# torch names the CUDA libraries it needs itself; pinning them here would force them on CPUs.
	$(UV) pip compile pyproject.toml --extra dev --extra parity --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url \
		| grep -vE "^(nvidia-|cuda-|triton)" > requirements-parity.lock

	$(UV) pip compile pyproject.toml --extra dev --extra docs --python-version 3.11 \
		--constraint requirements.lock --no-header --no-annotate --no-emit-index-url \
		-o requirements-docs.lock
	$(UV) pip compile pyproject.toml --extra plan --extra plan-gpu --python-version 3.11 \
		--constraint requirements.lock --no-header --no-annotate --no-emit-index-url \
		| grep -E "^(jax|jaxlib|libtpu|requests|jax-cuda.*)==" > requirements-plan.lock
	$(UV) pip compile pyproject.toml --extra gcs --extra gcs-fake --python-version 3.11 \
		--constraint requirements.lock --no-header --no-annotate --no-emit-index-url \
		| grep -vE "^($$(grep -oE '^[A-Za-z0-9_.-]+==' requirements.lock | paste -sd '|'))" > requirements-gcs.lock
	$(UV) pip compile pyproject.toml --extra lint --python-version 3.11 \
		--constraint requirements.lock --no-header --no-annotate --no-emit-index-url \
		| grep -vE "^($$(grep -oE '^[A-Za-z0-9_.-]+==' requirements.lock | paste -sd '|'))" > requirements-lint.lock

clean:
	rm -rf $(VENV) $(VENV)-* runs build dist .pytest_cache .ruff_cache

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"

# Compiled to bytecode here: where PYTHONDONTWRITEBYTECODE is set, as container images do, every process
# would else compile all that it imports, and the tests start many.
$(VENV)/installed: $(UV) requirements.lock pyproject.toml
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

# Made anew each time that pyproject.toml changes, so that nothing older than the newest stays.
$(VENV)-%/installed: $(UV) pyproject.toml
	"$$(.ci/find_python $* $(UV))" -m venv --clear $(VENV)-$*
	$(UV) pip install --quiet --compile-bytecode --python $(VENV)-$*/bin/python \
		-e ".[dev]" $(foreach pin,$(PINS),'$(pin)')
	@touch $@

# pip, not uv: it takes a CPU build of torch where the machine is set up to offer one.
$(VENV)/installed-parity: $(VENV)/installed requirements-parity.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-parity.lock
	@touch $@

# A second transformers for tests/convert/test_written_by_transformers.py; torch is the first one's.
$(VENV)/transformers-4.46/installed: requirements-transformers-4.46.lock $(UV)
	rm -rf $(VENV)/transformers-4.46
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --target $(VENV)/transformers-4.46 -r $<
	@touch $@

# libtpu and JAX's CUDA plugin (600 MB), with which `t5jax plan` and its tests compile for what is not
# here. --no-deps: CUDA itself is not needed.
$(VENV)/installed-plan: $(VENV)/installed requirements-plan.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -r requirements-plan.lock
	@touch $@

# gcsfs, and a Cloud Storage that runs on this machine, for the tests of runs in buckets.
$(VENV)/installed-gcs: $(VENV)/installed requirements-gcs.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -r requirements-gcs.lock
	@touch $@

# jsonschema, for the manifests of launch/gke.
$(VENV)/installed-lint: $(VENV)/installed requirements-lint.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -r requirements-lint.lock
	@touch $@

# Slurm and OpenSSH's server (by apt-get, where that may be), Open MPI 5 and MPICH, which the tests of the
# launch scripts start on this machine. The two MPIs have programs of the same names: a folder each.
$(VENV)/installed-engines: $(UV) requirements-engines.lock .ci/engines
	.ci/engines
	while read -r pin; do \
		$(UV) pip install --quiet --no-deps --python $(BIN)/python \
			--prefix "$(VENV)/engines/$${pin%%==*}" "$$pin" || exit 1; \
	done < requirements-engines.lock
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed requirements-docs.lock
	$(UV) pip install --quiet --python $(BIN)/python -r requirements-docs.lock
	@touch $@
