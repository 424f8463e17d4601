package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testreq"
)

// TestBoot boots machines that end well, end badly, are lost and take too long.
func TestBoot(t *testing.T) {
	if os.Getenv("HOLDFAST_LONG") == "" {
		t.Skip("boots machines: HOLDFAST_LONG=1")
	}
	Need(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("what the test has\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		m      Machine
		status int
		out    string
		fails  bool
	}{
		{"prints", Machine{Files: map[string]string{"some/where": file}, Script: "cat /some/where; uname -s"}, 0, "what the test has\nLinux\n", false},
		{"fails", Machine{Script: "exit 7"}, 7, "", false},
		{"has parts", Machine{Network: true, Modules: []string{"nfsv3"}, Script: "set -e; grep -q nfsv3 /proc/modules; ip addr show eth0 | grep -c 10.0.2.15"}, 0, "1\n", false},
		{"goes off", Machine{Script: "echo so far; poweroff -f; sleep 100"}, -1, "so far\n", true},
		{"panics", Machine{Script: "echo so far; echo c >/proc/sysrq-trigger; sleep 100"}, -1, "so far\n", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.m.Limit = 5 * time.Minute
			g := tt.m.Start(t)
			status, err := g.Wait()
			if status != tt.status || (err != nil) != tt.fails || g.Output() != tt.out {
				t.Errorf("status %d, %v, %q; want %d, failure %v, %q; the kernel says\n%s", status, err, g.Output(), tt.status, tt.fails, tt.out, g.Console())
			}
		})
	}
	t.Run("takes too long", func(t *testing.T) {
		lines := make(chan string, 1)
		m := Machine{Script: "echo up; sleep 1000", Limit: 5 * time.Minute, Line: func(s string) { lines <- s }}
		g := m.Start(t)
		if s := <-lines; s != "up" {
			t.Errorf("it prints %q", s)
		}
		g.Kill()
		if status, err := g.Wait(); status != -1 || err == nil {
			t.Errorf("status %d, %v", status, err)
		}
		if err := g.cmd.Process.Signal(os.Interrupt); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("qemu is still there: %v", err)
		}
	})
}

// TestArchive has another program unpack what the kernel is to unpack.
func TestArchive(t *testing.T) {
	testreq.Need(t, "busybox")
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := Machine{Files: map[string]string{"a/b/c": file, "a/d": file}, Script: "echo script"}
	var b bytes.Buffer
	if err := m.writeInitramfs(&b, file, []module{{"one", file}, {"two", file}}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("busybox", "cpio", "-idm")
	cmd.Dir, cmd.Stdin = t.TempDir(), &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for name, want := range map[string]string{
		"a/b/c": "12345", "a/d": "12345", "bin/busybox": "12345", "modules/one.ko": "12345",
		"modules/order": "one.ko\ntwo.ko\n", "script": "echo script", "init": m.init(),
	} {
		got, err := os.ReadFile(filepath.Join(cmd.Dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
		if info, err := os.Stat(filepath.Join(cmd.Dir, name)); err == nil && info.Mode().Perm() != 0o755 {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
	}
	m.Files = map[string]string{"x": filepath.Join(dir, "none")}
	if err := m.writeInitramfs(&b, file, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that isn't there: %v", err)
	}
}

// TestModules has every module come after those it needs.
func TestModules(t *testing.T) {
	testreq.Need(t, "kernel")
	kernel, _ := testreq.Kernel()
	dir := filepath.Join(kernel, "modules")
	list, err := modulesOf(dir, []string{"nfsv3", "virtio_net", "crc32c_generic", "ext4", "nfsv3"})
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, m := range list {
		if at[m.name] > 0 {
			t.Errorf("%s comes twice", m.name)
		}
		at[m.name] = i + 1
	}
	for _, order := range []string{"sunrpc lockd nfs nfsv3", "virtio_ring virtio virtio_net", "crc32c_generic ext4", "crc16 ext4", "jbd2 ext4"} {
		last := 0
		for _, name := range strings.Fields(order) {
			if at[name] <= last {
				t.Errorf("%s is at %d, behind %d in %q: %s", name, at[name], last, order, fmt.Sprint(list))
			}
			last = at[name]
		}
	}
	if _, err := modulesOf(dir, []string{"no_such"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a module that isn't there: %v", err)
	}
}
