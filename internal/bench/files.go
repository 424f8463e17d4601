//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"holdfast/fs"
	"holdfast/fs/content"
	"holdfast/fs/guest"
	"holdfast/fs/guest/child"
	"holdfast/repo"
)

const coldListings = 10

// files lists and reads the files of a guest.
func (b *runner) files(ctx context.Context) (*result, error) {
	r := &result{
		Title: "files of a guest's ext4",
		columns: []column{
			{"files", func(f figures) string { return dash(f.Reads, f.Reads > 0) }},
			{"wall ms", func(f figures) string { return number(f.Wall * 1000) }},
			{"worst ms", func(f figures) string { return number(f.WallMax * 1000) }},
			{"CPU ms", func(f figures) string { return number(f.CPU * 1000) }},
			{colPerCPU.head, func(f figures) string { return dash(number(f.perCPU()), f.Work > 0) }},
			colRSS,
		},
	}
	if err := b.firstListing(ctx, r); err != nil {
		return nil, err
	}
	return r, b.wholeTree(ctx, r)
}

// firstListing lists the top of the file system of a huge disk, cold.
func (b *runner) firstListing(ctx context.Context, r *result) error {
	d, err := b.disk(ctx, hugeDisk)
	if err != nil {
		return err
	}
	s, err := b.begin(ctx, b.plain)
	if err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	b.say("  backup of %s", size(d.SizeBytes))
	if _, _, err := b.plain.backup(s, d.Dir, "first").run(ctx); err != nil {
		return err
	}
	var runs []figures
	for range coldListings {
		if err := chill(s.dir); err != nil {
			return err
		}
		f, err := b.guestChild(ctx, "list", b.plain.input(s))
		if err != nil {
			return err
		}
		f.Tool = fmt.Sprintf("first listing of /, disk of %s, cold", size(d.SizeBytes))
		runs = append(runs, f)
	}
	row := median(runs)
	r.Rows = append(r.Rows, row)
	r.atMost("first listing: ms from opening the repository, median of 10 cold runs", row.Wall*1000, 200)
	return nil
}

// wholeTree reads all files of the dense disk.
func (b *runner) wholeTree(ctx context.Context, r *result) error {
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return err
	}
	s, err := b.fullSite(ctx, b.plain)
	if err != nil {
		return err
	}
	stored := b.plain.input(s)
	ways := []struct {
		what string
		in   childInput
		goal bool
	}{
		{"all files, of the disk's image", childInput{Disk: d.image()}, true},
		{"all files, of the image, process apart", childInput{Disk: d.image(), Apart: true}, true},
		{"all files, of a restore point", stored, true},
	}
	runs := make([][]figures, len(ways)+1)
	for range b.times() {
		if err := warm(d.image()); err != nil {
			return err
		}
		for i, w := range ways {
			f, err := b.guestChild(ctx, "readall", w.in)
			if err != nil {
				return err
			}
			f.Tool = w.what
			b.say("  %-40s %8.0f MiB/CPU s", f.Tool, f.perCPU())
			runs[i] = append(runs[i], f)
		}
		f, err := b.kernelTree(ctx, d)
		if err != nil {
			return err
		}
		if f.Tool != "" {
			runs[len(ways)] = append(runs[len(ways)], f)
		}
	}
	for i, run := range runs {
		if len(run) == 0 {
			r.note("not root: the kernel's own ext4 was not measured")
			continue
		}
		row := median(run)
		r.Rows = append(r.Rows, row)
		if i < len(ways) && ways[i].goal {
			r.atLeast(row.Tool+" through fs.Tree: MiB/CPU s", row.perCPU(), 300)
		}
		if row.Reads != runs[0][0].Reads || row.Work != runs[0][0].Work {
			return fmt.Errorf("%s: %d files with %d bytes, of the image %d with %d", row.Tool, row.Reads, row.Work, runs[0][0].Reads, runs[0][0].Work)
		}
	}
	r.note("a restore point is read by a process apart, as people get it, and is decoded and verified on the way, one file after the other; image and packs are in the page cache")
	return nil
}

// kernelTree reads all files through the kernel's ext4 on a loop device; its
// Tool is "" for who is not root.
func (b *runner) kernelTree(ctx context.Context, d disk) (f figures, err error) {
	if os.Geteuid() != 0 {
		return f, nil
	}
	dir, err := b.mountpoint("ext4")
	if err != nil {
		return f, err
	}
	if out, err := exec.CommandContext(ctx, "mount", "-o", "loop,ro,noload", d.image(), dir).CombinedOutput(); err != nil {
		return f, fmt.Errorf("mount: %w: %s", err, tail(string(out)))
	}
	defer func() { err = errors.Join(err, exec.Command("umount", dir).Run()) }()
	f, err = b.guestChild(ctx, "readall", childInput{File: dir})
	f.Tool, f.Peer = "all files, of the image, Linux", true
	return f, err
}

// treeReport is what came of reading a tree.
type treeReport struct {
	Seconds, CPU float64
	Files        int
	Bytes        int64
	RSS          int64
}

// guestChild runs a job that reports about a tree.
func (b *runner) guestChild(ctx context.Context, job string, in childInput) (f figures, err error) {
	out, err := startChild(ctx, job, in)
	if err != nil {
		return f, err
	}
	var rep treeReport
	err = json.Unmarshal(out, &rep)
	return figures{Wall: rep.Seconds, CPU: rep.CPU, Reads: rep.Files, Work: rep.Bytes, RSS: rep.RSS}, err
}

func (r treeReport) print(began time.Time) error {
	r.Seconds = time.Since(began).Seconds()
	cpu, err := familyCPU(os.Getpid())
	if err != nil {
		return err
	}
	r.CPU = cpu.Seconds()
	r.RSS, err = familyRSS(os.Getpid())
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(r))
}

// openContent opens the tree of a repository with the file system on the only
// disk of its latest point.
func (in childInput) openContent(ctx context.Context) (t fs.Tree, top fs.Attr, closeAll func() error, err error) {
	dir, opt, err := in.directories()
	if err != nil {
		return nil, top, nil, err
	}
	r, err := repo.Open(ctx, dir, opt)
	if err != nil {
		return nil, top, nil, err
	}
	t = content.New(r, content.Options{Guests: guests})
	closeAll = func() error { return errors.Join(t.Close(), r.Close()) }
	top, err = fs.Resolve(ctx, t, t.Root(), "bench/latest/files/"+diskName+"/whole", true)
	if err != nil {
		return nil, top, nil, errors.Join(err, closeAll())
	}
	return t, top, closeAll, nil
}

// guests starts a reader of guests' file systems, a process of its own.
func guests(ctx context.Context) (guest.Reader, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return child.Start(ctx, child.Options{Command: []string{self, child.Verb}})
}

// childList lists the top of a file system, beginning with nothing open.
func childList(in childInput) error {
	ctx, began := context.Background(), time.Now()
	t, top, closeAll, err := in.openContent(ctx)
	if err != nil {
		return err
	}
	var rep treeReport
	err = t.ReadDir(ctx, top.ID, 0, func(fs.Entry) bool { rep.Files++; return true })
	if err == nil && rep.Files == 0 {
		err = errors.New("nothing is there")
	}
	return errors.Join(err, rep.print(began), closeAll())
}

// childReadAll reads all files of a tree: of a directory, a disk's image or a
// repository.
func childReadAll(in childInput) (err error) {
	ctx, began := context.Background(), time.Now()
	var rep treeReport
	switch {
	case in.File != "":
		err = readDirectory(in.File, &rep)
	case in.Disk != "":
		f, ferr := os.Open(in.Disk)
		if ferr != nil {
			return ferr
		}
		defer f.Close()
		info, ferr := f.Stat()
		if ferr != nil {
			return ferr
		}
		d := sizedFile{f, info.Size()}
		var r guest.Reader = guest.Direct{}
		if in.Apart {
			if r, err = guests(ctx); err != nil {
				return err
			}
		}
		defer r.Close() //nolint:errcheck // nothing was written
		t, terr := openGuest(ctx, r, d)
		if terr != nil {
			return terr
		}
		err = errors.Join(readTree(ctx, t, t.Root(), &rep), t.Close())
	default:
		t, top, closeAll, terr := in.openContent(ctx)
		if terr != nil {
			return terr
		}
		err = errors.Join(readTree(ctx, t, top.ID, &rep), closeAll())
	}
	return errors.Join(err, rep.print(began))
}

type sizedFile struct {
	*os.File
	size int64
}

func (f sizedFile) Size() int64 { return f.size }

// openGuest opens the only volume of a disk.
func openGuest(ctx context.Context, r guest.Reader, d guest.Disk) (fs.Tree, error) {
	l, err := r.Layout(ctx, d)
	if err != nil {
		return nil, err
	}
	if len(l.Volumes) != 1 {
		return nil, fmt.Errorf("%d volumes, want one", len(l.Volumes))
	}
	return r.Open(ctx, d, l.Volumes[0])
}

const readAllBytes = 1 << 20 // at a time

func readTree(ctx context.Context, t fs.Tree, top fs.ID, rep *treeReport) error {
	p := make([]byte, readAllBytes)
	return fs.Walk(ctx, t, top, func(_ string, a fs.Attr, err error) error {
		if err != nil || a.Type != fs.TypeFile {
			return err
		}
		n, err := readOut(fs.File(ctx, t, a), p)
		rep.Files++
		rep.Bytes += n
		return err
	})
}

func readDirectory(dir string, rep *treeReport) error {
	p := make([]byte, readAllBytes)
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		n, err := readOut(f, p)
		rep.Files++
		rep.Bytes += n
		return errors.Join(err, f.Close())
	})
}

// readOut reads r to its end.
func readOut(r io.ReaderAt, p []byte) (total int64, err error) {
	for {
		n, err := r.ReadAt(p, total)
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
