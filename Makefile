# "make" explains the targets. Each one installs what it needs (see deps).

SHELL   := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Everything shipped is built without cgo; the race detector alone needs it.
export CGO_ENABLED := 0
# mke2fs, debugfs and their like live there on Debian.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

BIN      ?= bin
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X holdfast/appliance/cli.version=$(VERSION)
RUN      ?= .
KILLS    ?= 200
FUZZTIME ?= 5000x

.PHONY: help build run deps check test e2e bench fuzz clean

help: ## this list
	@echo "make TARGET"; echo
	@sed -nE 's/^([a-z0-9]+):.*## (.*)$$/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10
	@echo; echo "RUN=name   the tests or tables of e2e and bench with that name"
	@echo "KILLS=n    how often e2e kills a process (default $(KILLS))"
	@echo "POWERCUTS=n how often e2e takes the power from a file system (default 20)"
	@echo "FUZZTIME=t how long each fuzz target runs (default $(FUZZTIME))"

build: ## every program into bin/
	@mkdir -p $(BIN)
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./.../cmd/...

run: build ## the main job on a disk of real files, in var/demo
	@internal/dev/deps run
	@BIN=$(abspath $(BIN)) internal/demo/run

deps: ## what the tests need, from apt; prints the command when not root
	@internal/dev/deps run test

check: ## format, vet, staticcheck, tests with -race, a short fuzz of every target
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	CGO_ENABLED=1 go test -race -timeout 40m ./...
	@internal/dev/fuzz $(FUZZTIME)

test: deps check ## deps, check, and the tests that need root when we are root
	@if [ "$$(id -u)" != 0 ]; then echo "The tests that need root were skipped: run make test as root for those."; fi

e2e: build ## kill -9, power cuts, every guest file system; up to 80 minutes
	@internal/dev/deps run test
	HOLDFAST_LONG=1 go test -count=1 -p 1 -timeout 90m -run '$(RUN)' ./repo ./fs/content ./fs/guest/ext4 ./fs/guest/ntfs
	HOLDFAST_E2E=1 KILLS=$(KILLS) go test -count=1 -v -timeout 3h -run '$(RUN)' ./internal/e2e

bench: build ## tables against borg and restic, in var/bench; up to 40 minutes
	@internal/dev/deps run test bench
	go run ./internal/bench -bin $(abspath $(BIN))/holdfast -run '$(RUN)'

fuzz: ## every fuzz target 300,000 times, or FUZZTIME
	@internal/dev/fuzz $(if $(filter command environment,$(origin FUZZTIME)),$(FUZZTIME),300000x)

clean: ## remove bin/ and var/
	rm -rf $(BIN) var
