package child

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// escapeVerb runs the process of samples with one attempt to get out, made when
// it is confined.
const escapeVerb = "guest-child-escape"

// unfilteredVerb does so in a process that may make any system call.
const unfilteredVerb = "guest-child-unfiltered"

// onlyFiltered are the attempts that harm nobody, and are refused by the filter
// alone.
var onlyFiltered = map[string]bool{"make a socket": true, "fork": true, "io_uring": true, "new namespace": true, "signal all": true, "signal the parent": true}

// escapes are attempts; each says what came of it.
var escapes = map[string]func() error{
	"open a file":        func() error { return second(os.Open("/etc/passwd")) },
	"open the root":      func() error { return second(os.Open("/")) },
	"make a file":        func() error { return os.WriteFile("/tmp/escaped", nil, 0o600) },
	"list by descriptor": func() error { return second(os.Open("/proc/self/fd")) },
	"connect":            func() error { return second(net.DialTimeout("tcp", "127.0.0.1:22", time.Second)) },
	"make a socket":      func() error { return second(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)) },
	"run a program":      func() error { return exec.Command("/bin/true").Run() },
	"replace itself":     func() error { return syscall.Exec("/bin/true", []string{"true"}, nil) },
	"fork": func() error {
		_, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		return errnoOf(errno)
	},
	"new namespace":     func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"signal the parent": func() error { return unix.Kill(os.Getppid(), 0) },
	"signal all":        func() error { return unix.Kill(-1, 0) },
	"trace":             func() error { return unix.PtraceAttach(os.Getppid()) },
	"become root":       func() error { return syscall.Setuid(0) },
	"mount":             func() error { return unix.Mount("none", "/", "tmpfs", 0, "") },
	"io_uring": func() error {
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, 0, 0)
		return errnoOf(errno)
	},
	"raise a limit": func() error {
		return unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	},
	"other descriptors": func() error {
		for fd := lineFD + 1; fd < 100; fd++ {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
				continue
			}
			if _, err := unix.Read(fd, nil); err != unix.EINVAL { // of epoll and eventfd
				return nil
			}
		}
		return unix.EPERM
	},
}

func second[T any](_ T, err error) error { return err }

func errnoOf(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// escapeAfter confines the process, with that filter, and makes one attempt.
func escapeAfter(filter func() error) func(int64) ([]string, []string, error) {
	return func(memory int64) ([]string, []string, error) {
		if _, _, err := confineBy(memory, filter); err != nil {
			return nil, nil, err
		}
		escape(os.Args[2])
		return nil, nil, nil
	}
}

// escape makes one attempt and ends the process, saying how it went.
func escape(how string) {
	err := escapes[how]()
	fmt.Fprintf(os.Stderr, "%s: %v\n", how, err)
	if err == nil {
		os.Exit(7)
	}
	var errno syscall.Errno
	refused := []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOENT, unix.ESRCH, unix.ENETUNREACH, unix.EINVAL}
	if !errors.As(err, &errno) || !slices.Contains(refused, errno) {
		os.Exit(8)
	}
	os.Exit(9)
}

func TestConfined(t *testing.T) {
	for how := range escapes {
		for _, verb := range []string{escapeVerb, unfilteredVerb} {
			weak := listsThreads && os.Geteuid() != 0 // a program with cgo, and no landlock: see restrictFiles
			if verb == unfilteredVerb && (onlyFiltered[how] || weak) {
				continue
			}
			t.Run(how+" "+verb, func(t *testing.T) {
				t.Parallel()
				_, err := Start(t.Context(), Options{Command: []string{self, verb, how}})
				if err == nil || !strings.Contains(err.Error(), "exit status 9") {
					t.Errorf("got %v, want exit status 9: not permitted", err)
				}
				t.Log(err)
			})
		}
	}
}

// TestConfinement sees what the kernel says of the process.
func TestConfinement(t *testing.T) {
	c := start(t, Options{})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.process()))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	want := map[string]string{"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapInh": "0000000000000000", "CapAmb": "0000000000000000"}
	if os.Geteuid() == 0 {
		want["Uid"] = "65534\t65534\t65534\t65534"
		want["Gid"] = "65534\t65534\t65534\t65534"
		want["Groups"] = ""
	}
	for name, value := range want {
		if fields[name] != value {
			t.Errorf("%s: %q, want %q", name, fields[name], value)
		}
	}
	kinds := []string{"net", "ipc", "uts", "pid"}
	if os.Geteuid() == 0 {
		kinds = append(kinds, "mnt")
		mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", c.process()))
		for line := range strings.Lines(string(mounts)) {
			if kind := strings.Fields(line)[2]; err != nil || kind != "tmpfs" && kind != "proc" {
				t.Errorf("%v, mounted: %s", err, line)
			}
		}
	}
	for _, ns := range kinds {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.process(), ns))
		if os.Geteuid() != 0 && err != nil { // not ours to see
			continue
		}
		if err != nil || its == own {
			t.Errorf("namespace %s: %s, %v, the same as ours", ns, its, err)
		}
	}
	if c.warned != "[]" && !(listsThreads && os.Geteuid() != 0) {
		t.Errorf("it lacks %s", c.warned)
	}
}
