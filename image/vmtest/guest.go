package vmtest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/testreq"
)

// exitMark begins the line that ends what a machine prints.
const exitMark = "@vmtest exit "

// Guest is a machine that runs.
type Guest struct {
	cmd     *exec.Cmd
	console string
	stop    context.CancelFunc
	ended   chan struct{}

	mu     sync.Mutex // guards all below
	out    bytes.Buffer
	status int // -1 until it is known
	err    error
}

// Start boots a machine. It does not outlive the test.
func (m *Machine) Start(tb testing.TB) *Guest {
	tb.Helper()
	Need(tb)
	g, err := m.start(tb.Context(), tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(g.Kill)
	return g
}

// Run boots a machine and waits until it is off, with status 0. It returns what
// the script printed.
func (m *Machine) Run(tb testing.TB) string {
	tb.Helper()
	g := m.Start(tb)
	status, err := g.Wait()
	if err != nil || status != 0 {
		tb.Fatalf("the machine ended with status %d, %v; it printed\n%s\nand its kernel\n%s", status, err, g.Output(), g.Console())
	}
	return g.Output()
}

func (m *Machine) start(ctx context.Context, dir string) (*Guest, error) {
	kernel, ok := testreq.Kernel()
	if !ok {
		return nil, errors.New("vmtest: no kernel: run internal/dev/deps test")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	modules, err := modulesOf(filepath.Join(kernel, "modules"), append(m.drivers(), m.Modules...))
	if err != nil {
		return nil, err
	}
	initrd := filepath.Join(dir, "initramfs")
	f, err := os.Create(initrd)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(m.writeInitramfs(f, busybox, modules), f.Close()); err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeoutCause(ctx, cmp.Or(m.Limit, time.Minute), errors.New("vmtest: it took too long"))
	g := &Guest{console: filepath.Join(dir, "console"), stop: stop, ended: make(chan struct{}), status: -1}
	g.cmd = exec.CommandContext(ctx, "qemu-system-x86_64", m.qemuArgs(filepath.Join(kernel, "vmlinux"), initrd, g.console)...)
	var complaints bytes.Buffer
	g.cmd.Stderr = &complaints
	out, err := g.cmd.StdoutPipe()
	if err == nil {
		err = g.cmd.Start()
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("vmtest: start qemu: %w", err)
	}
	go func() {
		defer close(g.ended)
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			if line != "" {
				g.line(strings.TrimRight(line, "\r\n"), m.Line)
			}
			if err != nil {
				break
			}
		}
		err := g.cmd.Wait()
		g.mu.Lock()
		defer g.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			g.err = context.Cause(ctx)
		case err != nil:
			g.err = fmt.Errorf("vmtest: qemu: %w: %s", err, complaints.String())
		case g.status < 0:
			g.err = errors.New("vmtest: the machine went off before its script ended")
		}
	}()
	return g, nil
}

// line takes note of a line that the script printed.
func (g *Guest) line(line string, tell func(string)) {
	g.mu.Lock()
	if text, ok := strings.CutPrefix(line, exitMark); ok {
		g.status, _ = strconv.Atoi(text) // 0 of what is no number: no script prints this
		g.mu.Unlock()
		return
	}
	g.out.WriteString(line + "\n")
	g.mu.Unlock()
	if tell != nil {
		tell(line)
	}
}

// Wait waits until the machine is off and returns the status of its script, or why
// there is none.
func (g *Guest) Wait() (status int, err error) {
	<-g.ended
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status, g.err
}

// Kill switches the machine off as a loss of power would, and waits for that.
func (g *Guest) Kill() {
	g.stop()
	<-g.ended
}

// Output is what the script has printed so far.
func (g *Guest) Output() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out.String()
}

// Console is what the machine's kernel has printed so far.
func (g *Guest) Console() string {
	p, err := os.ReadFile(g.console)
	if err != nil {
		return err.Error()
	}
	return string(p)
}
