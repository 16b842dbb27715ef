# Talos. `make help` lists what can be made.
#
# VERSION is what the operating system calls itself. Everything made is in _out;
# built components are cached outside the checkout (see components/build).
VERSION ?= v0.1.0
OUT := _out

COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X talos/internal/version.Tag=$(VERSION) -X talos/internal/version.SHA=$(COMMIT)
GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false
PROGRAMS := $(patsubst cmd/%/main.go,%,$(wildcard cmd/*/main.go))

.DEFAULT_GOAL := help
.PHONY: help go root programs components kernel build rootfs image images-soak clean

help: ## print this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

go:
	@go version 2>/dev/null | grep -Eq 'go1\.(2[6-9]|[3-9][0-9])' || { \
		echo "Go 1.26 or newer is needed; this is: $$(command -v go >/dev/null && go version 2>&1 || echo "no go on the PATH")." >&2; \
		echo "Get it from https://go.dev/dl/, or, with Go 1.21 or newer, set GOTOOLCHAIN=go1.26.8." >&2; \
		exit 1; }

root:
	@test "$$(id -u)" = 0 || { echo "Root is needed: nodes are containers with networks of their own. Try: sudo env PATH=\"\$$PATH\" make" $(MAKECMDGOALS) >&2; exit 1; }

programs: go
	@mkdir -p $(OUT)/bin
	$(GOBUILD) -tags grpcnotrace -ldflags "$(LDFLAGS)" -o $(OUT)/bin/ $(addprefix ./cmd/,$(PROGRAMS))
	@ln -sfn talosctl $(OUT)/bin/osctl

components: go
	components/build
	@mkdir -p $(OUT)/bin
	@ln -sfn ../components/kubernetes/kubectl $(OUT)/bin/kubectl

kernel: ## the kernel and its configuration into the cache, linked to _out/kernel
	kernel/build

build: programs components ## talosctl, kubectl and the node's programs into _out/bin, components into the cache

rootfs: build ## what nodes in containers need: root and container images
	kernel/files
	$(OUT)/bin/imager rootfs -tag $(VERSION) -o $(OUT)/rootfs.squashfs
	$(OUT)/bin/imager images -o $(OUT)/images

# SECUREBOOT=FOLDER signs with the keys that talosctl gen secureboot has put there.
MEDIA := -tag $(VERSION) $(if $(SECUREBOOT),-secureboot $(SECUREBOOT))
MEDIA_FILES := talos-amd64.efi talos-amd64.iso talos-amd64.raw talos-amd64.qcow2 talos-nocloud-amd64.raw \
	vmlinuz initramfs-full.zst cmdline rootfs.squashfs rootfs.img rootfs.root talos.spdx.json

image: rootfs kernel ## all images into _out: root, ISO, disks, kernel image, container images, their bill and checksums
	@cp -Lu $(OUT)/kernel/vmlinuz $(OUT)/vmlinuz
	$(OUT)/bin/imager initramfs -init $(OUT)/bin/init -o $(OUT)/initramfs.zst
	$(OUT)/bin/imager uki $(MEDIA) -o $(OUT)/talos-amd64.efi
	$(OUT)/bin/imager initramfs-full $(MEDIA) -o $(OUT)/initramfs-full.zst -cmdline $(OUT)/cmdline
	$(OUT)/bin/imager iso $(MEDIA) -o $(OUT)/talos-amd64.iso
	$(OUT)/bin/imager disk $(MEDIA) -o $(OUT)/talos-amd64.raw
	$(OUT)/bin/imager disk $(MEDIA) -o $(OUT)/talos-amd64.qcow2
	$(OUT)/bin/imager disk $(MEDIA) -platform nocloud -o $(OUT)/talos-nocloud-amd64.raw
	$(OUT)/bin/imager bill -tag $(VERSION) -o $(OUT)/talos.spdx.json
	$(OUT)/bin/imager sums $(if $(SECUREBOOT),-key $(SECUREBOOT)) -o $(OUT)/SHA256SUMS $(MEDIA_FILES)

images-soak: build # the same with the previous Kubernetes minor version too, to upgrade from
	components/build kubernetes-1.36
	$(OUT)/bin/imager images -kubernetes kubernetes,kubernetes-1.36 -o $(OUT)/images-soak

clean: ## remove _out; the component cache stays
	rm -rf $(OUT)

# --- checking ---------------------------------------------------------------

.PHONY: check verify generate fuzz test-packages test e2e cluster bench soak

# What runs without root and without network; modules must be there already.
check: go verify ## formatting, vet, staticcheck, generated code, unit tests: no root, no network
	go test ./...

verify: go
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not formatted:"; gofmt -l $$(git ls-files '*.go'); exit 1; } >&2
	go vet ./...
	go vet -tags e2e,bench ./test/...
	cd tools && go tool staticcheck -version >/dev/null && go build -o ../$(OUT)/bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	$(OUT)/bin/staticcheck ./...
	@rm -rf $(OUT)/generated && mkdir -p $(OUT)/generated && cp -r --parents $(GENERATED) $(OUT)/generated \
		&& $(MAKE) --no-print-directory generate && for d in $(GENERATED); do diff -r $$d $(OUT)/generated/$$d || exit 1; done \
		|| { echo "generated files are stale: commit what make generate has written" >&2; exit 1; }

GENERATED := api docs/reference docs/deps

generate: go ## write what is generated: Go of the .proto files, docs/reference, docs/deps
	cd tools && go run ./protogen ../api
	go run ./cmd/talosctl/internal/docgen
	@mkdir -p docs/deps && for p in machined noded; do CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go list -deps -tags grpcnotrace \
		-f '{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}' ./cmd/$$p | LC_ALL=C sort -u > docs/deps/$$p.txt || exit 1; done

# Inputs that are new are made smaller before anything else is tried, for a
# minute each unless told otherwise: a hundred attempts are enough.
fuzz: go ## let every fuzz target run for FUZZTIME (default 30s)
	@for p in $$(go list ./...); do \
		all=$$(go test -list '^Fuzz' $$p) || { echo "$$all"; exit 1; }; \
		for f in $$(echo "$$all" | grep ^Fuzz); do \
			echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-30s} -fuzzminimizetime 100x $$p || exit 1; done; done

# Peers and tools of the tests, from Debian's packages.
TEST_PACKAGES := cryptsetup-bin dnsmasq-base dosfstools e2fsprogs efitools fdisk gdisk iproute2 mtools nftables openssl ovmf \
	qemu-system-x86 sbsigntool squashfs-tools swtpm util-linux xfsprogs xorriso

test-packages:
	@missing=$$(for p in $(TEST_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	[ -z "$$missing" ] || { echo "installing $$missing"; apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; }

test: verify image test-packages ## everything: also builds all, and tests a real cluster (root)
	cd components/flannel && go test ./...
	REQUIRE_IMAGE=1 REQUIRE_PRIV=1 TALOS_ROOTFS=$(abspath $(OUT)/rootfs.squashfs) go test -race -timeout 20m $$(go list ./... | grep -v /test/invm)
	REQUIRE_IMAGE=1 REQUIRE_PRIV=1 go test -count=1 -timeout 20m ./test/invm # by itself: it holds a machine to deadlines
	go test -count=1 -timeout 10m ./test/fleet # a thousand nodes are too many for the race detector
	$(MAKE) --no-print-directory e2e

e2e: image test-packages ## the end-to-end tests alone (root)
	go test -tags e2e -count=1 -timeout 40m -v -skip '^TestMany|^TestMachine|^TestPair' ./test/e2e
	E2E_CONTROLPLANES=3 E2E_WORKERS=1 go test -tags e2e -count=1 -timeout 40m -v -run '^TestMany' ./test/e2e
	REQUIRE_PRIV=1 go test -tags e2e -count=1 -short -timeout 60m -v -skip '^TestSoak' ./test/machine
	E2E_PROVISIONER=qemu go test -tags e2e -count=1 -timeout 40m -v -run '^TestMachine' -skip 'PowerCut|ChangedByte' ./test/e2e # ./test/machine has both

# --- using ------------------------------------------------------------------

cluster: root rootfs ## a cluster "demo" of two nodes on this machine (root): kubectl and talosctl are set up for it
	@$(OUT)/bin/talosctl cluster create --name demo --controlplanes 1 --workers 1

bench: image test-packages ## measure: table on standard output, JSON in _out/bench (root)
	@mkdir -p $(OUT)/bench
	go test -tags e2e,bench -count=1 -timeout 60m -v -run '^TestBench' ./test/e2e
	FLEET_OUT=$(abspath $(OUT))/bench/fleet.json go test -tags bench,grpcnotrace -count=1 -v -run '^TestBench$$' ./test/fleet

soak: image images-soak test-packages ## long tests: also with the previous Kubernetes minor version, and machines (root)
	E2E_KUBERNETES=1.36.3 go test -tags e2e -count=1 -timeout 60m -v -run 'TestNodeIsReady|TestServiceAnswers|TestLogsExecPortForward' ./test/e2e
	E2E_PROVISIONER=qemu go test -tags e2e -count=1 -timeout 90m -v -run '^TestMachine' ./test/e2e
	E2E_PROVISIONER=qemu E2E_WORKERS=1 go test -tags e2e -count=1 -timeout 90m -v -run '^TestPair' ./test/e2e
	SOAK=1 REQUIRE_PRIV=1 go test -tags e2e -count=1 -timeout 240m -v ./test/machine
