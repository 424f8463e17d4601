package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"holdfast/internal/testreq"
	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

var update = flag.Bool("update", false, "write what the scripts compare with")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"holdfast": func() {
		a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, workFactor: 10}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop)
		os.Exit(a.run(ctx, os.Args[1:]))
	}})
}

// TestScripts runs a script per verb. Besides what testscript has they use the
// commands in scriptCommands.
func TestScripts(t *testing.T) {
	testscript.Run(t, scriptParams("testdata/script"))
}

// TestRootScripts runs the scripts that need devices and mounts.
func TestRootScripts(t *testing.T) {
	testreq.Need(t, "loop", "losetup", "mount", "mke2fs", "qemu-img")
	testscript.Run(t, scriptParams("testdata/root"))
}

func TestQemuScripts(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	testscript.Run(t, scriptParams("testdata/qemu"))
}

// TestFilesScripts runs the scripts that make guests' file systems.
func TestFilesScripts(t *testing.T) {
	testreq.Need(t, "mkfs.ext4", "debugfs", "mkntfs", "ntfscp", "mformat", "mcopy", "sfdisk", "tar", "python3")
	testscript.Run(t, scriptParams("testdata/files"))
}

func scriptParams(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                scriptCommands,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOLDFAST_STATE", e.WorkDir+"/.state")
			e.Setenv("PATH", e.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
			e.Setenv("TZ", "UTC")
			return nil
		},
	}
}

var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"exits":  scriptExits,
	"bytes":  scriptBytes,
	"flip":   scriptFlip,
	"points": scriptPoints,
	"packs":  scriptPacks,
	"damage": scriptDamage,
	"mask":   scriptMask,
	"hold":   scriptHold,
	"own":    scriptOwn,
	"failed": scriptFailed,
	"loop":   scriptLoop,
	"tmpfs":  scriptTmpfs,

	"mountpoint": scriptMountpoint,
	"within":     scriptWithin,
	"pid":        scriptPID,

	"port":   scriptPort,
	"nfsput": scriptNFSPut,
	"nfsget": scriptNFSGet,
}

// exits CODE PROGRAM ARG…: the program ends with the exit code.
func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	want := number(ts, args[0])
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != int(want) {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// bytes FILE OFFSET LENGTH SEED writes random bytes into FILE, the same for a seed.
func scriptBytes(ts *testscript.TestScript, _ bool, args []string) {
	seed := number(ts, args[3])
	p := make([]byte, number(ts, args[2]))
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY|os.O_CREATE, 0o644)
	ts.Check(err)
	_, err = f.WriteAt(p, number(ts, args[1]))
	ts.Check(errors.Join(err, f.Close()))
}

// flip FILE OFFSET LENGTH turns all bits of a stretch of FILE.
func scriptFlip(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	p := make([]byte, number(ts, args[2]))
	_, err = f.ReadAt(p, number(ts, args[1]))
	ts.Check(err)
	for i := range p {
		p[i] ^= 0xff
	}
	_, err = f.WriteAt(p, number(ts, args[1]))
	ts.Check(errors.Join(err, f.Close()))
}

// damage DIR OFFSET LENGTH flips a stretch of the largest data pack of DIR.
func scriptDamage(ts *testscript.TestScript, neg bool, args []string) {
	packs, err := filepath.Glob(ts.MkAbs(args[0]) + "/packs/data/*/*.pack")
	ts.Check(err)
	largest, size := "", int64(0)
	for _, name := range packs {
		info, err := os.Stat(name)
		ts.Check(err)
		if info.Size() > size {
			largest, size = name, info.Size()
		}
	}
	scriptFlip(ts, neg, []string{largest, args[1], args[2]})
}

// points DIR sets P1, P2, … to the ids of the restore points.
func scriptPoints(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("holdfast", append([]string{"repo", "points", "--json"}, args...)...))
	for i, m := range regexp.MustCompile(`(?m)^      "id": "(.*)"`).FindAllStringSubmatch(ts.ReadFile("stdout"), -1) {
		ts.Setenv(fmt.Sprintf("P%d", i+1), m[1])
	}
}

// packs DIR sets D1, D2, … to the names of the data packs, oldest first.
func scriptPacks(ts *testscript.TestScript, _ bool, args []string) {
	names, err := filepath.Glob(ts.MkAbs(args[0]) + "/packs/data/*/*.pack")
	ts.Check(err)
	for i, name := range names {
		names[i] = strings.TrimSuffix(filepath.Base(name), ".pack")
	}
	slices.Sort(names)
	for i, name := range names {
		ts.Setenv(fmt.Sprintf("D%d", i+1), name)
	}
}

// masks are what differs from run to run, or is for package repo to decide.
var masks = []struct {
	what *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`\b[a-z2-7]{20}\b`), "ID20"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "HEX64"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "HEX32"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{24}\b`), "PACK"},
	{regexp.MustCompile(`\b(data|meta)/[0-9a-f]{2}/PACK\b`), "$1/XX/PACK"},
	{regexp.MustCompile(`SHA256:[A-Za-z0-9+/]+`), "SHA256:KEY"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`"(actor|host)": ".+"`), `"$1": "WHO"`},
	{regexp.MustCompile(`(?m)^(ID20 .*\S) +[\d.]+ [KM]?i?B$`), "$1  STORED"},
	{regexp.MustCompile(`"id": "[a-z2-7]{10}"`), `"id": "ID10"`},
	{regexp.MustCompile(`"pid": \d+`), `"pid": 0`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+|"port": \d+`), `PORT`},
	{regexp.MustCompile(`("(?:seconds|verifiedBytes|storedBytes|packBytes|parityBytes|nodeBytes|indexBytes|roomBytes|freeBytes|overheadBytes|packsPerTiB|sampledBytes)": )[-+.e\d]+`), "${1}0"},
}

// mask FILE: writes standard output to FILE without what differs from run to
// run, for cmp.
func scriptMask(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.ReplaceAll(ts.ReadFile("stdout"), ts.Getenv("WORK"), "WORK")
	for _, m := range masks {
		text = m.what.ReplaceAllString(text, m.to)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// hold FILE: takes the lock on FILE, until "hold FILE" again or the script ends.
func scriptHold(ts *testscript.TestScript, _ bool, args []string) {
	toggle(ts, "hold "+ts.MkAbs(args[0]), func() func() error {
		f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR|os.O_CREATE, 0o644)
		ts.Check(err)
		ts.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
		return func() error { // a program that is just being started has it open, too
			return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
		}
	})
}

// on is what scripts have begun and not ended, and how to.
var on sync.Map

// toggle begins something that ends when it is called with the key again, or
// with the script.
func toggle(ts *testscript.TestScript, key string, begin func() (end func() error)) {
	if end, ok := on.LoadAndDelete(key); ok {
		ts.Check(end.(func() error)())
		return
	}
	on.Store(key, begin())
	ts.Defer(func() {
		if end, ok := on.LoadAndDelete(key); ok {
			end.(func() error)() //nolint:errcheck // the script has failed or ended
		}
	})
}

// own DIR: owns the repository, as a process at work does, until "own DIR" again or
// the script ends.
func scriptOwn(ts *testscript.TestScript, _ bool, args []string) {
	toggle(ts, "own "+ts.MkAbs(args[0]), func() func() error { return ownIn(ts, args[0]).Close })
}

func ownIn(ts *testscript.TestScript, name string) *repo.Owner {
	dir, err := vfs.OS(ts.MkAbs(name))
	ts.Check(err)
	state, err := vfs.OS(ts.Getenv("HOLDFAST_STATE"))
	ts.Check(err)
	ts.Defer(func() { errors.Join(dir.Close(), state.Close()) })
	o, err := repo.Own(context.Background(), dir, repo.Options{State: state, Doing: "a test"}, 0)
	ts.Check(err)
	return o
}

// failed DIR MACHINE: a run of the machine that stores 2 MiB and fails.
func scriptFailed(ts *testscript.TestScript, _ bool, args []string) {
	o := ownIn(ts, args[0])
	disk := repotest.New(rand.New(rand.NewPCG(7, uint64(len(args[1])))), repotest.Dense, 3<<20)
	source := repotest.NewSource(disk)
	source.FailAt = 2<<20 + 1
	_, err := o.Backup(context.Background(), repo.BackupOptions{Machine: args[1], Disks: []repo.SourceDisk{{Name: "disk", Source: source}}})
	if !errors.Is(err, repotest.ErrSource) {
		ts.Fatalf("the run was to fail: %v", err)
	}
	ts.Check(o.Close())
}

// loop VAR FILE: sets VAR to a loop device over FILE, until the script ends.
func scriptLoop(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("losetup", "--find", "--show", ts.MkAbs(args[1])))
	dev := strings.TrimSpace(ts.ReadFile("stdout"))
	ts.Setenv(args[0], dev)
	ts.Defer(func() { exec.Command("losetup", "--detach", dev).Run() })
}

// tmpfs DIR BYTES: mounts a tmpfs of so many bytes on DIR, until the script ends.
func scriptTmpfs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(ts.Exec("mount", "-t", "tmpfs", "-o", "size="+args[1], "none", dir))
	ts.Defer(func() { exec.Command("umount", dir).Run() })
}

// mountpoint DIR: makes a directory on which nothing is mounted any more when the
// script ends.
func scriptMountpoint(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o755))
	ts.Defer(func() { exec.Command("umount", "--lazy", dir).Run() })
}

// within SECONDS PROGRAM ARG…: the program succeeds before so many seconds have
// passed; until then it is run again and again.
func scriptWithin(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(time.Duration(number(ts, args[0])) * time.Second)
	for err := errors.New(""); err != nil; time.Sleep(20 * time.Millisecond) {
		if err = ts.Exec(args[1], args[2:]...); err != nil && time.Now().After(deadline) {
			ts.Fatalf("not within %s s: %v", args[0], err)
		}
	}
}

// pid VAR: sets VAR to the process that the listing on standard output names.
func scriptPID(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(`"pid": ([0-9]+)`).FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("no process is named")
	}
	ts.Setenv(args[0], m[1])
}

func number(ts *testscript.TestScript, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	ts.Check(err)
	return n
}
