// Package sbom writes down what software is made of: an SPDX 2.3 document in
// JSON, from the programs and files themselves.
//
// A Go program names its modules itself; any other file is asked after in
// dpkg's database, on the machine that packs it. Equal inputs give equal bytes:
// the document holds no time and no random number. The package decides nothing
// about what goes into an image, and keeps no state.
package sbom

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// File is something that is packed.
type File struct {
	Name   string // where it goes, without a leading slash
	Source string // where it is on this machine
	// Packages are Debian packages that it was made from beside what is found
	// out: of what was linked into it, or of a file that no package owns.
	Packages []string
}

// Part is software of a Debian source that was built here, such as the kernel.
type Part struct {
	Name    string
	Version string
}

// Write makes the document for what is called name and version.
func Write(ctx context.Context, name, version string, files []File, parts ...Part) ([]byte, error) {
	d := &document{packages: map[string]Package{}, relations: map[relation]bool{}}
	root := d.add(Package{Name: name, Version: version, Purpose: "OPERATING-SYSTEM"})
	d.relate("SPDXRef-DOCUMENT", "DESCRIBES", root)
	for _, p := range parts {
		d.relate(root, "CONTAINS", d.add(debian(p.Name, p.Version, "", "source")))
	}
	var others []File
	for _, f := range files {
		info, err := buildinfo.ReadFile(f.Source)
		if err == nil {
			d.relate(root, "CONTAINS", d.program(f, info, version))
		}
		if err != nil || len(f.Packages) > 0 {
			others = append(others, f)
		}
	}
	if err := d.debian(ctx, root, others); err != nil {
		return nil, err
	}
	return d.encode(name, version)
}

// Package is a part of the document.
type Package struct {
	ID           string        `json:"SPDXID"`
	Name         string        `json:"name"`
	Version      string        `json:"versionInfo,omitempty"`
	Purpose      string        `json:"primaryPackagePurpose,omitempty"`
	Location     string        `json:"downloadLocation"`
	Analyzed     bool          `json:"filesAnalyzed"`
	Concluded    string        `json:"licenseConcluded"`
	Declared     string        `json:"licenseDeclared"`
	Copyright    string        `json:"copyrightText"`
	Checksums    []checksum    `json:"checksums,omitempty"`
	ExternalRefs []externalRef `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relation struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// document is one that grows.
type document struct {
	packages  map[string]Package // by id
	relations map[relation]bool
}

// add returns the id of a package, which follows from its name and version.
func (d *document) add(p Package) string {
	id := sha256.Sum256([]byte(p.Name + "\x00" + p.Version + "\x00" + p.Purpose))
	p.ID = "SPDXRef-Package-" + hex.EncodeToString(id[:8])
	const unknown = "NOASSERTION"
	p.Location, p.Concluded, p.Declared, p.Copyright = unknown, unknown, unknown, unknown
	d.packages[p.ID] = p
	return p.ID
}

func (d *document) relate(from, kind, to string) { d.relations[relation{from, kind, to}] = true }

func purl(locator string) []externalRef {
	return []externalRef{{"PACKAGE-MANAGER", "purl", locator}}
}

// program adds a Go program and the modules in it. One that has no version of
// its own is ours and has the document's.
func (d *document) program(f File, info *buildinfo.BuildInfo, version string) string {
	p := Package{Name: filepath.Base(f.Name), Version: info.Main.Version, Purpose: "APPLICATION"}
	if p.Version == "" || p.Version == "(devel)" {
		p.Version = version
	}
	if sum, err := fileSum(f.Source); err == nil { // it was readable just now
		p.Checksums = []checksum{{"SHA256", sum}}
	}
	id := d.add(p)
	d.relate(id, "DEPENDS_ON", d.add(module("stdlib", strings.TrimPrefix(info.GoVersion, "go"))))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		d.relate(id, "DEPENDS_ON", d.add(module(m.Path, m.Version)))
	}
	return id
}

func module(path, version string) Package {
	return Package{Name: path, Version: version, Purpose: "LIBRARY",
		ExternalRefs: purl("pkg:golang/" + path + "@" + url.QueryEscape(version))}
}

func debian(name, version, upstream, arch string) Package {
	query := url.Values{"arch": {arch}}
	if upstream != "" {
		query.Set("upstream", upstream)
	}
	vendor, release := distribution()
	if release != "" {
		query.Set("distro", vendor+"-"+release)
	}
	return Package{Name: name, Version: version, Purpose: "LIBRARY",
		ExternalRefs: purl("pkg:deb/" + vendor + "/" + name + "@" + url.QueryEscape(version) + "?" + query.Encode())}
}

// distribution is whose packages this machine has.
var distribution = sync.OnceValues(func() (vendor, release string) {
	vendor = "debian"
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return vendor, ""
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch value = strings.Trim(value, `"`); key {
		case "ID":
			vendor = value
		case "VERSION_ID":
			release = value
		}
	}
	return vendor, release
})

// debian adds the packages that the files are from.
func (d *document) debian(ctx context.Context, root string, files []File) error {
	names := map[string]bool{}
	var unknown []string
	for _, f := range files {
		if len(f.Packages) == 0 {
			unknown = append(unknown, f.Source)
		}
		for _, n := range f.Packages {
			names[n] = true
		}
	}
	found, err := owners(ctx, unknown)
	if err != nil {
		return err
	}
	for _, n := range found {
		names[n] = true
	}
	if len(names) == 0 {
		return nil
	}
	const format = "${Package}\t${Version}\t${Architecture}\t${source:Package}@${source:Version}\n"
	args := append([]string{"-W", "-f", format}, slices.Sorted(maps.Keys(names))...)
	out, err := exec.CommandContext(ctx, "dpkg-query", args...).Output()
	if err != nil {
		return fmt.Errorf("dpkg-query: %w", withStderr(err))
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 {
			return fmt.Errorf("dpkg-query prints %q", line)
		}
		d.relate(root, "CONTAINS", d.add(debian(f[0], f[1], f[3], f[2])))
	}
	return nil
}

// owners asks which packages files are from. dpkg has the names from before
// /usr was merged, for some files those from after.
func owners(ctx context.Context, files []string) (map[string]string, error) {
	asked := map[string][]string{} // files by what is asked for them
	for _, f := range files {
		real, err := filepath.EvalSymlinks(f)
		if err != nil {
			return nil, err
		}
		for _, name := range []string{f, real} {
			plain := strings.TrimPrefix(name, "/usr")
			asked[plain], asked["/usr"+plain] = append(asked[plain], f), append(asked["/usr"+plain], f)
		}
	}
	owner := map[string]string{}
	if len(asked) == 0 {
		return owner, nil
	}
	// The exit code says that some name is not known: that is so for one of each two.
	out, err := exec.CommandContext(ctx, "dpkg-query", append([]string{"-S"}, slices.Sorted(maps.Keys(asked))...)...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("dpkg-query -S: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		for _, f := range asked[name] {
			owner[f] = pkg
		}
	}
	for _, f := range files {
		if owner[f] == "" {
			return nil, fmt.Errorf("%s is of no Debian package and is no Go program", f)
		}
	}
	return owner, nil
}

func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}

func fileSum(name string) (string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// encode writes all in order. The namespace, which must be unique to the
// document, holds the hash of its content.
func (d *document) encode(name, version string) ([]byte, error) {
	packages := slices.SortedFunc(maps.Values(d.packages), func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.ID, b.ID))
	})
	relations := slices.SortedFunc(maps.Keys(d.relations), func(a, b relation) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Type, b.Type), cmp.Compare(a.To, b.To))
	})
	content, err := json.Marshal([]any{packages, relations})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err = enc.Encode(struct {
		Version       string         `json:"spdxVersion"`
		License       string         `json:"dataLicense"`
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Namespace     string         `json:"documentNamespace"`
		Creation      map[string]any `json:"creationInfo"`
		Packages      []Package      `json:"packages"`
		Relationships []relation     `json:"relationships"`
	}{
		"SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT", name + " " + version,
		"https://talos.dev/spdx/" + url.PathEscape(name+"-"+version) + "-" + hex.EncodeToString(sum[:16]),
		map[string]any{"created": "1970-01-01T00:00:00Z", "creators": []string{"Tool: imager-" + version}},
		packages, relations,
	})
	return b.Bytes(), err
}
