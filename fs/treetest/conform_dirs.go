package treetest

import (
	"slices"
	"strings"

	"holdfast/fs"
)

// everyEntry is up to how many entries a directory is resumed at each.
const everyEntry = 300

func (c *conform) directories() {
	for _, a := range c.pick(func(a fs.Attr) bool { return a.IsDir() }) {
		if c.errors >= maxErrors {
			return
		}
		c.directory(a.ID)
	}
}

func (c *conform) directory(dir fs.ID) {
	whole := c.list(dir)
	c.resume(dir, whole)
	for _, n := range []int{1, 7, 1000} {
		if n == 1 && len(whole) > everyEntry {
			continue
		}
		if got := c.parts(dir, n, len(whole)); !sameEntries(got, whole) {
			c.errorf("ReadDir of %s in parts of %d: %d entries, not the %d of one go", c.where(dir), n, len(got), len(whole))
		}
	}
	if p, ok := c.places[dir]; ok {
		if up, err := c.t.Lookup(c.ctx, dir, ".."); err != nil || up.ID != p.dir {
			c.errorf(`Lookup("..") in %s: %v, %v; want %v`, c.where(dir), up.ID, err, p.dir)
		}
	}
	c.absent(dir, whole)
	_, err := c.t.ReadAt(c.ctx, dir, make([]byte, 1), 0)
	c.wants(err, "ReadAt of "+c.where(dir), fs.ErrIsDir)
	_, err = c.t.Extents(c.ctx, dir, 0, 1)
	c.wants(err, "Extents of "+c.where(dir), fs.ErrIsDir, fs.ErrInvalid)
	_, err = c.t.ReadLink(c.ctx, dir)
	c.wants(err, "ReadLink of "+c.where(dir), fs.ErrInvalid)
}

// resume goes on behind each entry, or behind some of many, and expects the next.
func (c *conform) resume(dir fs.ID, whole []fs.Entry) {
	at := make([]int, 0, everyEntry)
	for i := range whole {
		if len(whole) <= everyEntry || i < 3 || i >= len(whole)-3 || c.r.IntN(len(whole)) < everyEntry {
			at = append(at, i)
		}
	}
	c.r.Shuffle(len(at), func(i, j int) { at[i], at[j] = at[j], at[i] }) // as those do who come back much later
	for _, i := range at {
		var got []fs.Entry
		err := c.t.ReadDir(c.ctx, dir, whole[i].Cookie, func(e fs.Entry) bool {
			got = append(got, e)
			return false
		})
		want := whole[i+1 : min(i+2, len(whole))]
		if err != nil || !sameEntries(got, want) {
			c.errorf("ReadDir of %s behind %q: %d entries when stopped at the first, %v; want %q", c.where(dir), whole[i].Name, len(got), err, entryNames(want))
			return
		}
	}
}

// parts reads a directory n entries at a time; most is where something is wrong.
func (c *conform) parts(dir fs.ID, n, most int) []fs.Entry {
	var all []fs.Entry
	var cookie uint64
	for len(all) <= most {
		got := 0
		err := c.t.ReadDir(c.ctx, dir, cookie, func(e fs.Entry) bool {
			all = append(all, e)
			cookie = e.Cookie
			got++
			return got < n
		})
		if err != nil {
			c.errorf("ReadDir of %s behind cookie %d: %v", c.where(dir), cookie, err)
			return all
		}
		if got == 0 {
			break
		}
	}
	return all
}

func sameEntries(a, b []fs.Entry) bool {
	return slices.EqualFunc(a, b, func(a, b fs.Entry) bool {
		return a.Name == b.Name && a.ID == b.ID && a.Cookie == b.Cookie && a.Type == b.Type
	})
}

func entryNames(list []fs.Entry) []string {
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

// absent looks up names that are not there, near those that are and far.
func (c *conform) absent(dir fs.ID, whole []fs.Entry) {
	there := map[string]bool{}
	for _, e := range whole {
		there[e.Name] = true
	}
	for _, name := range []string{"no such name", "\xff\xfe\xfd", strings.Repeat("q", 255), "..."} {
		if there[name] {
			continue
		}
		_, err := c.t.Lookup(c.ctx, dir, name)
		c.wants(err, "Lookup of an absent name in "+c.where(dir), fs.ErrNotFound)
	}
	for _, name := range []string{"", strings.Repeat("long", 20_000), "a/b", "/", "nul\x00"} {
		_, err := c.t.Lookup(c.ctx, dir, name)
		c.wants(err, "Lookup of no name at all in "+c.where(dir), fs.ErrNotFound, fs.ErrInvalid)
	}
	if len(whole) > 0 {
		name := whole[c.r.IntN(len(whole))].Name
		if name = name + "\x7f"; !there[name] {
			_, err := c.t.Lookup(c.ctx, dir, name)
			c.wants(err, "Lookup of a name and a byte more in "+c.where(dir), fs.ErrNotFound, fs.ErrInvalid)
		}
	}
}

// others are what is neither a file nor a directory.
func (c *conform) others() {
	for _, a := range c.pick(func(a fs.Attr) bool { return !a.IsDir() && a.Type != fs.TypeFile }) {
		what := " of " + c.where(a.ID)
		_, err := c.t.ReadAt(c.ctx, a.ID, make([]byte, 1), 0)
		c.wants(err, "ReadAt"+what, fs.ErrInvalid)
		_, err = c.t.Extents(c.ctx, a.ID, 0, 1)
		c.wants(err, "Extents"+what, fs.ErrInvalid)
		target, err := c.t.ReadLink(c.ctx, a.ID)
		switch {
		case a.Type != fs.TypeSymlink:
			c.wants(err, "ReadLink"+what, fs.ErrInvalid)
		case c.passedOver(err):
		case err != nil || int64(len(target)) != a.Size || target == "":
			c.errorf("ReadLink%s: %q, %v; want %d bytes", what, target, err, a.Size)
		}
	}
	for _, a := range c.pick(func(a fs.Attr) bool { return !a.IsDir() }) {
		what := " in " + c.where(a.ID)
		_, err := c.t.Lookup(c.ctx, a.ID, "name")
		c.wants(err, "Lookup"+what, fs.ErrNotDir)
		err = c.t.ReadDir(c.ctx, a.ID, 0, func(fs.Entry) bool { return true })
		c.wants(err, "ReadDir"+what, fs.ErrNotDir)
		if c.errors >= maxErrors {
			return
		}
	}
}
