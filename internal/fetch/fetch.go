// Package fetch asks servers, by http and https, for what a machine needs before
// it has a configuration.
//
// What a server answers may be hostile, and the first process must not read it:
// a Child asks in a process of its own, which has no rights, for every question
// anew. Run is that process, Client what both are made of. What is asked for, and
// what to do with the answer, is the caller's. Safe for concurrent use.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"talos/internal/version"
)

// How long a server may take. An attempt is given up after all of it.
const (
	dialTimeout     = 10 * time.Second
	responseTimeout = 30 * time.Second
	fetchTimeout    = 2 * time.Minute
)

// maxRedirects is how often a server may send the machine elsewhere.
const maxRedirects = 5

// Client asks servers in this process.
type Client struct {
	client *http.Client
	now    func() time.Time
}

// New makes a client. roots are who may sign for servers, nil those of the
// image; now is the clock.
func New(roots *x509.CertPool, now func() time.Time) *Client {
	return &Client{now: now, client: &http.Client{
		Timeout:       fetchTimeout,
		CheckRedirect: mayRedirect,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: responseTimeout,
			DisableKeepAlives:     true, // minutes lie between the questions
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Time: now},
		},
	}}
}

// mayRedirect follows a server a few times, and never to where others can read
// or change what it says.
func mayRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("redirected more than %d times", maxRedirects)
	case r.URL.Scheme != "https" && r.URL.Scheme != "http":
		return fmt.Errorf("redirected to %s: want http or https", r.URL.Redacted())
	case r.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https":
		return fmt.Errorf("redirected from https to http: %s", r.URL.Redacted())
	}
	return nil
}

// answerError is an answer that is not what was asked for.
type answerError struct {
	status int
	text   string
}

func (e answerError) Error() string {
	text := fmt.Sprintf("answered %d %s", e.status, http.StatusText(e.status))
	if e.text != "" {
		text += ": " + e.text
	}
	return text
}

// Missing tells a server that has no such file.
func Missing(err error) bool {
	var answer answerError
	return errors.As(err, &answer) && (answer.status == http.StatusNotFound || answer.status == http.StatusGone)
}

// Get asks for what is at a URL, of at most limit bytes. The error does not repeat
// the URL.
func (f *Client) Get(ctx context.Context, u *url.URL, limit int) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "talos/"+version.Tag)
	resp, err := f.client.Do(r)
	if err != nil {
		return nil, f.explain(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, answerError{resp.StatusCode, firstLine(body)}
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case len(body) > limit:
		return nil, fmt.Errorf("the answer is longer than %d bytes", limit)
	}
	return body, nil
}

// firstLine is what an answer begins with, fit for a console.
func firstLine(body []byte) string {
	const most = 120
	line, _, _ := strings.Cut(strings.TrimSpace(string(body[:min(len(body), 4*most)])), "\n")
	return printable(line, most)
}

// printable is what of a text can be shown, of at most that many bytes.
func printable(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), most)], "") // a letter that was cut in two is none
}

// explain says what went wrong in the words of a person at the console.
func (f *Client) explain(err error) error {
	var of *url.Error
	if errors.As(err, &of) { // its text repeats the URL, with passwords
		err = of.Err
	}
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired || invalid.Cert == nil {
		return err
	}
	now := f.now().UTC()
	if !now.Before(invalid.Cert.NotBefore) {
		return fmt.Errorf("its certificate was valid until %s, but the machine's clock says %s: renew it, or correct the clock: %w",
			invalid.Cert.NotAfter.UTC().Format(time.RFC3339), now.Format(time.RFC3339), err)
	}
	return fmt.Errorf("its certificate is valid from %s on, but the machine's clock says %s: the clock is wrong, waiting for time to be synchronised: %w",
		invalid.Cert.NotBefore.UTC().Format(time.RFC3339), now.Format(time.RFC3339), err)
}
