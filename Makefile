# The commands that docs/testing.md explains. Everything needs only Go.

.PHONY: all build test race lint generate accept plant ci

all: build test

build: ## the shoal binary, in bin/
	go build -trimpath -o bin/shoal ./cmd/shoal

test: ## every test, the scenarios reduced
	go test ./...

race: ## the concurrent packages under the race detector
	go test -race -short ./raftgroup/... ./shardctrler/... ./shardkv/... ./clerk/...

lint: ## the linter that CI runs, at its version
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.7.0 ./...

generate: ## *.pb.go from the .proto files
	go run ./integration/protogen

accept: ## the scenarios in full; SCENARIO=S3 runs one; writes docs/acceptance.md
	go run ./integration/accept $(SCENARIO)

plant: ## every planted bug must be noticed; ONLY=EXPR some of them; writes docs/planted.md
	go run ./integration/plant -only '$(ONLY)'

ci: ## what must hold before a change lands
	.ci/run
