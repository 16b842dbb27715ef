package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// suiteLimit is how long the tests of a package may take.
const suiteLimit = 2 * time.Minute

// tests runs each program of the list in its folder, and copies what it says to
// the machine's virtual serial port, between two lines of its own.
func tests() error {
	data, err := os.ReadFile("/tests/list.json")
	if err != nil {
		return err
	}
	var list []struct{ Package, Run string }
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	ports, err := filepath.Glob("/dev/vport*")
	if err != nil || len(ports) != 1 {
		return fmt.Errorf("virtual serial ports %q, %v, want one", ports, err)
	}
	report, err := os.OpenFile(ports[0], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer report.Close()
	for _, s := range list {
		fmt.Fprintf(report, "=== PACKAGE %s\n", s.Package)
		began := time.Now()
		err := suite(s.Package, s.Run, report)
		fmt.Fprintf(report, "=== END %v\n", err)
		say("%s: %v, %v", s.Package, err, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

func suite(name, pattern string, report *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), suiteLimit+10*time.Second)
	defer cancel()
	dir := filepath.Join("/tests", name)
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "test"), "-test.v", "-test.run="+pattern, "-test.timeout="+suiteLimit.String())
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, report, report
	cmd.Env = append(os.Environ(), "TALOS_IN_VM=1", "REQUIRE_PRIV=1", "REQUIRE_IMAGE=1")
	cmd.WaitDelay = 5 * time.Second
	return cmd.Run()
}
