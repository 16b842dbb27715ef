package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/linux/reap"
)

// TestMain is fetchd too, and processes that are none.
func TestMain(m *testing.M) {
	switch role := os.Getenv("FETCH_TEST"); role {
	case "":
		os.Exit(m.Run())
	case "fetchd":
		run := func() error { return Run(context.Background(), slog.New(slog.DiscardHandler)) }
		if race {
			run = func() error {
				return errors.Join(confine(unix.RLIM_INFINITY), serve(context.Background(), New(nil, time.Now), os.Stdin, os.Stdout))
			}
		}
		if err := run(); err != nil {
			os.Exit(7)
		}
	case "hang":
		time.Sleep(time.Hour)
	case "crash":
		os.Exit(2)
	default:
		fmt.Print(role)
	}
}

const limit = 1000

// reaper is the one that a process may have.
var reaper = sync.OnceValues(reap.New)

// child is a Child whose program is this test in a role.
func child(t *testing.T, role string) (c Child, pid *int) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("other users need root")
		}
		t.Skip("other users need root")
	}
	r, err := reaper()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Open("/proc/self/exe") // whose folder other users can't enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { self.Close() })
	pid = new(int)
	return Child{UID: 12345, Start: func(path string, argv []string, attr *os.ProcAttr) (*reap.Process, error) {
		if path != program || argv[1] != "fetchd" {
			t.Errorf("the program is %s %q", path, argv)
		}
		attr.Env = append(attr.Env, "FETCH_TEST="+role)
		attr.Files = append(attr.Files, self)
		p, err := r.Start("/proc/self/fd/3", argv, attr)
		if err == nil {
			*pid = p.PID
		}
		return p, err
	}}, pid
}

func server(t *testing.T, handle http.HandlerFunc) *url.URL {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestSame: what a process of its own answers is what the client does, in the
// same words.
func TestSame(t *testing.T) {
	base := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/document":
			fmt.Fprint(w, "version: v1alpha1\n")
		case "/empty":
		case "/full":
			fmt.Fprint(w, strings.Repeat("x", limit))
		case "/long":
			fmt.Fprint(w, strings.Repeat("x", limit+1))
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "x")
		default:
			http.Error(w, "no such \x1b[31mmachine", http.StatusNotFound)
		}
	})
	c, _ := child(t, "fetchd")
	client := New(nil, time.Now)
	for path, want := range map[string]string{
		"/document": "version: v1alpha1\n <nil>", "/empty": " <nil>", "/full": strings.Repeat("x", limit) + " <nil>",
		"/long": " the answer is longer than 1000 bytes", "/other": " answered 404 Not Found: no such [31mmachine",
		"/loop": " redirected more than 5 times", "/cut": " read the answer: unexpected EOF",
	} {
		u := base.JoinPath(path)
		for who, get := range map[string]func(context.Context, *url.URL, int) ([]byte, error){"client": client.Get, "child": c.Get} {
			body, err := get(t.Context(), u, limit)
			if got := fmt.Sprintf("%s %v", body, err); got != want || Missing(err) != (path == "/other") {
				t.Errorf("%s: %s got %q, want %q", path, who, got, want)
			}
		}
	}
	closed := *base
	closed.Host = "127.0.0.1:1"
	closed.User = url.UserPassword("user", "secret")
	if _, err := c.Get(t.Context(), &closed, limit); err == nil || err.Error() != "dial tcp 127.0.0.1:1: connect: connection refused" {
		t.Errorf("where nobody listens Get = %v", err)
	}
}

// TestRights: the process that reads what a server answers is another user, has
// no capabilities and can get none, and does not last.
func TestRights(t *testing.T) {
	asked, goOn := make(chan struct{}), make(chan struct{})
	u := server(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-goOn
		fmt.Fprint(w, "x")
	})
	c, pid := child(t, "fetchd")
	got := make(chan error, 1)
	go func() {
		_, err := c.Get(t.Context(), u, limit)
		got <- err
	}()
	<-asked
	proc := fmt.Sprintf("/proc/%d", *pid)
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Uid:\t12345\t12345\t12345\t12345\n", "Gid:\t12345\t12345\t12345\t12345\n", "Groups:\t \n", "NoNewPrivs:\t1\n",
		"CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
	} {
		if !strings.Contains(string(status), want) {
			t.Errorf("its status lacks %q:\n%s", want, status)
		}
	}
	for _, ns := range []string{"pid", "ipc", "uts"} {
		its, err := os.Readlink(filepath.Join(proc, "ns", ns))
		ours, err2 := os.Readlink("/proc/self/ns/" + ns)
		if errors.Join(err, err2) != nil || its == ours {
			t.Errorf("namespace %s: %s and %s, %v, want its own", ns, its, ours, errors.Join(err, err2))
		}
	}
	if line, err := os.ReadFile(filepath.Join(proc, "cmdline")); err != nil || strings.Contains(string(line), u.Host) {
		t.Errorf("its command line is %q, %v: all see that, and a URL may hold a password", line, err)
	}
	close(goOn)
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(proc); !os.IsNotExist(err) {
		t.Errorf("after the answer: %v, want it gone", err)
	}
}

// TestBroken: a process that was taken over, or that hangs, gets nothing past its
// bounds, and holds nobody.
func TestBroken(t *testing.T) {
	u := &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	for role, want := range map[string]string{
		"crash":                          "fetchd gave no answer: read its answer: EOF\n",
		"{}\n":                           "",
		"noise\n":                        "fetchd gave no answer: read its answer: invalid character",
		`{"size": 5}` + "\nabc":          "fetchd gave no answer: read 5 bytes: unexpected EOF",
		`{"size": 1001}` + "\n":          "fetchd gave no answer: it says that the answer has 1001 bytes, want at most 1000",
		`{"size": -1}` + "\n":            "fetchd gave no answer: it says that the answer has -1 bytes",
		strings.Repeat("x", 2*maxAnswer): "fetchd gave no answer: read its answer: bufio: buffer full",
		`{"failed": true, "text": "a\u001b[2Jb\nc` + strings.Repeat("x", 2*maxText) + "\"}\n": "a[2Jbcxxx",
	} {
		c, _ := child(t, role)
		_, err := c.Get(t.Context(), u, limit)
		if text := fmt.Sprint(err); !strings.HasPrefix(text, want) || role == "crash" && !strings.HasSuffix(text, "\nexited with code 2") || want == "" && err != nil || len(text) > 2*maxText {
			t.Errorf("%.40q: Get = %v, want %q", role, err, want)
		}
	}
	c, pid := child(t, "hang")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx, u, limit); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get of one that hangs = %v", err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", *pid)); !os.IsNotExist(err) {
		t.Errorf("what hung is still there: %v", err)
	}
	c.Start = func(string, []string, *os.ProcAttr) (*reap.Process, error) { return nil, os.ErrNotExist }
	if _, err := c.Get(t.Context(), u, limit); err == nil || !strings.Contains(err.Error(), "start fetchd: ") {
		t.Errorf("Get without a program = %v", err)
	}
}

// FuzzRead: no answer of the process crashes who reads it, or is longer than may be.
func FuzzRead(f *testing.F) {
	f.Add(`{"size": 3}` + "\nabc")
	f.Add(`{"failed": true, "text": "no"}` + "\n")
	f.Add(`{"status": 404}` + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		body, err := read(strings.NewReader(text), limit)
		if len(body) > limit || err != nil && body != nil {
			t.Errorf("read = %d bytes, %v", len(body), err)
		}
	})
}
