// Package registry serves an OCI image layout, read-only, as a registry by the
// OCI distribution specification, version 2: manifests by tag and digest, blobs
// with ranges. Nothing is held in memory but the layout's index, which is read
// again when it changes.
//
// One registry stands in for many: the host that an image's name starts with
// comes in the query parameter ns, which containerd sends to mirrors, or as the
// first part of the repository. A Handler is safe for concurrent use.
package registry

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const maxManifest = 4 << 20

// Handler serves the layout in a folder.
type Handler struct {
	layout layout
	log    *slog.Logger
}

// New makes a handler for the layout in dir.
func New(log *slog.Logger, dir string) *Handler {
	return &Handler{layout: layout{dir: dir}, log: log}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only")
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "not part of the registry API")
		return
	}
	if path == "" {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte("{}"))
		return
	}
	if repository, reference, ok := split(path, "/manifests/"); ok {
		h.manifest(w, r, repository, reference)
		return
	}
	if _, digest, ok := split(path, "/blobs/"); ok {
		h.blob(w, r, digest)
		return
	}
	refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "not part of the registry API")
}

// split cuts at the last separator: repositories contain slashes, references do not.
func split(path, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(path, sep)
	if i <= 0 {
		return "", "", false
	}
	return path[:i], path[i+len(sep):], true
}

func (h *Handler) manifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	digest := reference
	if !digestPattern.MatchString(reference) {
		d, ok, err := h.layout.lookup(r.URL.Query().Get("ns"), repository, reference)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		if !ok {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no image "+repository+":"+reference)
			return
		}
		digest = d.Digest
	}
	if !digestPattern.MatchString(digest) {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "unusable digest "+digest)
		return
	}
	path := h.layout.blob(digest)
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxManifest {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", digest+" is no manifest")
		return
	}
	data, err := os.ReadFile(path)
	if err != nil {
		h.missing(w, r, err, "MANIFEST_UNKNOWN", digest)
		return
	}
	w.Header().Set("Content-Type", mediaType(data))
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method == http.MethodGet {
		w.Write(data)
	}
}

func (h *Handler) blob(w http.ResponseWriter, r *http.Request, digest string) {
	if !digestPattern.MatchString(digest) {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "not a sha256 digest: "+digest)
		return
	}
	f, err := os.Open(h.layout.blob(digest))
	if err != nil {
		h.missing(w, r, err, "BLOB_UNKNOWN", digest)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", typeOctets)
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Etag", `"`+digest+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}

func (h *Handler) missing(w http.ResponseWriter, r *http.Request, err error, code, digest string) {
	if errors.Is(err, fs.ErrNotExist) {
		refuse(w, http.StatusNotFound, code, "no "+digest)
		return
	}
	h.fail(w, r, err)
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	h.log.Error("serve image", "url", r.URL.String(), "err", err)
	refuse(w, http.StatusInternalServerError, "UNKNOWN", "the registry cannot read its images")
}

// refuse answers with an error in the specification's form.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type problem struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string][]problem{"errors": {{code, message}}}) // a client that left needs no answer
}
