//go:build amd64 || arm64

package child

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allowed are the system calls that Go's runtime and the line need, with any
// arguments: none opens, connects, signals or starts anything.
var allowed = []uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_FCNTL,
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MPROTECT, unix.SYS_MINCORE, unix.SYS_BRK,
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_RESTART_SYSCALL,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETRANDOM, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
}

// Offsets in struct seccomp_data. Arguments are 64 bits; on the machines named
// above their low halves come first.
const (
	dataNumber = 0
	dataArch   = 4
	dataArg0   = 16
)

// filterCalls lets the process make no other system calls than those allowed,
// threads of its own, signals to itself and names for its memory. Others fail
// with EPERM; those of another machine's numbering kill the process.
func filterCalls() error {
	arch := uint32(unix.AUDIT_ARCH_X86_64)
	if runtime.GOARCH == "arm64" {
		arch = unix.AUDIT_ARCH_AARCH64
	}
	f := filter{}
	f.load(dataArch)
	f.unlessEqual(arch, unix.SECCOMP_RET_KILL_PROCESS)
	f.load(dataNumber)
	for _, number := range allowed {
		f.ifEqual(number, unix.SECCOMP_RET_ALLOW)
	}
	const refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	f.ifEqual(unix.SYS_CLONE3, unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)) // its flags can't be looked at; clone will do
	f.whenCall(unix.SYS_CLONE, func() { f.ifBits(unix.CLONE_THREAD, unix.SECCOMP_RET_ALLOW) })
	f.whenCall(unix.SYS_TGKILL, func() { f.ifEqual(uint32(os.Getpid()), unix.SECCOMP_RET_ALLOW) })
	f.whenCall(unix.SYS_PRCTL, func() { f.ifEqual(unix.PR_SET_VMA, unix.SECCOMP_RET_ALLOW) })
	f.ret(refuse)
	return f.install()
}

// filter is a program for the kernel's classic BPF machine.
type filter []unix.SockFilter

func (f *filter) add(code uint16, jt, jf uint8, k uint32) {
	*f = append(*f, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
}

func (f *filter) load(offset uint32) { f.add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, offset) }
func (f *filter) ret(action uint32)  { f.add(unix.BPF_RET|unix.BPF_K, 0, 0, action) }
func (f *filter) jumpEqual(k uint32, jt, jf uint8) {
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, jt, jf, k)
}

// ifEqual ends the program with action if what was loaded is k.
func (f *filter) ifEqual(k, action uint32) {
	f.jumpEqual(k, 0, 1)
	f.ret(action)
}

// unlessEqual ends it unless what was loaded is k.
func (f *filter) unlessEqual(k, action uint32) {
	f.jumpEqual(k, 1, 0)
	f.ret(action)
}

// ifBits ends it if what was loaded has all of one bit.
func (f *filter) ifBits(bit, action uint32) {
	f.add(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, 0, 1, bit)
	f.ret(action)
}

// whenCall runs body with the call's first argument loaded, if the call has the
// number; the number is loaded again behind it.
func (f *filter) whenCall(number uint32, body func()) {
	f.jumpEqual(number, 0, 0)
	jump := len(*f) - 1
	f.load(dataArg0)
	body()
	f.load(dataNumber)
	(*f)[jump].Jf = uint8(len(*f) - jump - 1)
}

// install puts the filter on all threads, for good.
func (f filter) install() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	at, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	if at != 0 {
		return fmt.Errorf("thread %d has another filter", at)
	}
	return nil
}
