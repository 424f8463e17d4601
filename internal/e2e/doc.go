// Package e2e tests the program as it is used, with real parts: processes that
// are killed, file systems that lose power, fill up or are mounted read-only,
// block devices, backups mounted as files, and the memory that a disk of terabytes takes.
//
// It has nothing but tests. They take minutes and want root, so that "make e2e"
// runs them and "go test ./..." does not; see TestMain for what they read from
// the environment.
package e2e
