// Package caps tells which capabilities this process has, and uses those that
// may be missing in a container: raising limits and lowering OOM scores.
//
// It changes this process alone and keeps no state.
package caps

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Has says whether a capability (unix.CAP_…) is effective.
func Has(capability int) (bool, error) {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return false, err
	}
	defer file.Close()
	effective, err := parseEffective(file)
	return effective&(1<<capability) != 0, err
}

func parseEffective(r io.Reader) (uint64, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		}
	}
	return 0, errors.Join(errors.New("no CapEff in /proc/self/status"), lines.Err())
}

// RaiseNoFile raises the limit of open files to want, or as far as allowed, and
// returns what it is then.
func RaiseNoFile(want uint64) (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit RLIMIT_NOFILE", err)
	}
	if limit.Cur >= want {
		return limit.Cur, nil
	}
	raised := unix.Rlimit{Cur: want, Max: max(want, limit.Max)}
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised)
	if errors.Is(err, unix.EPERM) {
		raised = unix.Rlimit{Cur: limit.Max, Max: limit.Max}
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &raised)
	}
	if err != nil {
		return limit.Cur, os.NewSyscallError("setrlimit RLIMIT_NOFILE", err)
	}
	return raised.Cur, nil
}

// SetOOMScore sets how likely a process is the one that the kernel kills when
// memory runs out (-1000 … 1000). A score below the process's own needs
// CAP_SYS_RESOURCE; without it the score stays and the error is EACCES.
func SetOOMScore(pid, score int) error {
	path := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	return os.WriteFile(path, []byte(strconv.Itoa(score)), 0)
}

// OOMScore returns a process's score.
func OOMScore(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
