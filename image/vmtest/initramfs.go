package vmtest

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// archive writes a cpio archive, which the kernel unpacks into its first root
// file system.
//
// Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux,
// the "newc" format: a header of 110 characters in hex, the name with a zero
// byte, the content, both padded to four bytes.
type archive struct {
	w    *bufio.Writer
	ino  int
	dirs map[string]bool
	err  error
}

const (
	modeDir  = 0o040755
	modeFile = 0o100755
)

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriterSize(w, 1<<20), dirs: map[string]bool{".": true}}
}

// add adds a file, and the directories that lead to it.
func (a *archive) add(name string, size int64, content io.Reader) {
	a.makeDirs(path.Dir(name))
	a.header(name, modeFile, size)
	if a.err == nil {
		var n int64
		if n, a.err = io.Copy(a.w, content); a.err == nil && n != size {
			a.err = io.ErrUnexpectedEOF
		}
	}
	a.pad(size)
}

func (a *archive) addText(name, text string) {
	a.add(name, int64(len(text)), strings.NewReader(text))
}

func (a *archive) addFile(name, from string) {
	f, err := os.Open(from)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		a.err = err
		return
	}
	a.add(name, info.Size(), f)
}

func (a *archive) makeDirs(dir string) {
	if a.dirs[dir] {
		return
	}
	a.makeDirs(path.Dir(dir))
	a.dirs[dir] = true
	a.header(dir, modeDir, 0)
}

func (a *archive) header(name string, mode int, size int64) {
	a.ino++
	a.printf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad(int64(110 + len(name) + 1))
}

func (a *archive) pad(n int64) { a.printf("%s", "\x00\x00\x00"[:-n&3]) }

func (a *archive) printf(format string, args ...any) {
	if a.err == nil {
		_, a.err = fmt.Fprintf(a.w, format, args...)
	}
}

// close writes the end. It gives the first error there was.
func (a *archive) close() error {
	a.header("TRAILER!!!", 0, 0)
	if a.err != nil {
		return a.err
	}
	return a.w.Flush()
}

// writeInitramfs writes the machine's root file system.
func (m *Machine) writeInitramfs(w io.Writer, busybox string, modules []module) error {
	a := newArchive(w)
	a.makeDirs("bin")
	a.addFile("bin/busybox", busybox)
	order := ""
	for _, mod := range modules {
		a.addFile("modules/"+mod.name+".ko", mod.file)
		order += mod.name + ".ko\n"
	}
	a.addText("modules/order", order)
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		a.addFile(name, m.Files[name])
	}
	a.addText("script", m.Script)
	a.addText("init", m.init())
	return a.close()
}
