# The front door: `make help` says what there is. Every target sets itself up first.

.DEFAULT_GOAL := help
ARGS ?=
BIN := .venv/bin

# One stamp for each place of the checkout: a moved or copied environment holds the old paths and is made anew.
STAMP := .venv/.installed-$(shell pwd | cksum | cut -d' ' -f1)
MANIFESTS := pyproject.toml uv.lock $(wildcard */pyproject.toml */*/pyproject.toml)

.PHONY: help install demo test test-unit test-flow test-kafka test-corpus chaos waits coverage benchmark benchmark-check benchmark-faiss benchmark-store \
	benchmark-retrieval benchmark-search check check-format \
	check-lint check-types check-imports check-docs format docs kafka opensearch postgres clean

help: ## this list (0 s)
	@awk 'BEGIN { FS = ":.*## "; print "make TARGET [ARGS=...]\n" } \
		/^[a-z-]+:.*## / { printf "  %-19s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '\nExample: make test-unit ARGS="-k routing -x"\n'

install: $(STAMP) ## set up .venv as uv.lock says (30 s once, then 0 s)
	@echo "ready: .venv/bin/medkg"

$(STAMP): $(MANIFESTS) scripts/install.sh
	@echo "setting up .venv"
	@sh scripts/install.sh
	@rm -f .venv/.installed-*
	@touch $@

demo: $(STAMP) ## the embedded fleet on the samples, from job event to search and graph (60 s)
	@$(BIN)/medkg demo $(ARGS)

test: $(STAMP) ## all tests that can run here; says what was skipped and how to enable it (15 min)
	@$(BIN)/pytest $(ARGS)

test-unit: $(STAMP) ## unit and architecture tests (4 min)
	@$(BIN)/pytest tests/unit tests/architecture $(ARGS)

test-flow: $(STAMP) ## whole pipelines in one process (2 min)
	@$(BIN)/pytest tests/flow $(ARGS)

test-kafka: $(STAMP) ## everything that wants a real Apache Kafka (3 min)
	@$(BIN)/pytest -m kafka $(ARGS)

test-corpus: $(STAMP) ## every real record beside the checkout (3 min)
	@$(BIN)/pytest -m corpus $(ARGS)

chaos: $(STAMP) ## every fault on every kind of service, 2,000 documents; prints what was survived (10 min)
	@MEDKG_CHAOS=long $(BIN)/pytest -s tests/chaos $(ARGS)

waits: $(STAMP) ## 10,000 parked documents and three routers; any history of them; PDFs with 24 kills (6 min)
	@MEDKG_PARKED_DOCUMENTS=10000 MEDKG_MODEL_EXAMPLES=60 MEDKG_ROUTER_KILLS=20 MEDKG_PDF_KILLS=24 $(BIN)/pytest -s \
		tests/integration/test_waits_model.py tests/integration/test_waits_killed.py \
		tests/kafka/test_pdf_processes.py $(ARGS)

coverage: $(STAMP) ## all tests, branches counted; the report is htmlcov/index.html (12 min)
	@$(BIN)/pytest --cov --cov-report=html --cov-report=term:skip-covered $(ARGS)

benchmark: $(STAMP) ## medkg beside its peers on a real Kafka: ARGS="--only medkg --documents 2000" (15 min)
	@$(BIN)/python -m benchmarks.run $(ARGS)

benchmark-check: $(STAMP) ## is medkg slower than recorded, against its peers? (5 min)
	@$(BIN)/python -m benchmarks.check $(ARGS)

benchmark-faiss: $(STAMP) ## FAISS alone, 1,000 to 1,000,000 vectors: ARGS="build", then "ask" when it is quiet (30 min)
	@$(BIN)/python -m benchmarks.retrieval.faiss_cost $(ARGS)

benchmark-store: $(STAMP) ## an embedded store of 100,000 passages, every kind of search (5 min)
	@$(BIN)/python -m benchmarks.retrieval.store_cost $(ARGS)

benchmark-retrieval: $(STAMP) ## SciFact through a whole fleet with real models; fails below the published figures (15 min)
	@$(BIN)/python -m benchmarks.retrieval.scifact $(ARGS)

benchmark-search: $(STAMP) ## how long a question takes over HTTP, embedded and OpenSearch: ARGS="build", then "ask" when it is quiet (20 min)
	@$(BIN)/python -m benchmarks.retrieval.search_latency $(ARGS)

check: check-format check-lint check-types check-imports check-docs ## all checks that run no test (30 s, then 5 s)

check-format: $(STAMP) ## is everything formatted? (1 s)
	@$(BIN)/ruff format --quiet --check .

check-lint: $(STAMP) ## ruff's rules (1 s)
	@$(BIN)/ruff check --quiet .

check-types: $(STAMP) ## mypy --strict (25 s, then 2 s)
	@$(BIN)/mypy libs services tests benchmarks

check-imports: $(STAMP) ## who may import whom (2 s)
	@$(BIN)/lint-imports --no-logo

check-docs: $(STAMP) ## are the generated references up to date? (3 s)
	@$(BIN)/python docs/generate.py --check

format: $(STAMP) ## format, and mend what ruff can (1 s)
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

docs: $(STAMP) ## write the generated references anew (3 s)
	@$(BIN)/python docs/generate.py

kafka: $(STAMP) ## a real Apache Kafka in the foreground, until Ctrl-C: ARGS="--port 9092" (5 s)
	@$(BIN)/python -m tests.servers.kafka $(ARGS)

opensearch: $(STAMP) ## a real OpenSearch in the foreground, until Ctrl-C: ARGS="--port 9200"; Java and Maven, no Docker (15 s)
	@$(BIN)/python -m tests.servers.opensearch $(ARGS)

postgres: $(STAMP) ## a PostgreSQL in the foreground, until Ctrl-C: ARGS="--data DIR" (5 s)
	@$(BIN)/python -m tests.servers.postgres $(ARGS)

clean: ## remove .venv, caches and reports; the data of a fleet stays (1 s)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* htmlcov dist
	@find libs services tests docs benchmarks -type d -name __pycache__ -exec rm -rf {} + 2>/dev/null || true
