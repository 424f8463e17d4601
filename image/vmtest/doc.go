// Package vmtest boots machines in qemu for tests: Debian's kernel with a root
// file system in memory that holds busybox and what the test puts there.
//
// Everything is emulated, so that it runs where there is no /dev/kvm: a machine
// is up in a few seconds of a quiet processor, and whatever it does then takes
// some ten times as long as elsewhere. It is there for what only another kernel can
// show, not for speed.
//
// The kernel is that of the package linux-image-amd64, unpacked below the
// user's cache directory by internal/dev/deps and installed nowhere.
package vmtest
