//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"holdfast/internal/testreq"
)

// holdfast is the program, made by TestMain from the sources as they are.
var holdfast string

// TestMain reads the environment:
//
//	HOLDFAST_E2E=1  run; else every test skips
//	KILLS=n         how often a process is killed, 200 by default
//	POWERCUTS=n     how often each file system loses power, 20 by default
//	SEED=n          what decides all that is random but time
func TestMain(m *testing.M) {
	if !enabled() {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "holdfast-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	if holdfast, err = build(dir); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func build(dir string) (string, error) {
	name := filepath.Join(dir, "holdfast")
	cmd := exec.Command("go", "build", "-o", name, "holdfast/appliance/cmd/holdfast")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return name, nil
}

func enabled() bool { return os.Getenv("HOLDFAST_E2E") == "1" }

// begin is the first call of every test: it skips where the test is not wanted
// or a part is missing.
func begin(t *testing.T, parts ...string) {
	t.Helper()
	if !enabled() {
		t.Skip("runs by make e2e")
	}
	testreq.Need(t, parts...)
}

// count reads a number of repetitions from the environment.
func count(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: want a number from 1", name, text)
	}
	return n
}

// random returns a generator, and prints the seed that makes it again.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SEED=%s: %v", text, err)
		}
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// upTo returns a random duration below d.
func upTo(rng *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(max(d, 1))))
}
