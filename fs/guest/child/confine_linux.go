package child

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// nobody is the user and the group that own nothing.
const nobody = 65534

// maxProcs is how many processors a process uses at once.
const maxProcs = 4

// confine gives up, for the whole process and for good, all that reading a
// stranger's file system does not need. It has to come before anything of the
// stranger's is looked at. has and lacks say, for people, what confines the
// process now and what could not be had on this machine; err is what no process
// should go on without.
func confine(memory int64) (has, lacks []string, err error) {
	return confineBy(memory, filterCalls)
}

// confineBy is confine with a filter of system calls, so that a test can leave
// it out and see what the rest is good for.
func confineBy(memory int64, filterCalls func() error) (has, lacks []string, err error) {
	runtime.GOMAXPROCS(min(runtime.NumCPU(), maxProcs))
	note := func(what string, err error) {
		if err == nil {
			has = append(has, what)
		} else {
			lacks = append(lacks, fmt.Sprintf("%s: %v", what, err))
		}
	}
	if err := closeOthers(); err != nil {
		return nil, nil, err
	}
	before := mapped() // as long as there is a /proc
	if os.Geteuid() == 0 {
		note("an empty root directory", emptyRoot())
		if err := becomeNobody(); err != nil {
			return nil, nil, err
		}
		has = append(has, "user nobody")
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("ask to die with the parent: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("refuse to be traced: %w", err)
	}
	if err := limit(memory, before); err != nil {
		return nil, nil, err
	}
	has = append(has, "limits")
	note("landlock", restrictFiles())
	note("system call filter", filterCalls())
	return has, lacks, nil
}

// closeOthers closes all descriptors but the standard three, the line, and what
// the runtime polls with.
func closeOthers() error {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil { // without /proc; nothing is open that was not made for us
		return unix.CloseRange(lineFD+1, math.MaxUint32, 0)
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= lineFD {
			continue
		}
		what, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(what, "anon_inode:[event") {
			continue
		}
		unix.Close(fd)
	}
	return nil
}

// emptyRoot makes an empty directory the root of all that can be named. That
// takes root and a mount namespace of our own; in that of all others nothing
// may be mounted.
func emptyRoot() error {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	parents, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", outerParent()))
	if err != nil {
		return err
	}
	if own == parents {
		return errors.New("no mount namespace")
	}
	const where = "/proc" // is there, and we are done with it
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("none", where, "tmpfs", flags, "size=4k,nr_inodes=3,mode=0555"); err != nil {
		return err
	}
	if listsThreads {
		if err := unix.Mkdir(where+"/proc", 0o555); err != nil {
			return err
		}
		if err := unix.Mount("none", where+"/proc", "proc", flags, ""); err != nil {
			return err
		}
	}
	if err := unix.Mount("none", where, "", flags|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if err := unix.Chdir(where); err != nil {
		return err
	}
	// The old root goes with all that is mounted below it. It would be in use as
	// long as we live, whoever unmounts it where people see it; what the content
	// tree is mounted by would never end. (pivot_root puts the old one on top of
	// the new one, where it can be taken away: see pivot_root(2), NOTES.)
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// outerParent is the parent's number as /proc shows it, which in a namespace of
// processes of our own getppid does not know.
func outerParent() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	n, _ := statusField(b, "PPid:")
	return int(n)
}

func statusField(status []byte, name string) (int64, bool) {
	for s := bufio.NewScanner(bytes.NewReader(status)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// becomeNobody gives up root, with all capabilities, in every thread.
func becomeNobody() error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("leave all groups: %w", err)
	}
	if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
		return fmt.Errorf("become group %d: %w", nobody, err)
	}
	if err := syscall.Setresuid(nobody, nobody, nobody); err != nil {
		return fmt.Errorf("become user %d: %w", nobody, err)
	}
	return nil
}

// runtimeBytes is what a Go program needs beside its heap limit: room that is
// mapped and not used, 64 MiB at a time, stacks, what the collector keeps.
const runtimeBytes = 128 << 20

// limit sets how much of everything the process may have. At the memory limit
// the collector works harder; a bit above, the runtime gets no more and ends.
func limit(memory int64, before uint64) error {
	debug.SetMemoryLimit(memory)
	debug.SetTraceback("single")
	data := uint64(memory) + runtimeBytes + before
	for _, l := range []struct {
		name string
		what int
		max  uint64
	}{
		{"core dumps", unix.RLIMIT_CORE, 0},
		{"file sizes", unix.RLIMIT_FSIZE, 0},
		{"locked memory", unix.RLIMIT_MEMLOCK, 0},
		{"message queues", unix.RLIMIT_MSGQUEUE, 0},
		{"open files", unix.RLIMIT_NOFILE, 64},
		{"threads", unix.RLIMIT_NPROC, 4096}, // of all that run as nobody; more is refused by the filter
		{"memory", unix.RLIMIT_DATA, data},
	} {
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: l.max, Max: l.max}); err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
	}
	return nil
}

// mapped is what the process has already of what RLIMIT_DATA counts.
func mapped() uint64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 64 << 20
	}
	kib, _ := statusField(b, "VmData:")
	return uint64(kib) << 10
}

// restrictFiles takes away all of the file system, connections and signals to
// others.
func restrictFiles() error {
	version, err := landlockVersion()
	if err != nil {
		return err
	}
	if listsThreads && !ownProc() {
		return errors.New("not in a program with cgo, in a namespace of processes")
	}
	if err := landlock.V11.BestEffort().Restrict(); err != nil {
		return err
	}
	if version < 4 {
		return fmt.Errorf("version %d of the kernel does not know networks", version)
	}
	return nil
}

// ownProc says whether /proc, if there is one, numbers processes as we do.
func ownProc() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
}

// landlockVersion asks the kernel, which BestEffort does not tell.
func landlockVersion() (int, error) {
	const createRulesetVersion = 1
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, createRulesetVersion)
	if errno != 0 {
		return 0, errno
	}
	return int(v), nil
}
