# The commands that docs/testing.md explains; `make help` lists them. Everything
# needs only Go.

.PHONY: all help build test race lint generate accept plant measure soak simcover explore virtual prove ci

SEEDS ?= 1000
RUNS ?= 1000

# The linter's version, and the packages to race, are those of .ci/run.
STATICCHECK := $(shell sed -n 's/^staticcheck=//p' .ci/run)
RACE_PACKAGES := $(shell sed -n 's/^race_packages="\(.*\)"$$/\1/p' .ci/run)

all: build test

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

build: ## the shoal binary, in bin/
	go build -trimpath -o bin/shoal ./cmd/shoal

test: ## every test, the scenarios reduced
	go test ./...

race: ## the concurrent packages under the race detector
	go test -race -short $(RACE_PACKAGES)

lint: ## the linter that CI runs, at its version
	go vet ./...
	go run $(STATICCHECK) ./...

generate: ## *.pb.go from the .proto files
	go run ./integration/protogen

accept: ## the scenarios in full; SCENARIO=S3 runs one; writes docs/acceptance.md
	go run ./integration/accept $(SCENARIO)

plant: ## every planted bug must be noticed; ONLY=EXPR some of them; writes docs/planted.md
	go run ./integration/plant -only '$(ONLY)'

measure: ## the figures of docs/performance.md, on a quiet machine
	go run ./integration/measure

soak: ## the simulator over many seeds; SEEDS=n
	go run ./integration/sim/soak -seeds $(SEEDS)

simcover: SEEDS = 8000 # fewer leave blocks unreached that have no reason
simcover: ## what the simulator executes of the step machines; SEEDS=n; into docs/simulation.md
	go run ./integration/sim/cover -seeds $(SEEDS)

explore: ## every bound of the explorer
	go run ./integration/explore/run -all

virtual: ## real Raft in virtual time; RUNS=n
	SHOAL_VIRTUAL_RUNS=$(RUNS) go test ./integration/virtual -run TestSoak -v -timeout 0

prove: ## every containment switched off in turn
	go run ./integration/prove

ci: ## what must hold before a change lands
	.ci/run
