# make            bin/ambit, static; needs Go alone
# make test       every test, as root; installs what the tests need
# make demo       a small ambient mesh and its spans on the terminal, as root; about half a minute
# make lint       formatting, vet, staticcheck, the order of imports and includes
# make generate   the kernel side and its Go types anew, by the one compiler that is pinned here
# make sweep      what takes longer: the race detector, and a collector that is dead for ten minutes (OUTAGE)
# make fuzz       each fuzz test for a while (FUZZTIME)
# make test-kernels  every kernel of docs/kernels.md under emulation
# make sim        the controller and other samplers on made-up traffic; docs/sampling.md
# make package    dist/*.deb and dist/*.rpm for amd64 and arm64
# make bench      what a packet, a request and a span cost, as root; docs/performance.md

# One compiler makes what is committed; bpf/gen.go names it too.
CLANG := clang-19 llvm-19 libbpf-dev linux-libc-dev
# The programs that the demo and the tests call. Node is Debian's where there is none.
DEMO := iproute2 iptables
TEST := $(DEMO) bpftool curl dbus debian-archive-keyring gcc libc6-dev lintian man-db nghttp2-client nghttp2-proxy nghttp2-server nginx nodejs procps python3 \
	python3-venv qemu-system-x86 rpm rpmlint systemd systemd-container wrk xz-utils

VERSION := $(or $(shell git describe --tags --always --dirty 2>/dev/null),dev)

export CGO_ENABLED := 0
# A clone that belongs to somebody else is built too; the version comes by the linker.
export GOFLAGS ?= -buildvcs=false

.PHONY: all
all: bin/ambit

# Go knows better than make what has changed.
.PHONY: bin/ambit
bin/ambit:
	go build -trimpath -ldflags '-s -w -X ambit/daemon.Version=$(VERSION)' -o $@ ./cmd/ambit

# Packages with programs of the kernel side.
PROGRAMS := ./bpf ./tests/decision ./tests/harness/record
.PHONY: generate
generate:
	.ci/need $(CLANG)
	go generate $(PROGRAMS)

# Into a copy, so that a difference can be looked at.
GENERATED := $(foreach file,bpf/ambit tests/decision/decision tests/harness/record/record,$(file)_bpfel.go $(file)_bpfel.o)
.PHONY: check-generated
check-generated:
	.ci/need $(CLANG)
	rm -rf build/generated && mkdir -p build/generated
	cp -r --parents go.mod go.sum bpf l7 tc tests/decision tests/harness build/generated
	cd build/generated && rm $(GENERATED) && go generate $(PROGRAMS)
	for file in $(GENERATED); do cmp $$file build/generated/$$file || { echo 'run "make generate" and commit what it makes' >&2; exit 1; }; done
	rm -rf build/generated

SOURCES = $(shell find . -name '*.go' -o -name '*.[ch]' | grep -vE '^./build/|_bpfel\.go$$')
.PHONY: lint
lint:
	@echo 'lint: formatting'; wrong=$$(gofmt -l $(filter %.go,$(SOURCES))); [ -z "$$wrong" ] || { echo "not formatted by gofmt: $$wrong" >&2; exit 1; }
	@echo 'lint: vet'; go vet ./...
	@echo 'lint: staticcheck'; go tool -modfile=.ci/staticcheck.mod staticcheck ./...
	@echo 'lint: imports and includes'; go test -count=1 ./tests/layout
	@wc -l $(SOURCES) | awk '$$2 != "total" && $$1 > 450 { print "lint: warning: " $$2 " has " $$1 " lines; past 450 a file wants to be two" }'

# Istio's own packages and Helm take minutes to compile, and are modules of their own.
.PHONY: test
test: bin/ambit
	.ci/need $(TEST)
	.ci/registry
	.ci/gotest -timeout 15m ./...
	cd tests/ambient && ../../.ci/gotest -timeout 10m ./...
	cd tests/chart && ../../.ci/gotest -timeout 15m ./...

.PHONY: demo
demo: bin/ambit
	@.ci/need $(DEMO)
	@go build -o build/demo ./tests/demo
	@build/demo -ambit bin/ambit

.PHONY: sweep
sweep: race soak

# Each fuzz test for a while. What one finds stays in its testdata, and from then on "make test" tries it too.
FUZZTIME ?= 60s
.PHONY: fuzz
fuzz:
	.ci/need gcc libc6-dev
	@grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's|^(.*)/[^/]*:[0-9]+:func (.*)|\1 \2|' | \
	while read -r package name; do \
		echo "fuzz: $$package $$name for $(FUZZTIME)"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package" || exit 1; \
	done

# Where goroutines meet. Without the tests that measure, which the detector makes slow.
.PHONY: race
race:
	.ci/need gcc libc6-dev
	CGO_ENABLED=1 go test -race -count=1 ./admin ./cmd/... ./daemon ./exporter ./l7 ./meta ./remote ./sampling ./tests/harness/ztunnel

# A dead collector at 10,000 spans a second for as long as it has to be borne; "make test" has a shorter one.
OUTAGE ?= 10m
.PHONY: soak
soak:
	.ci/need $(TEST)
	AMBIT_FAULTS_OUTAGE=$(OUTAGE) go test -count=1 -timeout 20m -run TestOutage ./tests/faults

# Every kernel that ambit is tried on, under emulation, and the table of docs/kernels.md from what they printed.
.PHONY: test-kernels
test-kernels:
	.ci/need debian-archive-keyring qemu-system-arm qemu-system-x86 xz-utils
	AMBIT_KERNELS=all .ci/gotest -timeout 40m -run TestKernels ./tests/kernels; status=$$?; \
	go run ./tests/kernels/table build/kernels docs/kernels.md && exit $$status

# Samplers side by side on made-up traffic: docs/sampling.md. Every run gives the same numbers.
.PHONY: sim
sim:
	mkdir -p build docs/images
	go test -count=1 -v -run TestScenarios ./tests/sim -out $(CURDIR)/build/sim.json -plots $(CURDIR)/docs/images

# The packages, the same bytes of the same commit: times are the commit's, and Go trims paths.
EPOCH := $(or $(shell git log -1 --format=%ct 2>/dev/null),0)
.PHONY: package
package:
	rm -rf build/package dist && mkdir -p build/package dist
	for arch in amd64 arm64; do \
		GOARCH=$$arch go build -trimpath -ldflags '-s -w -buildid= -X ambit/daemon.Version=$(VERSION)' -o build/package/$$arch/ambit ./cmd/ambit || exit 1; \
	done
	cd packaging && go run . -root .. -build ../build/package -dist ../dist -version '$(VERSION)' -epoch $(EPOCH)

.PHONY: help
help:
	@sed -n 's/^# make/make/p' Makefile

# Only once there is one.
ifneq ($(wildcard tests/bench/*.go),)
.PHONY: bench
bench: bin/ambit
	.ci/need $(DEMO) nghttp2-client wrk
	go run ./tests/bench
endif

.PHONY: clean
clean:
	rm -rf bin build
