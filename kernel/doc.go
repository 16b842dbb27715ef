// Package kernel tests the kernel that this folder builds.
//
// The folder owns the kernel's configuration, one concern per fragment
// (*.config), each block of options with its reason, and patches (*.patch); the
// script build, which makes _out/kernel of them and of Debian's source; the
// script files, which makes _out/kernel-files of what the root needs of the
// kernel, from the lists that the script lists writes; and boottest, the program
// that tries the result in an emulated machine. What is decided at run time,
// arguments and sysctls, is in package internal/hardening; what is made of the
// kernel (images, unified kernel images) is not here.
//
// Why which options are on is in the fragments, the rest in
// docs/decisions/0004-kernel.md. There is no code beside the tests, and no state.
package kernel
