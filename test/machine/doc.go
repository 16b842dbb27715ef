// Package machine holds tests of one virtual machine each, under our kernel and
// from our images, with as little of Kubernetes as a test needs: how it gets its
// configuration, what firmware and kernel refuse to run, what it says when
// something that it needs is missing and how it goes on when that is there, its
// disks and how it installs itself on them, what a monitor shows, and what a
// reset leaves.
//
// A test has a network of its own, in a namespace that only it sees, with the
// servers that it starts on it. It reads the machine's console and calls
// talosctl, as a person would. The package's tests need root, QEMU and what
// `make image` leaves. With -short the parts are left out that take minutes;
// tests called TestSoak… are long as a whole, and `make soak` alone has them.
package machine
