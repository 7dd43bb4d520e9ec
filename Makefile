# Inlet. `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/sh

FILTERS := $(notdir $(patsubst %/wasm,%,$(wildcard filters/*/wasm)))
# All packages but those that drive a real Envoy.
UNIT = $$(go list ./... | grep -v '/e2e')
# Those of them that start goroutines, in their tests at least, or use unsafe: in the others the race detector has nothing to find.
CONCURRENT = $$(grep -rlE --include='*.go' '\bgo (func\b|[A-Za-z.]+\()|\.Go\(|\.Parallel\(|RunParallel\(|httptest|"unsafe"' cmd docs filters internal shared | grep -v /testdata/ | xargs -n 1 dirname | sort -u | sed 's,^,./,')
# Those that drive a real Envoy Gateway or a real Kubernetes API server.
CLUSTER = $$(go list ./e2e/... | grep -e '/e2e/gateway$$' -e '/e2e/kube$$')
# What runs inside Envoy as wasm, and must stay free of threads, sockets and clocks.
CORE := ./filters/... ./shared/contract/... ./shared/reading/... ./shared/state/... ./internal/chain/... ./internal/coding/... ./internal/feed/...

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@printf '\nVariables of run and demo: ABI=wasm|module  COMPANION=process|embedded  PORT=8080  CONFIG=<document>  WORKERS=2  ENVOY=<path>\n'

.PHONY: doctor
doctor: inletctl ## say what this machine lacks
	@dist/inletctl doctor

# What the targets above and below call; Go is needed to build it.
.PHONY: has-go inletctl
inletctl: has-go
	@go build -trimpath -o dist/inletctl ./cmd/inletctl
has-go:
	@command -v go >/dev/null || { echo 'MISSING  go         install Go 1.26 or newer: https://go.dev/dl' >&2; exit 1; }
	@case $$(go env GOVERSION) in go1.[0-9] | go1.[0-9].* | go1.1[0-9]* | go1.2[0-5]*) \
	  echo "MISSING  go         $$(go version) is too old; install Go 1.26 or newer: https://go.dev/dl" >&2; exit 1;; esac

.PHONY: build
build: ## fill dist/ with all builds of Inlet, the filters one by one, the companion, modelsim, inletctl and the JSON Schema
	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags='-s -w' -o dist/inlet.wasm ./cmd/bundle-wasm
	for f in $(FILTERS); do GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags='-s -w' -o dist/$$f.wasm ./filters/$$f/wasm || exit 1; done
	CGO_ENABLED=1 go build -buildmode=c-shared -trimpath -ldflags='-s -w -X runtime.godebugDefault=cgocheck=0' -o dist/libinlet.so ./cmd/bundle-module
	CGO_ENABLED=1 go build -buildmode=c-shared -trimpath -ldflags='-s -w' -o dist/inlet-golang.so ./cmd/bundle-golang
	go build -trimpath -o dist/companion ./cmd/companion
	go build -trimpath -o dist/modelsim ./cmd/modelsim
	go build -trimpath -o dist/inletctl ./cmd/inletctl
	dist/inletctl schema >dist/inlet.schema.json

.PHONY: run
run: inletctl ## Envoy with Inlet on :8080, the companion and six simulated replicas, until Ctrl-C
	@exec dist/inletctl run

.PHONY: demo
demo: inletctl ## send real requests through it and show where each went, and why
	@exec dist/inletctl demo

.PHONY: test
test: build unit race-concurrent e2e ## all tests: unit, compiled wasm, race, real Envoy; downloads 1 GB the first time (Envoy, clients, NeMo Guardrails)

.PHONY: unit
unit: ## tests without Envoy, the compiled wasm under wazero among them
	go test $(UNIT)
	go -C tools test ./mutate ./release

.PHONY: race
race: ## the same under the race detector, but for the compiled wasm
	go test -race $(UNIT)

.PHONY: race-concurrent
race-concurrent: ## the same in the packages that start goroutines or use unsafe, which takes a third of the time
	go test -race $(CONCURRENT)

.PHONY: e2e
e2e: ## tests in a real Envoy, both builds, and the demo in both; downloads 1 GB the first time
	go test -timeout 20m ./e2e -run 'Scenarios$$'
	go test -timeout 20m -p 2 -skip 'Scenarios$$' $$(go list ./e2e/... | grep -v -e '/e2e/gateway$$' -e '/e2e/kube$$') # more at once would take the time that Envoy's workers need for their ticks
	go -C bench test -timeout 10m ./...
	$(MAKE) --no-print-directory demo ABI=wasm
	$(MAKE) --no-print-directory demo ABI=module
	$(MAKE) --no-print-directory demo ABI=module COMPANION=embedded

.PHONY: e2e-gateway
e2e-gateway: ## a real Envoy Gateway serves the manifests and recipes of envoy/gateway; builds it from the Go module proxy the first time, which takes minutes
	go test -timeout 15m -p 1 $(CLUSTER)

.PHONY: image-wasm
image-wasm: ## dist/image-wasm: the wasm plugin as an image (an OCI layout), as Envoy Gateway fetches it; prints its digest
	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags='-s -w' -o dist/inlet.wasm ./cmd/bundle-wasm
	@go -C tools/manifests build -trimpath -o ../../dist/manifests . && dist/manifests image dist/inlet.wasm dist/image-wasm

.PHONY: soak-quota
soak-quota: ## ten minutes of all kinds of requests in each build: what is charged is what the replicas report, to the token
	go test -count=1 -v -timeout 40m ./e2e/quota -run '^TestQuota$$/.*/^soak$$' -soak 10m

.PHONY: soak-memory
soak-memory: ## a million requests through the module, after which it takes no more memory than before; REQUESTS=1000000
	go test -count=1 -v -timeout 60m ./e2e/native -run '^TestMemory$$' -soak $(or $(REQUESTS),1000000)

.PHONY: envoys
envoys: ## the scenarios in the older Envoys that are supported: 1.38.3 (module; this wheel has no wasm runtime) and 1.39.3; fetches them
	ENVOY=$$(go run ./e2e/getenvoy -version 1.38.3) && export ENVOY && go test -timeout 20m ./e2e -run '^TestScenarios$$/^module' && go test -timeout 5m ./e2e/balancer
	ENVOY=$$(go run ./e2e/getenvoy -version 1.39.3) && export ENVOY && go test -timeout 20m ./e2e -run '^TestScenarios$$' && go test -timeout 5m ./e2e/balancer

.PHONY: e2e-vllm
e2e-vllm: ## two real vLLMs behind it, on the CPU, asked by the official clients; fetches 2 GB and takes minutes; ABI=wasm|module for one build
	@go build -o dist/e2e-vllm ./e2e/vllm && exec dist/e2e-vllm $(if $(ABI),-abi '$(ABI)')

.PHONY: bench
bench: ## benchmarks without Envoy, into bench/out/
	@go -C bench build -o ../dist/gobench ./gobench && dist/gobench $(ARGS) $(UNIT)

.PHONY: bench-envoy
bench-envoy: ## what Inlet adds to a request in a real Envoy, into bench/out/
	@go -C bench build -o ../dist/bench . && dist/bench $(ARGS)

.PHONY: bench-peers
bench-peers: ## the same beside the Gateway API Inference Extension, built from its module, into bench/out/
	@go -C bench build -o ../dist/bench . && dist/bench -peers $(ARGS)

.PHONY: bench-quota
bench-quota: ## what keys, limits and counted tokens add, beside Envoy's own rate limits and their service on a real Redis, into bench/out/
	@go -C bench build -o ../dist/bench . && dist/bench -quota $(ARGS)

.PHONY: bench-routing
bench-routing: ## routing compared on traces, in virtual time, and held to real processes, into bench/out/; TRACE=<file> BLOCKS=10000 QUICK=1 FULL=1 SENSITIVITY=1
	@go -C bench build -o ../dist/replay ./replay && dist/replay -check $(if $(TRACE),-trace '$(TRACE)') $(if $(BLOCKS),-blocks $(BLOCKS)) $(if $(QUICK),-quick) $(if $(FULL),-full) $(if $(SENSITIVITY),-sensitivity) $(ARGS)

.PHONY: bench-companion
bench-companion: ## what the companion takes for 1,000 replicas, and how soon proxies hear of a change, into bench/out/
	@go -C bench build -o ../dist/bench-companion ./companion && dist/bench-companion $(ARGS)

.PHONY: bench-embedded
bench-embedded: ## what 1,000 replicas that are scraped every 100 ms take from requests: by a companion process, and by the one inside Envoy, into bench/out/
	@go -C bench build -o ../dist/bench-companion ./companion && dist/bench-companion -requests -duration 3s -repeat 7 -out bench/out/embedded.jsonl $(ARGS)

.PHONY: bench-guardrail
bench-guardrail: ## what the guardrail's detectors find and take, beside Presidio, gitleaks and detect-secrets, into bench/out/; SEED=20261130 SETS=3 LINES=<file>
	@go -C bench build -o ../dist/bench-guardrail ./guardrail && dist/bench-guardrail $(if $(SEED),-seed '$(SEED)') $(if $(SETS),-sets '$(SETS)') $(if $(LINES),-lines '$(LINES)') $(ARGS)

.PHONY: matrix
matrix: ## large bodies through every supported Envoy, byte for byte; fetches those Envoys
	go run ./e2e/matrix

.PHONY: mutate
mutate: ## change the code in one place after the other, and print what share the unit tests notice; SEED=1 COUNT=50 PACKAGES=llm,kv AT=<file> PARALLEL=2
	@go -C tools build -o ../dist/mutate ./mutate && exec dist/mutate -seed '$(or $(SEED),1)' -count '$(or $(COUNT),50)' -packages '$(PACKAGES)' -at '$(AT)' -parallel '$(or $(PARALLEL),2)'

.PHONY: release
release: ## fill dist/release/: all builds, checksums and an SBOM; VERSION=v0.1.0 ONLY=<part of a file's name>
	@go -C tools build -o ../dist/make-release ./release && dist/make-release -version '$(VERSION)' -only '$(ONLY)'

.PHONY: release-check
release-check: ## build the release of the last commit twice, in two folders, and compare the bytes; ONLY=<part of a file's name>
	@go -C tools build -o ../dist/make-release ./release && dist/make-release -twice -version '$(VERSION)' -only '$(ONLY)'

.PHONY: docs
docs: ## write the key tables of the documentation from the code
	go test ./docs -run TestKeyTables -update

.PHONY: fmt
fmt: ## format the code
	go tool -modfile=tools/go.mod golangci-lint fmt ./...
	cd bench && go tool -modfile=../tools/go.mod golangci-lint fmt ./...

.PHONY: lint
lint: ## lint and check the format
	go tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners ./...
	cd bench && go tool -modfile=../tools/go.mod golangci-lint run --allow-parallel-runners ./...
	cd tools && go tool golangci-lint run --allow-parallel-runners ./mutate ./release
	cd tools/manifests && go tool -modfile=../go.mod golangci-lint run --allow-parallel-runners ./...

.PHONY: check
check: ## what CI asks for before the tests: wasm and no-cgo builds, dependency rules, documentation, lint and format
	GOOS=wasip1 GOARCH=wasm go build $(CORE)
	CGO_ENABLED=0 go build $$(go list -f '{{if .GoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v -e /bundle-module -e /bundle-golang -e /adapters/module/export)
	go test -run . ./shared ./docs
	$(MAKE) --no-print-directory lint

.PHONY: clean
clean: ## remove what was built and measured
	rm -rf dist bench/out
