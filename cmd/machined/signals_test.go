package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSignalsDoNotEndIt sends a process that is deaf what any root process of
// the node could send to the first one.
func TestSignalsDoNotEndIt(t *testing.T) {
	const child = "TALOS_TEST_DEAF"
	if os.Getenv(child) != "" {
		deafen()
		fmt.Println("ready")
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			fmt.Println(in.Text())
		}
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSignalsDoNotEndIt$")
	cmd.Env = append(os.Environ(), child+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	out := bufio.NewScanner(stdout)
	if !out.Scan() {
		t.Fatal("the process did not start")
	}
	for sig := unix.SIGHUP; sig <= unix.SIGSYS; sig++ {
		if sig == unix.SIGKILL || sig == unix.SIGSTOP {
			continue // the kernel keeps these from the first process
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatalf("send %v: %v", sig, err)
		}
		fmt.Fprintln(in, "alive after", sig)
		if !out.Scan() {
			t.Fatalf("%v ended the process", sig)
		}
	}
}
