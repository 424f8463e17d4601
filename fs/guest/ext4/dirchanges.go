package ext4

// madeEntries is the cookie before the entries that fast commits added, behind
// any byte a directory can have.
const madeEntries = 1 << 56

// dirChanges is what fast commits did to a directory. The zero value and nil
// are no changes.
type dirChanges struct {
	made   bool   // by a fast commit; it has no blocks that count
	parent uint32 // of one so made

	gone  map[string]bool // names that its blocks have but it has no more
	added []dirent        // in their order; those removed again have inode 0
	index map[string]int  // in added
}

// hides says whether an entry on disk does not count any more.
func (c *dirChanges) hides(name []byte) bool { return c != nil && c.gone[string(name)] }

// find returns what is known of a name without looking at the disk.
func (c *dirChanges) find(name string) (ino uint32, known bool) {
	if i, ok := c.index[name]; ok {
		return c.added[i].ino, true
	}
	return 0, c.gone[name]
}

func (c *dirChanges) add(name string, ino uint32, fileType byte) {
	if c.index == nil {
		c.index = make(map[string]int)
	}
	at := madeEntries + uint64(len(c.added))
	c.index[name] = len(c.added)
	c.added = append(c.added, dirent{ino: ino, fileType: fileType, name: []byte(name), off: at, next: at + 1})
}

func (c *dirChanges) remove(name string) {
	if i, ok := c.index[name]; ok {
		c.added[i].ino = 0
		delete(c.index, name)
		return
	}
	if c.gone == nil {
		c.gone = make(map[string]bool)
	}
	c.gone[name] = true
}

// eachAdded calls fn with what was added, behind a cookie, until it returns
// false.
func (c *dirChanges) eachAdded(cookie uint64, fn func(dirent) bool) {
	if c == nil {
		return
	}
	for _, d := range c.added[min(uint64(len(c.added)), max(cookie, madeEntries)-madeEntries):] {
		if d.ino != 0 && !fn(d) {
			return
		}
	}
}
