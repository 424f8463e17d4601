package repotest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"holdfast/repo"
	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/refcount"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// Reopen opens a repository as its owner and closes it, which is all that an
// interruption may need to be gone without a trace.
func Reopen(ctx context.Context, fsys vfs.FS, opt repo.Options) error {
	o, err := repo.Own(ctx, fsys, opt, 0)
	if err != nil {
		return err
	}
	return o.Close()
}

// CheckAccount reopens the repository and reports what Account finds.
func CheckAccount(tb testing.TB, fsys vfs.FS, opt repo.Options) {
	tb.Helper()
	if err := Reopen(tb.Context(), fsys, opt); err != nil {
		tb.Error(err)
	}
	if err := Account(fsys); err != nil {
		tb.Error(err)
	}
}

// Account says which files of a repository nothing accounts for, and what is
// missing of that which something promises. Nobody may own the repository, and
// whoever did last must have closed it. No key is needed.
//
// It has its own eyes for directories and for runs/; packs, ledger and index it
// reads through the packages for them.
func Account(fsys vfs.FS) error {
	a := &account{fsys: fsys, files: make(map[string]int64), packs: make(map[string]ledger.Pack)}
	err := vfs.Walk(fsys, ".", func(name string, info vfs.Info) error {
		if info.Dir {
			a.dirs = append(a.dirs, name)
		} else {
			a.files[name] = info.Size
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.skeleton()
	a.settings()
	a.ledger()
	a.runs()
	a.points()
	a.storedPacks()
	a.index()
	a.refs()
	a.leases()
	for _, name := range slices.Sorted(maps.Keys(a.files)) {
		a.errorf("%s, %d bytes, belongs to nothing", name, a.files[name])
	}
	return errors.Join(a.errs...)
}

// account is one Account under way.
type account struct {
	fsys  vfs.FS
	dirs  []string
	files map[string]int64 // not accounted for yet → size
	errs  []error

	state  *ledger.State
	packs  map[string]ledger.Pack // by path: those of the ledger and of runs
	stored []ledger.Pack          // those that are there
	last   uint64                 // segment
}

func (a *account) errorf(format string, args ...any) {
	a.errs = append(a.errs, fmt.Errorf(format, args...))
}

// take accounts for a file that must be there.
func (a *account) take(name string) bool {
	_, ok := a.files[name]
	if !ok {
		a.errorf("%s is missing", name)
	}
	delete(a.files, name)
	return ok
}

// below lists the files in a directory that are not accounted for, by name.
func (a *account) below(dir string) []string {
	var list []string
	for name := range a.files {
		if path.Dir(name) == dir {
			list = append(list, path.Base(name))
		}
	}
	slices.Sort(list)
	return list
}

func (a *account) read(name string) []byte {
	p, err := vfs.ReadFile(a.fsys, name, 1<<28)
	if err != nil {
		a.errs = append(a.errs, err)
	}
	return p
}

// pair takes a file and its twin, which must be the same, and returns the bytes.
func (a *account) pair(name string) []byte {
	if ok := a.take(name); !a.take(name+".twin") || !ok {
		return nil
	}
	p := a.read(name)
	if !bytes.Equal(p, a.read(name+".twin")) {
		a.errorf("%s and its twin differ", name)
	}
	return p
}

func (a *account) skeleton() {
	// The first sweep makes index/refs.
	a.dirs = slices.DeleteFunc(a.dirs, func(name string) bool { return name == "index/refs" })
	want := []string{"keys", "packs", "packs/data", "packs/meta", "points", "ledger", "index", "leases", "runs", "tmp"}
	for i := range 256 {
		want = append(want, fmt.Sprintf("packs/data/%02x", i), fmt.Sprintf("packs/meta/%02x", i))
	}
	slices.Sort(want)
	slices.Sort(a.dirs)
	if !slices.Equal(a.dirs, want) {
		a.errorf("%d directories, want the %d that init makes", len(a.dirs), len(want))
	}
	for _, name := range []string{"lock", "reserve"} {
		delete(a.files, name) // both may be missing
	}
}

// settings takes the settings and the keys. A key without its twin is damage.
func (a *account) settings() {
	a.pair("format.json")
	for _, base := range a.below("keys") {
		if name, twin := strings.CutSuffix("keys/"+base, ".twin"); !twin {
			a.pair(name)
		}
	}
}

func (a *account) signers() []seal.Public {
	infos, err := a.fsys.ReadDir("keys")
	if err != nil {
		a.errs = append(a.errs, err)
	}
	var list []seal.Public
	for _, info := range infos {
		if path.Ext(info.Name) != ".pub" {
			continue
		}
		p, err := seal.ParsePublic(a.read("keys/" + info.Name))
		if err != nil {
			a.errs = append(a.errs, err)
		}
		list = append(list, p)
	}
	return list
}

// ledger takes segments from the first to the last, none left out.
func (a *account) ledger() {
	signers := a.signers()
	if len(signers) == 0 {
		a.errorf("no public signing key")
	}
	var err error
	a.state, err = ledger.Verify(func(yield func([]byte, error) bool) {
		for n := uint64(1); ; n++ {
			name := "ledger/" + ledger.FileName(n)
			if _, ok := a.files[name]; !ok {
				return
			}
			p := a.pair(name)
			if s, err := ledger.ParseSegment(p); err == nil {
				for _, lp := range s.Packs {
					a.pack(lp, "ledger segment "+ledger.FileName(n))
				}
				a.removed(s)
			}
			if !yield(p, nil) {
				return
			}
		}
	}, signers, ledger.Head{})
	if err != nil {
		a.errs = append(a.errs, err)
		a.state = ledger.NewState(nil)
	}
	a.last = a.state.Head().Number
}

// removed takes back the packs that a segment calls removed.
func (a *account) removed(s *ledger.Segment) {
	for _, r := range s.Records {
		if r, ok := r.(*ledger.Sweep); ok {
			for _, p := range r.Packs {
				name := p.Name.Path(p.Kind)
				if lp, ok := a.packs[name]; !ok || lp.Bytes != p.Bytes {
					a.errorf("%s of %d bytes was removed and never there", name, p.Bytes)
				}
				delete(a.packs, name)
			}
		}
	}
}

// pack notes a pack that something names; twice is once too often.
func (a *account) pack(p ledger.Pack, by string) {
	name := p.Name.Path(p.Kind)
	if _, twice := a.packs[name]; twice {
		a.errorf("%s is recorded again by %s", name, by)
	}
	a.packs[name] = p
}

// runs takes the records of runs that stored something and did not commit. A
// pack in them may be in the ledger too: another machine's commit recorded it.
func (a *account) runs() {
	done := make(map[string]bool)
	for _, p := range a.state.Points() {
		if !p.Void && !a.pendingVoid(p) {
			done[p.Run] = true
		}
	}
	for _, id := range a.below("runs") {
		a.take("runs/" + id)
		packs, err := runPacks(a.read("runs/" + id))
		if err != nil {
			a.errorf("runs/%s: %w", id, err)
		}
		if done[id] {
			a.errorf("runs/%s is of a run that has committed", id)
		}
		if len(packs) == 0 {
			a.errorf("runs/%s is of a run that stored nothing", id)
		}
		for _, p := range packs {
			name := p.Name.Path(p.Kind)
			_, there := a.files[name]
			// A pack that was to be named and was not is no loss.
			if _, known := a.packs[name]; there && !known {
				a.pack(p, "runs/"+id)
			}
		}
	}
}

// runPacks reads the record of a run up to its last whole line.
func runPacks(text []byte) (packs []ledger.Pack, err error) {
	for n := 0; ; n++ {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		body, sum, ok := bytes.Cut(line, []byte(`,"crc":"`))
		if !whole || !ok || string(sum) != fmt.Sprintf("%08X\"}", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))) {
			if bytes.Contains(rest, []byte("\n")) {
				err = fmt.Errorf("line %d is damaged", n+1)
			}
			return packs, err
		}
		if n > 0 {
			var p ledger.Pack
			if err := json.Unmarshal(line, &p); err != nil {
				return packs, err
			}
			packs = append(packs, p)
		}
		text = rest
	}
}

// pendingVoid tells whether a point has no manifest and waits for the next
// segment to say so, which it may only while its own is the last.
func (a *account) pendingVoid(p ledger.PointState) bool {
	_, there := a.files["points/"+p.ID]
	_, twin := a.files["points/"+p.ID+".twin"]
	return p.Segment == a.last && !there && !twin
}

// points takes the manifests, and the leases of points.
func (a *account) points() {
	for _, p := range a.state.Points() {
		if p.Void || a.pendingVoid(p) || p.Expired != 0 && !a.retired(p.ID) {
			continue
		}
		if text := a.pair("points/" + p.ID); sha256.Sum256(text) != p.Manifest {
			a.errorf("points/%s is not what the ledger records", p.ID)
		}
	}
}

// retired tells whether a point that expired may have its manifest still: it is
// locked or pinned.
func (a *account) retired(id string) bool {
	name := "points/" + id
	for file := range a.files {
		if strings.HasPrefix(file, "leases/pin-"+id+"-") {
			_, there := a.files[name]
			return there
		}
	}
	locked, err := a.fsys.Locked(name)
	return err == nil && locked
}

// leases takes what readers leave: an empty file for each point that was read,
// and pins.
func (a *account) leases() {
	for _, base := range a.below("leases") {
		name := "leases/" + base
		id := strings.TrimPrefix(base, "pin-")
		id = id[:min(20, len(id))]
		p, known := a.state.Point(id)
		pin := strings.HasPrefix(base, "pin-"+id+"-")
		if !known || p.Void || !pin && (base != id || a.files[name] != 0) {
			continue
		}
		delete(a.files, name)
	}
}

// storedPacks takes the packs that are recorded, and looks into them.
func (a *account) storedPacks() {
	for _, name := range slices.Sorted(maps.Keys(a.packs)) {
		p := a.packs[name]
		size, ok := a.files[name]
		if !ok {
			a.errorf("%s is missing, and recorded", name)
			continue
		}
		delete(a.files, name)
		if text := a.read(name); size != p.Bytes || sha256.Sum256(text) != p.SHA256 {
			a.errorf("%s is not the pack that is recorded", name)
			continue
		}
		a.stored = append(a.stored, p)
	}
}

// index takes one list and the files it names, and looks up every record.
func (a *account) index() {
	x, err := index.Open(a.fsys, "index", index.Options{})
	if err != nil {
		a.errs = append(a.errs, err)
		return
	}
	lists := 0
	for _, base := range a.below("index") {
		if strings.HasPrefix(base, "list-") {
			delete(a.files, "index/"+base)
			lists++
		}
	}
	for _, f := range x.Files() {
		a.take("index/" + path.Base(f.Name))
	}
	a.saved("checkpoint", "verified", "damage")
	for i := range 16 {
		delete(a.files, fmt.Sprintf("index/spare-%02d", i)) // where files are few
	}
	if lists != 1 {
		a.errorf("%d lists in index/, want 1", lists)
	}
	if err := x.Skipped(); err != nil {
		a.errorf("index passes over something: %w", err)
	}
	if x.Covers() != a.last {
		a.errorf("index covers segment %d, the last is %d", x.Covers(), a.last)
	}
	for _, p := range a.stored {
		if err := a.indexed(x, p); err != nil {
			a.errorf("%s: %w", p.Name.Path(p.Kind), err)
		}
	}
	if err := x.Close(); err != nil {
		a.errs = append(a.errs, err)
	}
}

// saved takes what lies beside the index, at most one file of each word, but for
// the lists of verified packs, which count together.
func (a *account) saved(words ...string) {
	for _, word := range words {
		n := 0
		for _, base := range a.below("index") {
			if strings.HasPrefix(base, word+"-") {
				delete(a.files, "index/"+base)
				n++
			}
		}
		if n > 1 && word != "verified" {
			a.errorf("%d files of index/%s", n, word)
		}
	}
}

// refs takes the files of the reference counts. What an interrupted sweep left of
// them the next one removes.
func (a *account) refs() {
	t, err := refcount.Open(a.fsys, "index/refs", refcount.Options{})
	if err != nil {
		a.errs = append(a.errs, err)
		return
	}
	for _, base := range a.below("index/refs") {
		if strings.HasPrefix(base, "refs-") || strings.HasSuffix(base, ".ref") {
			delete(a.files, "index/refs/"+base)
		}
	}
	if err := t.Close(); err != nil {
		a.errs = append(a.errs, err)
	}
}

// indexed looks up every record of a pack.
func (a *account) indexed(x *index.Index, p ledger.Pack) error {
	f, err := a.fsys.Open(p.Name.Path(p.Kind))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	pf, err := pack.Open(f, p.Bytes)
	if err != nil {
		return err
	}
	if pf.Name() != p.Name || pf.Kind() != p.Kind {
		return fmt.Errorf("says that it is %s", pf.Name().Path(pf.Kind()))
	}
	records, err := pf.Records()
	if err != nil {
		return err
	}
	for _, r := range records {
		locs, err := x.Lookup(r.ID)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(locs, func(l index.Location) bool { return l.Pack == p.Name && l.Off == r.Off && l.Len == r.Len }) {
			return fmt.Errorf("record %s at %d is not in the index", r.ID.Short(), r.Off)
		}
	}
	return nil
}
