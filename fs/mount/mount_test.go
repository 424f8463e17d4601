package mount

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

// serveEnv has the tree, the options and the directory that a process shall
// serve, which the tests start as themselves.
const serveEnv = "HOLDFAST_TEST_SERVE"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == WatchVerb {
		if err := Watch(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if how := os.Getenv(serveEnv); how != "" {
		if err := serve(how); err != nil {
			fmt.Fprintln(os.Stderr, "serve:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve serves until its standard input ends, or it is killed.
func serve(how string) error {
	kind, dir, _ := strings.Cut(how, " ")
	trees := map[string]fs.Tree{"small": treetest.NewTree(smallFiles()), "odd": newOdd(), "other": treetest.NewTree(smallFiles())}
	if kind == "other" {
		return serveOther(trees[kind], dir)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := Mount(ctx, trees[kind], dir, Options{})
	if err != nil {
		return err
	}
	fmt.Println("ready", s.watcher.cmd.Process.Pid)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	cancel()
	return s.Wait()
}

// serveOther serves a mount that is not ours by its type.
func serveOther(t fs.Tree, dir string) error {
	raw, err := newServed(context.Background(), t, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	s, err := fuse.NewServer(raw, dir, &fuse.MountOptions{Name: "stranger", FsName: "holdfast", DirectMountStrict: true})
	if err != nil {
		return err
	}
	fmt.Println("ready 0")
	s.Serve()
	return nil
}

// A serving is a process that serves.
type serving struct {
	*exec.Cmd
	watcher int
	in      io.Closer
}

// startServing serves a tree from another process, which also runs as another
// user if uid is not 0.
func startServing(t *testing.T, kind, dir string, uid uint32) *serving {
	t.Helper()
	program := "/proc/self/exe"
	if uid != 0 {
		program = openToAll(t)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), serveEnv+"="+kind+" "+dir)
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &serving{Cmd: cmd, in: in}
	t.Cleanup(func() {
		s.in.Close()
		s.Wait()
		unmountAll(dir)
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, serr := fmt.Sscanf(line, "ready %d", &s.watcher); serr != nil {
		t.Fatalf("the serving process said %q, %v", line, err)
	}
	return s
}

// kill ends the process as nobody can prevent, and waits until it is gone.
func (s *serving) kill(t *testing.T) {
	t.Helper()
	if err := s.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.Wait()
}

// openToAll copies this program to where every user can run it.
func openToAll(t *testing.T) string {
	t.Helper()
	p, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := openDir(t)
	name := filepath.Join(dir, "serve.test")
	if err := os.WriteFile(name, p, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// openDir makes a directory that every user can get to.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "holdfast-mount-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mountPoint makes a directory to mount on, with nothing on it at the end.
func mountPoint(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a mount point") // mountinfo escapes the spaces
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountAll(dir) })
	return dir
}

// unmountAll takes away whatever a failed test left.
func unmountAll(dir string) {
	for unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
	}
}

func needMount(t *testing.T) {
	t.Helper()
	testreq.Need(t, "root")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		testreq.Need(t, "/dev/fuse")
	}
}

// mounted mounts a tree from this process until the test ends.
func mounted(t *testing.T, tree fs.Tree, opt Options) *Server {
	t.Helper()
	needMount(t)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := Mount(ctx, tree, mountPoint(t), opt)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A logged keeps a log. Safe for concurrent use.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// want turns a snapshot of a tree into what a mount of it shows: streams are
// attributes there.
func want(t *testing.T, tree fs.Tree) *treetest.Snapshot {
	snap := treetest.Snap(t, tree, tree.Root())
	st, ok := tree.(fs.StreamTree)
	if !ok {
		return snap
	}
	for path, n := range snap.Nodes {
		n.Streams = nil
		a, err := fs.Resolve(t.Context(), tree, tree.Root(), path, false)
		if err != nil {
			t.Fatal(err)
		}
		streams, err := st.Streams(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range streams {
			p, err := io.ReadAll(io.NewSectionReader(fs.File(t.Context(), tree, fs.Attr{ID: s.ID, Size: s.Size}), 0, s.Size))
			if err != nil {
				t.Fatal(err)
			}
			if n.Xattrs == nil {
				n.Xattrs = make(map[string]string)
			}
			n.Xattrs["user.stream."+s.Name] = string(p)
		}
	}
	return snap
}

// TestSame compares all that a mount shows with all that the tree says, and the
// inode numbers of one mount with those of the next.
func TestSame(t *testing.T) {
	needMount(t)
	small := treetest.NewTree(smallFiles())
	for _, tt := range []struct {
		name string
		tree fs.Tree
	}{{"one file system", small}, {"several", joined{small}}} {
		t.Run(tt.name, func(t *testing.T) {
			var before map[string]uint64
			for range 2 {
				s := mounted(t, tt.tree, Options{})
				got := treetest.SnapHost(t, s.Dir())
				for _, d := range treetest.Diff(want(t, tt.tree), got, 0) {
					t.Error(d)
				}
				inodes := make(map[string]uint64)
				seen := make(map[uint64]string)
				for path, n := range got.Nodes {
					inodes[path] = n.ID.Ino
					if other, dup := seen[n.ID.Ino]; dup && len(n.Links) == 0 {
						t.Errorf("%q and %q are both inode %d", path, other, n.ID.Ino)
					}
					seen[n.ID.Ino] = path
					if before != nil && before[path] != n.ID.Ino {
						t.Errorf("%q: inode %d, was %d before it was mounted again", path, n.ID.Ino, before[path])
					}
				}
				before = inodes
				if err := s.Unmount(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestFlags(t *testing.T) {
	s := mounted(t, treetest.NewTree(smallFiles()), Options{Source: "/srv/my backup, really"})
	var st unix.Statfs_t
	if err := unix.Statfs(s.Dir(), &st); err != nil {
		t.Fatal(err)
	}
	const flags = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV
	if st.Flags&flags != flags {
		t.Errorf("flags of the mount are %x, want ro, nosuid, nodev", st.Flags)
	}
	if st.Bsize != 4096 || st.Ffree != 100 || st.Bfree != 256 || st.Namelen != 255 {
		t.Errorf("statfs: %+v", st)
	}
	if m, err := mountedAt(s.Dir()); err != nil || !m.ours() {
		t.Errorf("mounted there: %+v, %v", m, err)
	}
	if p, err := os.ReadFile("/proc/self/mountinfo"); err != nil || !strings.Contains(string(p), ` /srv/my\040backup,\040really `) {
		t.Errorf("the source is not in mountinfo (%v)", err)
	}
	for name, err := range map[string]error{
		"create": os.WriteFile(s.Dir()+"/new", nil, 0o644),
		"write":  os.WriteFile(s.Dir()+"/short", nil, 0o644),
		"remove": os.Remove(s.Dir() + "/short"),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", name, err)
		}
	}
}

func TestReadAheadRaised(t *testing.T) {
	s := mounted(t, treetest.NewTree(smallFiles()), Options{})
	m, err := mountedAt(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile("/sys/class/bdi/" + m.device + "/read_ahead_kb")
	if got := strings.TrimSpace(string(p)); err != nil || got != fmt.Sprint(readAheadKiB) {
		t.Errorf("read_ahead_kb is %q (%v), want %d", got, err, readAheadKiB)
	}
}

func TestRefusesDirectory(t *testing.T) {
	s := mounted(t, treetest.NewTree(smallFiles()), Options{})
	tree := treetest.NewTree(smallFiles())
	if _, err := Mount(t.Context(), tree, s.Dir(), Options{}); !errors.Is(err, ErrBusy) {
		t.Errorf("mounted twice: %v, want ErrBusy", err)
	}
	full := t.TempDir()
	if err := os.WriteFile(full+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Mount(t.Context(), tree, full, Options{}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a directory with files: %v", err)
	}
	if _, err := Mount(t.Context(), tree, full+"/none", Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestUnmountBusy(t *testing.T) {
	s := mounted(t, treetest.NewTree(smallFiles()), Options{})
	f, err := os.Open(s.Dir() + "/large")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Unmount(); !errors.Is(err, ErrBusy) {
		t.Fatalf("unmounted while a file is open: %v", err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 1<<20); err != nil {
		t.Errorf("read after the refused unmount: %v", err)
	}
	f.Close()
	if err := s.Unmount(); err != nil {
		t.Errorf("once the file is closed: %v", err)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	if err := s.Unmount(); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestContextEnds detaches what is in use.
func TestContextEnds(t *testing.T) {
	needMount(t)
	dir := mountPoint(t)
	ctx, cancel := context.WithCancel(context.Background())
	var l logged
	s, err := Mount(ctx, newOdd(), dir, Options{Log: l.logger()})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir + "/hangs")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hung := make(chan error)
	go func() {
		_, err := f.Read(make([]byte, 10))
		hung <- err
	}()
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	cancel()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	if err := <-hung; err == nil {
		t.Error("a read that hung succeeded")
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	if m, err := mountedAt(dir); err != nil || m.fstype != "" {
		t.Errorf("still mounted: %+v, %v", m, err)
	}
	if !strings.Contains(l.String(), "unmounting while in use") {
		t.Errorf("the log does not tell: %s", &l)
	}
}

// TestUnmountedByOthers ends the server when somebody unmounts.
func TestUnmountedByOthers(t *testing.T) {
	s := mounted(t, treetest.NewTree(smallFiles()), Options{})
	if err := unix.Unmount(s.Dir(), 0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server goes on")
	}
}

// TestUnmountedElsewhereStays ends the server although another namespace has a
// copy of the mount.
func TestUnmountedElsewhereStays(t *testing.T) {
	s := mounted(t, treetest.NewTree(smallFiles()), Options{})
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	// Its copy of the mount is ours to unmount only if mounts are shared.
	f, err := os.Open(s.Dir() + "/large")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Unmount(s.Dir(), unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Wait() }()
	select {
	case <-done:
		t.Fatal("ended while a file is open")
	case <-time.After(2500 * time.Millisecond):
	}
	if _, err := f.ReadAt(make([]byte, 10), 1<<20); err != nil {
		t.Errorf("read what is open: %v", err)
	}
	f.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server goes on")
	}
}

// gone waits until nothing is mounted on dir any more.
func gone(t *testing.T, dir string) {
	t.Helper()
	began := time.Now()
	for {
		m, err := mountedAt(dir)
		if err != nil {
			t.Fatal(err)
		}
		if m.fstype == "" {
			t.Logf("detached after %s", time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("still mounted: %+v", m)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestServerKilled leaves no dead mount, whoever is inside.
func TestServerKilled(t *testing.T) {
	needMount(t)
	for _, inUse := range []bool{false, true} {
		t.Run(fmt.Sprintf("in use %v", inUse), func(t *testing.T) {
			dir := mountPoint(t)
			s := startServing(t, "small", dir, 0)
			if inUse {
				f, err := os.Open(dir + "/dir")
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
			}
			if err := syscall.Kill(s.watcher, syscall.SIGTERM); err != nil { // as when all are told to end
				t.Fatal(err)
			}
			s.kill(t)
			gone(t, dir)
			if _, err := os.ReadDir(dir); err != nil {
				t.Error(err)
			}
			again := startServing(t, "small", dir, 0)
			if p, err := os.ReadFile(dir + "/short"); err != nil || string(p) != "a few bytes" {
				t.Errorf("%q, %v", p, err)
			}
			again.in.Close()
			if err := again.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAllKilled mounts again where the watcher couldn't clean up either.
func TestAllKilled(t *testing.T) {
	needMount(t)
	dir := mountPoint(t)
	for range 2 { // one dead mount on top of another
		s := startServing(t, "small", dir, 0)
		if err := syscall.Kill(s.watcher, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(5*time.Second, func() bool { // it is the server's to wait for, so it stays as a zombie
			p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.watcher))
			return err != nil || bytes.Contains(p, []byte(") Z "))
		})
		s.kill(t)
		if m, err := mountedAt(dir); err != nil || !m.ours() || !dead(dir) {
			t.Fatalf("the mount is to be dead: %+v, %v", m, err)
		}
	}
	startServing(t, "small", dir, 0)
	if _, err := os.ReadFile(dir + "/short"); err != nil {
		t.Error(err)
	}
}

// TestStrangersStay leaves dead mounts of other programs alone.
func TestStrangersStay(t *testing.T) {
	needMount(t)
	dir := mountPoint(t)
	startServing(t, "other", dir, 0).kill(t)
	if !dead(dir) {
		t.Fatal("the mount is to be dead")
	}
	if s, err := Mount(t.Context(), treetest.NewTree(smallFiles()), dir, Options{}); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("mounted over it: %v, %v", s, err)
	}
	if m, err := mountedAt(dir); err != nil || m.fstype != "fuse.stranger" {
		t.Errorf("mounted there: %+v, %v", m, err)
	}
}

const nobody = 65534

// deviceForAll lets every user open /dev/fuse during the test, as udev does for
// good wherever it runs.
func deviceForAll(t *testing.T) {
	t.Helper()
	info, err := os.Stat("/dev/fuse")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("/dev/fuse", 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod("/dev/fuse", info.Mode().Perm()) })
}

// TestNotRoot serves as a user who has fusermount3 mount.
func TestNotRoot(t *testing.T) {
	testreq.Need(t, "root", "fusermount3")
	needMount(t)
	deviceForAll(t)
	dir := openDir(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	s := startServing(t, "small", dir, nobody)
	as := func(uid uint32, args ...string) (string, error) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// Its own files it reads whatever their modes say; even root stays out.
	if out, err := as(nobody, "wc", "-c", dir+"/large"); err != nil || !strings.HasPrefix(out, fmt.Sprint(3<<20+17)) {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := os.Stat(dir + "/short"); !errors.Is(err, syscall.EACCES) {
		t.Errorf("root: %v, want EACCES", err)
	}
	s.in.Close()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	gone(t, dir)
	startServing(t, "small", dir, nobody).kill(t)
	gone(t, dir)
}

func TestAllowOther(t *testing.T) {
	dir := openDir(t)
	needMount(t)
	for _, allow := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		s, err := Mount(ctx, newOdd(), dir, Options{AllowOther: allow})
		if err != nil {
			t.Fatal(err)
		}
		read := func(name string) error {
			cmd := exec.Command("cat", dir+"/"+name)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			return cmd.Run()
		}
		if err := read("plain"); (err == nil) != allow {
			t.Errorf("allowed %v: a file for all: %v", allow, err)
		}
		if err := read("locked"); err == nil {
			t.Errorf("allowed %v: a file for its owner alone was read", allow)
		}
		cancel()
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
	}
}
