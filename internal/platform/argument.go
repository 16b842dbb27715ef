package platform

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/klauspost/compress/zstd"

	"talos/config"
	"talos/internal/cmdline/redact"
)

// isoLabel is both the value of talos.config and the label of the volume.
const isoLabel = "metal-iso"

// argument asks where the kernel's command line says: talos.config, else
// talos.config.inline.
func (p *Platform) argument(ctx context.Context) (document []byte, from string, err error) {
	where := p.Cmdline.Config()
	switch {
	case where == isoLabel:
		document, err = p.fromVolume(ctx, "config.yaml", isoLabel)
		return document, "the volume " + isoLabel, err
	case where != "":
		return p.fromServer(ctx, where)
	}
	if text := p.Cmdline.InlineConfig(); text != "" {
		document, err = inline(text)
		return document, "the kernel argument talos.config.inline", err
	}
	return nil, "", nil
}

// fromVolume reads a file of a volume that must have it.
func (p *Platform) fromVolume(ctx context.Context, name, label string) ([]byte, error) {
	files, err := p.Volumes.Read(ctx, label, File{Name: name, Limit: config.MaxSize})
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(files[name])) == 0 {
		return nil, fmt.Errorf("volume %s: %s is empty", label, name)
	}
	return files[name], nil
}

func (p *Platform) fromServer(ctx context.Context, template string) (document []byte, from string, err error) {
	argument := "kernel argument talos.config=" + redact.Text(template)
	text, err := p.expand(ctx, template)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", argument, err)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, "", wrong("%s: %w", argument, errors.Unwrap(err))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, "", wrong("%s: want http://, https:// or %s", argument, isoLabel)
	}
	from = u.Redacted()
	document, err = p.Fetch(ctx, u, config.MaxSize)
	if err == nil && len(bytes.TrimSpace(document)) == 0 {
		err = errors.New("the answer is empty")
	}
	if err != nil {
		return nil, "", fmt.Errorf("configuration server %s: %w", from, err)
	}
	return document, from, nil
}

// expand puts the machine's identity into a URL.
func (p *Platform) expand(ctx context.Context, template string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(template, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", wrong("${%s has no end", rest)
		}
		value, err := p.variable(ctx, name)
		if err != nil {
			return "", err
		}
		b.WriteString(strings.ReplaceAll(url.QueryEscape(value), "+", "%20")) // right in a path too
		template = after
	}
}

func (p *Platform) variable(ctx context.Context, name string) (string, error) {
	var value, missing string
	switch name {
	case "uuid":
		value, missing = p.identity().uuid, "the firmware tells none"
	case "serial":
		value, missing = p.identity().serial, "the firmware tells none"
	case "mac", "hostname":
		m, err := p.Machine(ctx)
		if err != nil {
			return "", fmt.Errorf("${%s}: %w", name, err)
		}
		value, missing = m.HardwareAddr, "there is no Ethernet link yet"
		if name == "hostname" {
			value, missing = m.Hostname, "the machine has no name yet"
		}
	default:
		return "", wrong("${%s} is not known: known are ${uuid}, ${serial}, ${mac} and ${hostname}", name)
	}
	if value == "" {
		return "", fmt.Errorf("${%s}: %s", name, missing)
	}
	return value, nil
}

// inline decodes zstd in base64.
func inline(text string) ([]byte, error) {
	const argument = "kernel argument talos.config.inline"
	packed, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, wrong("%s: %w", argument, err)
	}
	r, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(4*config.MaxSize))
	if err != nil {
		return nil, wrong("%s: %w", argument, err)
	}
	defer r.Close()
	document, err := io.ReadAll(io.LimitReader(r, config.MaxSize+1))
	switch {
	case err != nil:
		return nil, wrong("%s: zstd: %w", argument, err)
	case len(document) > config.MaxSize:
		return nil, wrong("%s: longer than %d bytes", argument, config.MaxSize)
	case len(bytes.TrimSpace(document)) == 0:
		return nil, wrong("%s: it is empty", argument)
	}
	return document, nil
}
