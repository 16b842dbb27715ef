# Talos. `make help` lists what can be made.
#
# VERSION is what the operating system calls itself. Everything made is in _out;
# built components are cached outside the checkout (see components/build).
VERSION ?= v0.1.0
OUT := _out

COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X talos/internal/version.Tag=$(VERSION) -X talos/internal/version.SHA=$(COMMIT)
GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false
PROGRAMS := $(notdir $(wildcard cmd/*))

.DEFAULT_GOAL := help
.PHONY: help go programs components build image images-soak clean

help: ## print this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

go:
	@go version 2>/dev/null | grep -Eq 'go1\.(2[6-9]|[3-9][0-9])' || { \
		echo "Go 1.26 or newer is needed; this is: $$(go version 2>&1)." >&2; \
		echo "Get it from https://go.dev/dl/, or, with Go 1.21 or newer, set GOTOOLCHAIN=go1.26.8." >&2; \
		exit 1; }

programs: go
	@mkdir -p $(OUT)/bin
	$(GOBUILD) -ldflags "$(LDFLAGS)" -o $(OUT)/bin/ $(addprefix ./cmd/,$(PROGRAMS))
	@ln -sfn talosctl $(OUT)/bin/osctl

components: go
	components/build
	@mkdir -p $(OUT)/bin
	@ln -sfn ../components/kubernetes/kubectl $(OUT)/bin/kubectl

build: programs components ## talosctl, kubectl and the node's programs into _out/bin, components into the cache

image: build ## _out/rootfs.squashfs and the container images in _out/images
	$(OUT)/bin/imager rootfs -tag $(VERSION) -o $(OUT)/rootfs.squashfs
	$(OUT)/bin/imager images -o $(OUT)/images

images-soak: build # the same with the previous Kubernetes minor version too, to upgrade from
	components/build kubernetes-1.36
	$(OUT)/bin/imager images -kubernetes kubernetes,kubernetes-1.36 -o $(OUT)/images-soak

clean: ## remove _out; the component cache stays
	rm -rf $(OUT)
