//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long any one process may take before it counts as stuck.
const patience = 5 * time.Minute

// A program is holdfast with what every call of it has in common.
type program struct {
	state string   // its state directory
	flags []string // global ones
}

// An outcome is how a process ended.
type outcome struct {
	code     int // -1: by a signal
	out, err string
	took     time.Duration
}

func (o outcome) String() string {
	return fmt.Sprintf("exit %d after %v\n%s%s", o.code, o.took.Round(time.Millisecond), o.out, o.err)
}

// A process is one call under way.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err bytes.Buffer // to be read when it has ended
	began    time.Time
	took     time.Duration
	ended    chan struct{}
}

// start starts a call. It does not outlive the test.
func (p program) start(t *testing.T, args ...string) *process {
	t.Helper()
	return p.startAs(t, nil, args...)
}

// startAs starts a call by way of another program, if there is one in front.
func (p program) startAs(t *testing.T, front []string, args ...string) *process {
	t.Helper()
	line := append(append(append([]string(nil), front...), holdfast), append(append([]string(nil), p.flags...), args...)...)
	pr := &process{t: t, cmd: exec.Command(line[0], line[1:]...), ended: make(chan struct{})}
	pr.cmd.Env = append(os.Environ(), "HOLDFAST_STATE="+p.state)
	pr.cmd.Stdout, pr.cmd.Stderr = &pr.out, &pr.err
	pr.began = time.Now()
	if err := pr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = pr.cmd.Wait() // outcome says how it ended
		pr.took = time.Since(pr.began)
		close(pr.ended)
	}()
	t.Cleanup(func() { pr.signal(syscall.SIGKILL); <-pr.ended })
	return pr
}

func (pr *process) pid() int { return pr.cmd.Process.Pid }

// signal sends a signal, unless the process has ended.
func (pr *process) signal(s syscall.Signal) {
	if !pr.over() {
		_ = pr.cmd.Process.Signal(s) // it may end just now
	}
}

// over tells whether the process has ended.
func (pr *process) over() bool {
	select {
	case <-pr.ended:
		return true
	default:
		return false
	}
}

// wait waits for the end.
func (pr *process) wait() outcome {
	pr.t.Helper()
	select {
	case <-pr.ended:
	case <-time.After(patience):
		pr.signal(syscall.SIGQUIT) // prints where it hangs
		<-pr.ended
		pr.t.Fatalf("%s: did not end in %v\n%s", strings.Join(pr.cmd.Args, " "), patience, pr.err.String())
	}
	return outcome{pr.cmd.ProcessState.ExitCode(), pr.out.String(), pr.err.String(), pr.took}
}

// waitFor waits until cond holds, and tells whether it did before the end.
func (pr *process) waitFor(cond func() bool) bool {
	for !pr.over() {
		if cond() {
			return true
		}
		time.Sleep(50 * time.Microsecond)
	}
	return false
}

// sleep waits for d or the end of the process.
func (pr *process) sleep(d time.Duration) {
	select {
	case <-pr.ended:
	case <-time.After(d):
	}
}

// run makes a call and returns how it ended.
func (p program) run(t *testing.T, args ...string) outcome {
	t.Helper()
	return p.start(t, args...).wait()
}

// must makes a call that has to succeed.
func (p program) must(t *testing.T, args ...string) outcome {
	t.Helper()
	o := p.run(t, args...)
	if o.code != 0 {
		t.Fatalf("holdfast %s: %s", strings.Join(args, " "), o)
	}
	return o
}

// fails makes a call that has to fail with a code and one line of error, which
// holds all of words. A hint may follow.
func (p program) fails(t *testing.T, code int, words []string, args ...string) {
	t.Helper()
	checkFailure(t, p.run(t, args...), code, words)
}

func checkFailure(t *testing.T, o outcome, code int, words []string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d: %s", o.code, code, o)
	}
	lines := strings.Split(strings.TrimSpace(o.err), "\n")
	for len(lines) > 1 && strings.HasPrefix(lines[0], "time=") { // of the log
		lines = lines[1:]
	}
	if len(lines) == 2 && strings.HasPrefix(lines[1], "hint: ") {
		lines = lines[:1]
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "holdfast: ") {
		t.Errorf("want one line of error, got\n%s", o.err)
	}
	for _, w := range words {
		if !strings.Contains(o.err, w) {
			t.Errorf("the error does not say %q:\n%s", w, o.err)
		}
	}
	t.Logf("exit %d: %s", o.code, strings.TrimSpace(o.err))
}

// decode reads what --json printed.
func decode[T any](t *testing.T, o outcome) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(o.out), &v); err != nil {
		t.Fatalf("%v in: %s", err, o)
	}
	return v
}
