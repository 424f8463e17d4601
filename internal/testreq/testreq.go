// Package testreq says what a test needs from the machine it runs on.
package testreq

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Need skips the test when one of the things named is missing, and says which.
// "root" is an effective user id of 0; "loop" is root with /dev/loop-control;
// "kernel" is what Kernel finds; "qemu-nfs" is the driver with which qemu opens
// images over NFS; anything else is a program looked for in PATH and in the sbin directories.
// With HOLDFAST_REQUIRE=all in the environment, as CI sets it, a missing part
// fails the test instead.
func Need(tb testing.TB, what ...string) {
	tb.Helper()
	var missing []string
	for _, w := range what {
		if !have(w) {
			missing = append(missing, w)
		}
	}
	if len(missing) == 0 {
		return
	}
	msg := "needs " + strings.Join(missing, ", ")
	if os.Getenv("HOLDFAST_REQUIRE") == "all" {
		tb.Fatal(msg)
	}
	tb.Skip(msg)
}

func have(what string) bool {
	switch what {
	case "root":
		return os.Geteuid() == 0
	case "loop":
		_, err := os.Stat("/dev/loop-control")
		return os.Geteuid() == 0 && err == nil
	case "kernel":
		_, ok := Kernel()
		return ok
	case "qemu-nfs":
		drivers, _ := filepath.Glob("/usr/lib/*/qemu/block-nfs.so") // the pattern is in order
		return len(drivers) > 0
	}
	if _, err := exec.LookPath(what); err == nil {
		return true
	}
	for _, dir := range []string{"/sbin", "/usr/sbin", "/usr/local/sbin"} {
		if _, err := os.Stat(dir + "/" + what); err == nil {
			return true
		}
	}
	return false
}

// Kernel returns the directory with the kernel that tests boot in machines:
// vmlinux and, below modules, what it can load. internal/dev/deps fills it.
func Kernel() (dir string, ok bool) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", false
	}
	dir = filepath.Join(cache, "holdfast", "kernel")
	_, err = os.Stat(filepath.Join(dir, "vmlinux"))
	return dir, err == nil
}
