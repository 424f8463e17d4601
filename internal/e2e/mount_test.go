//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/repo/repotest"
)

// TestKillMount shows the backups as files while their owner makes points, lets
// others expire, sweeps and compacts. Readers compare what they find, and the
// server is killed over and over: no dead mount stays, no name leads to what has
// expired or to another point than before, and every byte is the point's.
func TestKillMount(t *testing.T) {
	begin(t, "root", "mkfs.ext4")
	for i, sealed := range []bool{false, true} {
		name := []string{"plain", "sealed"}[i]
		t.Run(name, func(t *testing.T) { killMount(t, sealed, count(t, "KILLS", 200)/8) })
	}
}

func killMount(t *testing.T, sealed bool, kills int) {
	m := newMounted(t, sealed)
	owner := rand.New(rand.NewPCG(m.rng.Uint64(), 1))
	m.round(owner) // so that there is something to see
	m.serve()
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for !over(stop) && !t.Failed() {
			m.round(owner)
		}
	})
	const readers = 3
	for i := range readers {
		r := m.newReader(uint64(i))
		all.Go(func() {
			for !over(stop) && !t.Failed() {
				r.look()
			}
		})
	}
	killed := 0
	for began := time.Now(); (killed < kills || !m.enough()) && !t.Failed(); {
		if time.Since(began) > 30*time.Minute {
			t.Error("too little happens")
		}
		m.server.sleep(upTo(m.rng, 1500*time.Millisecond))
		m.kill()
		killed++
		m.serve()
	}
	close(stop)
	all.Wait()
	if t.Failed() {
		return
	}
	m.end()
	t.Logf("%d kills; %d points came, %d went; %d looks, %d of them into a guest's files, %d cut off by a kill, %d of points that were going; %d MiB compared",
		killed, m.came, len(m.gone), m.looks, m.inside, m.cut, m.late, m.bytes>>20)
}

// enough says whether it was worth it.
func (m *mounted) enough() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.came > 8 && len(m.gone) > 0 && m.looks > 100 && m.inside > 10
}

func over(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// mounted is a repository that is shown at dir. Its own goroutine, the owner's and
// the readers' share what mu guards.
type mounted struct {
	*site
	dir    string
	server *process
	image  string // of the machine "box"

	mu     sync.Mutex // guards the rest
	lives  int        // odd while the mount is served
	points map[string]*shownPoint
	names  map[string]string // what a path below dir led to: the id of a point
	inodes map[string]uint64
	gone   map[string]time.Time // expired, by the id; zero: it is about to
	came   int
	newest map[string]newestPoint // of a machine

	looks, inside, cut, late int
	bytes                    int64
}

type newestPoint struct {
	id    string
	since time.Time
}

// shownPoint is what a point must show.
type shownPoint struct {
	machine string
	disk    *repotest.Disk // of "web"
	version int            // of "box": see boxFiles
}

func newMounted(t *testing.T, sealed bool) *mounted {
	rng := random(t)
	m := &mounted{
		site: newSite(t, rng, filepath.Join(t.TempDir(), "repository"), t.TempDir(), sealed), dir: filepath.Join(t.TempDir(), "mnt"),
		points: make(map[string]*shownPoint), names: make(map[string]string), inodes: make(map[string]uint64),
		gone: make(map[string]time.Time), newest: make(map[string]newestPoint),
	}
	m.image = filepath.Join(m.scratch, "box.img")
	m.addMachine("web", false, m.newDisk("web", "root", repotest.Text, 12<<20))
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m.mounts(t) > 0 {
			t.Error("a mount was left")
			_ = unix.Unmount(m.dir, unix.MNT_DETACH|unix.MNT_FORCE)
		}
	})
	return m
}

// serve mounts, and returns when dir can be used.
func (m *mounted) serve() {
	m.t.Helper()
	m.server = m.program.start(m.t, "mount", m.site.dir, m.dir, "--log-level", "error")
	if !m.server.waitFor(func() bool { return m.mounts(m.t) == 1 }) {
		m.t.Fatalf("it did not mount: %s", m.server.wait())
	}
	// Answers come when the mount is there and the watcher watches.
	if _, err := os.ReadDir(m.dir); err != nil {
		m.t.Fatalf("just mounted: %v", err)
	}
	m.mu.Lock()
	m.lives++
	m.mu.Unlock()
}

// kill kills the server, and waits for the mount to be detached.
func (m *mounted) kill() {
	m.t.Helper()
	m.mu.Lock()
	m.lives++
	m.mu.Unlock()
	m.server.signal(syscall.SIGKILL)
	if o := m.server.wait(); o.code != -1 {
		m.t.Fatalf("the server ended by itself: %s", o)
	}
	m.detached()
}

// detached waits until nothing is mounted any more.
func (m *mounted) detached() {
	m.t.Helper()
	for began := time.Now(); m.mounts(m.t) > 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			m.t.Fatal("a dead mount stays")
		}
	}
	if list, err := os.ReadDir(m.dir); err != nil || len(list) > 0 {
		m.t.Fatalf("below the mount are %d files, %v", len(list), err)
	}
}

// mounts counts what is mounted at dir.
func (m *mounted) mounts(t *testing.T) int {
	t.Helper()
	p, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(p, []byte(" "+m.dir+" "))
}

// end unmounts as people do, and looks for what must be in order then.
func (m *mounted) end() {
	m.t.Helper()
	if out, err := exec.Command("umount", m.dir).CombinedOutput(); err != nil {
		m.t.Fatalf("umount: %v: %s", err, out)
	}
	if o := m.server.wait(); o.code != 0 {
		m.t.Errorf("after umount: %s", o)
	}
	m.detached()
	// Nothing is held for readers that were killed.
	m.program.must(m.t, "repo", "sweep", m.site.dir)
	m.account()
	m.program.must(m.t, "repo", "scrub", m.site.dir)
}

// round is what an owner does in a while.
func (m *mounted) round(rng *rand.Rand) {
	web := m.machines[0]
	web.change(m.t, rng)
	m.made("web", &shownPoint{machine: "web", disk: web.disks[0].now}, "root="+web.disks[0].path)
	m.mu.Lock()
	version := m.came
	m.mu.Unlock()
	m.makeBox(version)
	m.made("box", &shownPoint{machine: "box", version: version}, "disk="+m.image)
	m.expire("web")
	m.expire("box")
	m.program.must(m.t, "repo", "sweep", m.site.dir)
	if version%3 == 0 {
		m.program.must(m.t, "repo", "compact", m.site.dir)
	}
}

// made backs up a machine and notes the point.
func (m *mounted) made(machine string, p *shownPoint, disk string) {
	o := m.program.must(m.t, "repo", "backup", m.site.dir, "--machine", machine, "--json", disk)
	id := decode[runListing](m.t, o).Point.ID
	m.mu.Lock()
	defer m.mu.Unlock()
	m.points[id], m.newest[machine] = p, newestPoint{id, time.Now()}
	m.came++
}

// expire keeps the last three points of a machine.
func (m *mounted) expire(machine string) {
	var ids []string
	for _, p := range decode[listing](m.t, m.program.must(m.t, "repo", "points", m.site.dir, "--machine", machine, "--json")).Points {
		ids = append(ids, p.ID)
	}
	if len(ids) <= 3 {
		return
	}
	ids = ids[:len(ids)-3]
	m.note(ids, time.Time{})
	m.program.must(m.t, "repo", "retain", m.site.dir, "--machine", machine, "--keep-last", "3")
	m.note(ids, time.Now())
}

// note notes since when points have expired.
func (m *mounted) note(ids []string, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		m.gone[id] = since
	}
}

const boxes = 40 // files in a directory of the machine "box"

// boxFile is file i of a version, at path.
func boxFile(version, i int) (path string, data []byte) {
	line := fmt.Sprintf("file %d of version %d\n", i, version)
	return fmt.Sprintf("dir%d/v%d-%d", i%4, version, i), bytes.Repeat([]byte(line), 1+i*i*2)
}

// makeBox makes the image of a version.
func (m *mounted) makeBox(version int) {
	dir := filepath.Join(m.scratch, "box")
	fail := func(err error) {
		if err != nil {
			m.t.Fatal(err)
		}
	}
	fail(os.RemoveAll(dir))
	for i := range boxes {
		path, data := boxFile(version, i)
		fail(os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755))
		fail(os.WriteFile(filepath.Join(dir, path), data, 0o644))
	}
	fail(os.WriteFile(filepath.Join(dir, "version"), fmt.Appendf(nil, "%d", version), 0o644))
	fail(os.RemoveAll(m.image))
	out, err := exec.Command("mkfs.ext4", strings.Fields("-q -b 1024 -d "+dir+" "+m.image+" 12M")...).CombinedOutput()
	if err != nil {
		fail(fmt.Errorf("mkfs.ext4: %w: %s", err, out))
	}
}
