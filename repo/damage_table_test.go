package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// TestDamageTable damages every kind of file in every way and prints what comes
// of it: whether a scrub finds it and names the file, and what heals it or what
// is listed. A damage that is not found fails the test, but where nothing is lost with
// the file, for the reason that stands in the table. With -v it does all and
// prints them, else some of each kind of file.
func TestDamageTable(t *testing.T) {
	for _, shape := range sampleShapes() {
		t.Run(shape.String(), func(t *testing.T) {
			table := newDamageTable(t, sampleOf(t, shape))
			var mu sync.Mutex
			rows := make([]string, len(table.kinds))
			t.Run("kinds", func(t *testing.T) {
				for i, k := range table.kinds {
					t.Run(k.name, func(t *testing.T) {
						t.Parallel()
						var b strings.Builder
						ways := table.ways(k)
						if !testing.Verbose() {
							ways = some(ways, 2, i)
						}
						for _, w := range ways {
							fmt.Fprintf(&b, "%s\t%s\t%s\n", k.name, w.name, table.row(t, k, w))
						}
						mu.Lock()
						defer mu.Unlock()
						rows[i] = b.String()
					})
				}
			})
			if testing.Verbose() {
				w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
				fmt.Fprintf(w, "FILE (%s)\tDAMAGE\tFOUND\tTHEN\n%s", shape, strings.Join(rows, ""))
				w.Flush() //nolint:errcheck // for people
			}
		})
	}
}

// fileKind is one kind of file and those of the sample that are damaged together.
type fileKind struct {
	name  string
	files []string
	swap  string // a file of the kind with which the first is swapped; empty: none
	old   string // what an old version would be; empty: it never has another
	fresh bool   // damaged in the sample as it was made: its upkeep records what it says

	// made again: whoever finds nothing or less than there was goes on, and
	// loses nothing. Ways without an entry must be found.
	harmless map[string]string
}

// damageTable is a repository with a file of every kind, and its past.
type damageTable struct {
	*sample
	fsys  *vfs.Mem // everything undamaged
	past  *vfs.Mem // the same repository two points earlier
	from  *Repository
	kinds []fileKind
}

func newDamageTable(t *testing.T, s *sample) *damageTable {
	d := &damageTable{sample: s, past: s.past, fsys: s.clone()}
	d.prepare(t)
	var err error
	if d.from, err = Open(t.Context(), d.copy(), s.options(io.Discard)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.from.Close() })
	d.list(t)
	return d
}

// prepare makes what only upkeep makes: the list of verified packs, that of known
// damage, counts, a checkpoint.
func (d *damageTable) prepare(t *testing.T) {
	t.Helper()
	o := d.own(t, d.fsys)
	if _, err := o.Scrub(t.Context(), ScrubOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Sweep(t.Context(), SweepOptions{}); err != nil {
		t.Fatal(err)
	}
	// A pack that was damaged once, and is whole now: only the list knows.
	k := knownBad{name: pack.Name{15: 1}, kind: pack.Data, fault: FaultBytes, records: []badRecord{{off: 64, len: 200, kind: pack.Chunk}}}
	if err := o.store.saveDamage(&damageList{at: o.now(), packs: []knownBad{k}}); err != nil {
		t.Fatal(err)
	}
	o.commit.Lock()
	err := o.writeCheckpoint(0)
	o.commit.Unlock()
	if err = errors.Join(err, o.Close()); err != nil {
		t.Fatal(err)
	}
}

func (d *damageTable) copy() *vfs.Mem {
	return d.fsys.CrashClone(vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepAll, Names: vfs.KeepAll})
}

// first returns the n-th file below a directory whose name has a part.
func (d *damageTable) nth(t *testing.T, dir, part string, n int) string {
	t.Helper()
	var list []string
	err := vfs.Walk(d.fsys, dir, func(name string, info vfs.Info) error {
		if !info.Dir && strings.Contains(path.Base(name), part) && !strings.HasSuffix(name, twinSuffix) {
			list = append(list, name)
		}
		return nil
	})
	if err != nil || len(list) <= n {
		t.Fatalf("no file %d with %q in %s: %v, %v", n, part, dir, list, err)
	}
	return list[n]
}

const (
	wayBit, waySector, wayCut, wayGone, waySwap, wayZeros, wayOld = "a bit", "a sector", "cut in half", "deleted", "swapped", "zeroed tail", "an old version"
)

// anyWay says of every way why it does no harm.
func anyWay(why string) map[string]string {
	m := make(map[string]string)
	for _, w := range []string{wayBit, waySector, wayCut, wayGone, waySwap, wayZeros, wayOld} {
		m[w] = why
	}
	return m
}

func (d *damageTable) list(t *testing.T) {
	t.Helper()
	add := func(k fileKind) { d.kinds = append(d.kinds, k) }
	twins := func(name, file, swap string) {
		add(fileKind{name: name, files: []string{file}, swap: swap})
		add(fileKind{name: name + ", twin", files: []string{file + twinSuffix}, swap: swap})
		add(fileKind{name: name + ", both", files: []string{file, file + twinSuffix}, swap: swap})
	}
	packs := d.committed(t)
	add(fileKind{name: "data pack", files: packs[pack.Data][:1], swap: packs[pack.Data][1]})
	add(fileKind{name: "meta pack", files: packs[pack.Meta][:1], swap: packs[pack.Meta][1]})
	twins("manifest", d.nth(t, pointsDir, "", 0), d.nth(t, pointsDir, "", 1))
	twins("newest manifest", pointPath(d.points[len(d.points)-1].id), d.nth(t, pointsDir, "", 0))
	twins("segment", segmentPath(2), segmentPath(3))
	last, err := lastSegment(d.fsys)
	if err != nil {
		t.Fatal(err)
	}
	twins("newest segment", segmentPath(last), segmentPath(2))
	twins("settings", settingsName, "")
	if d.shape.sealed {
		twins("key", d.nth(t, keysDir, "key-", 0), d.nth(t, keysDir, "signer", 0))
	}
	twins("public signing key", d.nth(t, keysDir, "signer", 0), settingsName)
	add(fileKind{name: "index file", files: []string{d.nth(t, indexDir, ".idx", 0)}, swap: d.nth(t, indexDir, "list-", 0), old: indexDir})
	add(fileKind{name: "index list", files: []string{d.nth(t, indexDir, "list-", 0)}, swap: d.nth(t, indexDir, ".idx", 0), old: indexDir})
	again := map[string]string{wayGone: "made again", wayOld: "behind, and brought up to date"}
	add(fileKind{name: "checkpoint", files: []string{d.nth(t, indexDir, "checkpoint", 0)}, swap: d.nth(t, indexDir, ".idx", 0), harmless: again})
	add(fileKind{name: "verified packs", files: []string{d.nth(t, indexDir, "verified", 0)}, swap: d.nth(t, indexDir, "damage", 0), harmless: again})
	add(fileKind{name: "known damage", files: []string{d.nth(t, indexDir, "damage", 0)}, swap: d.nth(t, indexDir, "verified", 0), harmless: again})
	counts := d.nth(t, refsDir, "refs-", 0)
	add(fileKind{name: "counts, list", files: []string{counts}, swap: d.nth(t, indexDir, "verified", 0), harmless: again})
	for _, name := range d.below(t, refsDir) {
		if name != counts {
			add(fileKind{name: "counts, file", files: []string{name}, swap: counts})
			break
		}
	}
	add(fileKind{name: "run record", files: []string{d.nth(t, runsDir, "", 0)}, swap: d.nth(t, indexDir, "verified", 0), old: runsDir, fresh: true})
	add(fileKind{name: "lease", files: []string{leasesDir + "/" + path.Base(d.nth(t, pointsDir, "", 0))}, harmless: anyWay("nothing is read from it")})
	add(fileKind{name: "lock", files: []string{lockName}, harmless: anyWay("nothing is read from it")})
}

func (d *damageTable) below(t *testing.T, dir string) []string {
	t.Helper()
	infos, err := d.fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, info := range infos {
		names = append(names, dir+"/"+info.Name)
	}
	return names
}

// committed lists the packs of the ledger.
func (d *damageTable) committed(t *testing.T) map[pack.Kind][]string {
	t.Helper()
	packs := make(map[pack.Kind][]string)
	inv, err := d.reader(t, d.copy()).inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range inv.packs {
		if !p.unfinished {
			packs[p.Kind] = append(packs[p.Kind], p.Name.Path(p.Kind))
		}
	}
	return packs
}

func (d *damageTable) reader(t *testing.T, fsys vfs.FS) *Repository {
	t.Helper()
	r, err := Open(t.Context(), fsys, d.options(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// A way is one kind of damage.
type way struct {
	name string
	do   func(t *testing.T, fsys *vfs.Mem, file string)
}

// ways lists the kinds of damage that a kind of file can have.
func (d *damageTable) ways(k fileKind) []way {
	rewrite := func(name string, change func([]byte) []byte) way {
		return way{name, func(t *testing.T, fsys *vfs.Mem, file string) {
			p, err := vfs.ReadFile(fsys, file, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			put(t, fsys, file, change(bytes.Clone(p)))
		}}
	}
	list := []way{
		rewrite(wayBit, func(p []byte) []byte {
			if len(p) > 0 {
				p[len(p)/2] ^= 0x10
			}
			return p
		}),
		rewrite(waySector, func(p []byte) []byte {
			start := len(p) / 2 &^ (pack.BlockBytes - 1)
			for i := range p[start:min(len(p), start+pack.BlockBytes)] {
				p[start+i] = byte(0xA0 + i)
			}
			return p
		}),
		rewrite(wayCut, func(p []byte) []byte { return p[:len(p)/2] }),
		{wayGone, func(t *testing.T, fsys *vfs.Mem, file string) {
			if err := fsys.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}},
		rewrite(wayZeros, func(p []byte) []byte { clear(p[len(p)-len(p)/3:]); return p }),
	}
	if k.swap != "" {
		list = append(list, way{waySwap, func(t *testing.T, fsys *vfs.Mem, file string) {
			a, aerr := vfs.ReadFile(fsys, file, 1<<30)
			b, berr := vfs.ReadFile(d.fsys, k.swap, 1<<30)
			if err := errors.Join(aerr, berr); err != nil {
				t.Fatal(err)
			}
			put(t, fsys, file, b)
			if len(k.files) == 1 {
				put(t, fsys, k.swap, a)
			}
		}})
	}
	if k.old != "" {
		list = append(list, way{wayOld, func(t *testing.T, fsys *vfs.Mem, file string) { d.putOld(t, fsys, k, file) }})
	}
	return list
}

// put makes p the file's bytes.
func put(t *testing.T, fsys vfs.FS, file string, p []byte) {
	t.Helper()
	err := fsys.Remove(file)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = vfs.WriteFile(fsys, file, p)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// putOld takes a directory, or a run's record, back to what it was.
func (d *damageTable) putOld(t *testing.T, fsys *vfs.Mem, k fileKind, file string) {
	t.Helper()
	if k.old == runsDir {
		p, err := vfs.ReadFile(fsys, file, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		put(t, fsys, file, p[:bytes.IndexByte(p, '\n')+1])
		return
	}
	for _, name := range d.below(t, k.old) {
		if info, err := fsys.Stat(name); err == nil && !info.Dir {
			if err := fsys.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	infos, err := d.past.ReadDir(k.old)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if p, err := vfs.ReadFile(d.past, k.old+"/"+info.Name, 1<<30); err == nil {
			put(t, fsys, k.old+"/"+info.Name, p)
		}
	}
}

// row damages and returns what comes of it, in two columns.
func (d *damageTable) row(t *testing.T, k fileKind, w way) string {
	t.Helper()
	what := k.name + ", " + w.name
	fsys := d.copy()
	if k.fresh {
		fsys = d.clone()
	}
	for _, file := range k.files {
		if _, err := fsys.Stat(file); err == nil {
			w.do(t, fsys, file)
		}
	}
	opt := d.options(io.Discard)
	if d.shape.sealed {
		opt.Passphrase, opt.Keyless = nil, true
	}
	r, err := Open(t.Context(), fsys, opt)
	if err != nil {
		if !strings.Contains(err.Error(), settingsName) && !errors.Is(err, ErrNotRepository) {
			t.Errorf("%s: it can't be opened: %v", what, err)
		}
		return "yes: it can't be opened\tlisted: " + settingsName
	}
	rep, err := r.Scrub(t.Context(), ScrubOptions{})
	if err = errors.Join(err, r.Close()); err != nil {
		t.Errorf("%s: scrub: %v", what, err)
		return "\t"
	}
	found := d.named(rep, k)
	if found == "" {
		why := k.harmless[w.name]
		if why == "" {
			t.Errorf("%s: the scrub does not find it, or does not name %v: %+v", what, k.files, rep)
		}
		if f := d.readAll(t, fsys); len(f.errs) > 0 {
			t.Errorf("%s: was said to do no harm: %v", what, f)
		}
		return "no\t" + why
	}
	return found + "\t" + d.after(t, what, fsys)
}

// named says how a report names the files, or nothing if it does not.
func (d *damageTable) named(rep *ScrubReport, k fileKind) string {
	for _, p := range rep.Damage {
		if slices.Contains(k.files, p.Path) {
			return "yes: " + p.Fault.String()
		}
	}
	for _, f := range rep.Files {
		if slices.Contains(k.files, f.Path) {
			return "yes"
		}
		// Of directories of which all files count together, the directory.
		for _, file := range k.files {
			if f.Path == path.Dir(file) {
				return "yes: in " + f.Path
			}
		}
	}
	if len(rep.Orphans) > 0 {
		return "yes: packs that nothing names"
	}
	return ""
}

// after repairs: first with what the repository has, then with a copy of it.
func (d *damageTable) after(t *testing.T, what string, fsys *vfs.Mem) string {
	t.Helper()
	with := func(from *Repository) (*RepairReport, error) {
		opt := d.options(io.Discard)
		o, err := Own(t.Context(), fsys, opt, 0)
		if err != nil {
			return nil, err
		}
		rep, err := o.Repair(t.Context(), RepairOptions{From: from})
		return rep, errors.Join(err, o.Close())
	}
	rep, err := with(nil)
	if err != nil {
		return "listed: " + firstLine(err)
	}
	healed := "healed"
	if !rep.Whole() {
		lost := len(rep.Lost)
		if rep, err = with(d.from); err != nil {
			t.Errorf("%s: repair from a copy: %v", what, err)
			return "\t"
		}
		healed = fmt.Sprintf("listed (%d ranges); healed from a copy", lost)
	}
	if !rep.Whole() {
		return fmt.Sprintf("listed: %d packs, %d files, %d ranges", len(rep.Packs), len(rep.Left), len(rep.Lost))
	}
	if f := d.readAll(t, fsys); len(f.errs) > 0 {
		t.Errorf("%s: %s, but %v", what, healed, f)
	}
	left := d.scrubAs(t, fsys, false, ScrubOptions{})
	if !left.Clean() {
		t.Errorf("%s: %s, but a scrub finds %+v", what, healed, left)
	}
	for _, f := range rep.Files {
		healed += ": " + f.By
		break
	}
	return healed
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
