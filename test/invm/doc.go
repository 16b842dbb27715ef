// Package invm holds the tests that run in a virtual machine under our own
// kernel: those of other packages which need what the host's kernel may lack,
// and the ways down of a machine whose disk has stopped answering.
//
// It owns the list of those tests (suites), the machine that they run in, and
// guest, the program that is PID 1 there. What the kernel can is tested beside
// it, in kernel; whole machines, from firmware to Kubernetes, are test/e2e's. It
// needs the kernel built and QEMU, no root and no network.
package invm
