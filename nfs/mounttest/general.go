package mounttest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// general does what programs do: build trees, copy them, append, sort, run.
func (e *env) general() {
	files := e.sources()
	e.copies(files)
	e.middle()
	e.appended()
	e.together()
	e.runs()
}

// sources makes a tree of texts, like a program's.
func (e *env) sources() map[string][]byte {
	files := map[string][]byte{}
	for i := range 60 {
		e.step("make sources")
		name := fmt.Sprintf("src/%c/part%d.txt", 'a'+i%5, i)
		var b bytes.Buffer
		for range 1 + e.rnd.IntN(300) {
			fmt.Fprintf(&b, "line %x\n", e.rnd.Uint32())
		}
		files[name] = b.Bytes()
		e.ok(os.MkdirAll(filepath.Dir(e.path(name)), 0o755))
		e.write(name, b.Bytes())
	}
	return files
}

// copies copies the tree, sorts each file into a third place, compares, and moves
// one tree away.
func (e *env) copies(files map[string][]byte) {
	e.step("copy")
	e.ok(os.CopyFS(e.path("copy"), os.DirFS(e.path("src"))))
	for name, content := range files {
		e.step("compare %s", name)
		e.holds(strings.Replace(name, "src", "copy", 1), content)
		lines := strings.SplitAfter(string(content), "\n")
		slices.Sort(lines)
		sorted := strings.Join(lines, "")
		out := "sorted-" + filepath.Base(name)
		tmp := out + ".tmp"
		e.write(tmp, []byte(sorted))
		e.ok(os.Rename(e.path(tmp), e.path(out)))
		e.holds(out, []byte(sorted))
	}
	e.step("move a tree")
	e.ok(os.Rename(e.path("copy"), e.path("moved")))
	for name, content := range files {
		e.holds(strings.Replace(name, "src", "moved", 1), content)
	}
	e.ok(os.RemoveAll(e.path("moved")))
}

// appended has two descriptors append to a file in turn.
func (e *env) appended() {
	var want bytes.Buffer
	var open [2]*os.File
	for i := range open {
		f, err := os.OpenFile(e.path("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		e.ok(err)
		defer f.Close()
		open[i] = f
	}
	for i := range 200 {
		e.step("append line %d", i)
		line := fmt.Sprintf("%d: %x\n", i, e.rnd.Uint64())
		want.WriteString(line)
		_, err := io.WriteString(open[i%2], line)
		e.ok(err)
		if i%50 == 0 {
			e.ok(open[i%2].Sync())
		}
	}
	e.holds("log", want.Bytes())
}

// together has several writers at once, each with a file of its own and a part of
// a common one.
func (e *env) together() {
	e.step("write together")
	const writers, part = 6, 64 << 10
	shared := e.create("shared")
	want := e.bytes(writers * part)
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		mine := want[i*part : (i+1)*part]
		name := e.path(fmt.Sprint("own", i))
		wg.Go(func() {
			own, err := os.Create(name)
			if err != nil {
				errs[i] = err
				return
			}
			w := bufio.NewWriterSize(own, 3000)
			for off := 0; off < part && err == nil; off += 1000 {
				piece := mine[off:min(off+1000, part)]
				if _, err = shared.WriteAt(piece, int64(i*part+off)); err == nil {
					_, err = w.Write(piece)
				}
			}
			for _, then := range []func() error{w.Flush, own.Sync, own.Close} {
				if err == nil {
					err = then()
				}
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for i, err := range errs {
		e.ok(err)
		e.holds(fmt.Sprint("own", i), want[i*part:(i+1)*part])
	}
	e.ok(shared.Sync())
	e.holds("shared", want)
}

// runs copies a program and runs it from there, which maps it into memory.
func (e *env) runs() {
	e.step("run a program")
	sh, err := exec.LookPath("sh")
	e.ok(err)
	program, err := os.ReadFile(sh)
	e.ok(err)
	e.ok(os.WriteFile(e.path("sh"), program, 0o755))
	out, err := exec.Command(e.path("sh"), "-c", "echo $((6*7))").CombinedOutput()
	e.ok(err)
	e.that(string(out) == "42\n", "it says %q", out)
}
