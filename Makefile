# What people type. Each target is one line of work; the work itself is in Go (tools/) or in test/.

GO      ?= go
BIN     := bin
PROGRAM := $(BIN)/mediaproxy
NAMES   := media-dispatcher media-relay
# FUZZTIME is what each fuzz target gets in `make soak`; `make test` gives 5 s.
FUZZTIME ?= 10m
TOOL    := $(GO) tool -modfile=tools/go.mod
GATE    := $(GO) run -C tools ./gate

.PHONY: run build test soak lint bench vuln notice generate man setup clean

# A dispatcher and a relay in the foreground, on defaults, with certificates of their own.
run: build
	$(PROGRAM) up

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o $(PROGRAM) ./cmd/mediaproxy
	for name in $(NAMES); do ln -sf mediaproxy $(BIN)/$$name; done

# The gate: everything that has to hold before a change goes in. Under 30 minutes on two cores.
test:
	$(GATE)

# The parts of the gate that need no root and no packages.
lint:
	$(GATE) -stages gofmt,vet,staticcheck,notice,cross

# Long fuzzing of every parser and every call flow in every way the lab knows.
soak:
	$(GATE) -stages setup,build,soak -fuzztime $(FUZZTIME)

bench: build
	test/setup/install.sh bench
	$(GO) run ./test/bench

# Known holes that the programs can reach. Fetches its database, so it is not part of the gate.
vuln:
	$(TOOL) govulncheck ./...

# After a change of dependencies.
notice:
	$(GO) run -C tools ./notice -write

# After a change of the kernel program or of a setting. Needs clang-14 and llvm-14.
generate:
	$(GO) generate ./...

# Manual pages; shell completion is `mediaproxy completion SHELL`.
man:
	$(GO) run ./cmd/mediaproxy/man build/man

setup:
	test/setup/install.sh

clean:
	rm -rf $(BIN) build
