package vmtest

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/internal/testreq"
)

// Machine is what is to be booted.
type Machine struct {
	// Modules are loaded, in this order and each after what it depends on, before
	// Script runs. What they ask for by another name, as ext4 does for
	// crc32c_generic, has to be among them.
	Modules []string

	// Files are copied into the root file system: the path there, without the
	// first slash, and the file here. All can be executed.
	Files map[string]string

	// Script is what the machine does, in the language of sh, with busybox in
	// /bin. What it prints goes to the test, the status of its last command is
	// that of the machine, which then goes off.
	Script string

	// Network gives it the address 10.0.2.15 on eth0, and the loopback interface
	// of this machine as 10.0.2.2. It goes through qemu itself.
	Network bool

	MemoryMiB int           // 0: 256
	CPUs      int           // 0: 1
	Args      []string      // further arguments of qemu, such as -drive
	Limit     time.Duration // until it is off; 0: a minute. Then it is switched off.

	// Line, if not nil, is called with each line that Script prints, by one
	// goroutine.
	Line func(line string)
}

// Need skips the test if something is missing that every machine needs.
func Need(tb testing.TB, more ...string) {
	tb.Helper()
	testreq.Need(tb, append([]string{"qemu-system-x86_64", "busybox", "kernel"}, more...)...)
}

// TestBinary builds the tests of a package, which may be in a machine that has
// no C library, into a file of the test's temporary directory.
func TestBinary(tb testing.TB, pkg string) (file string) {
	tb.Helper()
	testreq.Need(tb, "go")
	file = filepath.Join(tb.TempDir(), filepath.Base(pkg)+".test")
	cmd := exec.CommandContext(tb.Context(), "go", "test", "-c", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	return file
}

// drivers are the modules that the machine's own parts need.
func (m *Machine) drivers() []string {
	if m.Network {
		return []string{"virtio_pci", "virtio_net"}
	}
	return nil
}

// qemuArgs are the arguments of qemu. The first serial port is the kernel's
// console and goes to a file, the second is what Script prints.
func (m *Machine) qemuArgs(kernel, initrd, console string) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "pc", "-cpu", "max", "-accel", "tcg,thread=multi",
		"-m", fmt.Sprint(cmp.Or(m.MemoryMiB, 256)), "-smp", fmt.Sprint(cmp.Or(m.CPUs, 1)),
		"-kernel", kernel, "-initrd", initrd,
		// What the kernel would measure or wait for on real machines.
		"-append", "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check mitigations=off nokaslr clocksource=hpet random.trust_cpu=on i8042.noaux audit=0",
		"-serial", "file:" + console, "-serial", "stdio",
		"-device", "virtio-rng-pci",
	}
	if m.Network {
		args = append(args, "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
	}
	return append(args, m.Args...)
}

// init is the first program.
func (m *Machine) init() string {
	s := `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /mnt /run /etc
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev 2>/dev/null
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp TERM=dumb
for m in $(cat /modules/order); do insmod /modules/$m || echo "insmod $m: $?" >/dev/console; done
ip link set lo up
`
	if m.Network {
		s += "ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2\n"
	}
	return s + `stty -F /dev/ttyS1 raw -echo
sh /script </dev/null >/dev/ttyS1 2>&1
echo "` + exitMark + `$?" >/dev/ttyS1
sync
poweroff -f
`
}
