//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// sbin finds the tools of e2fsprogs, which are not in everyone's PATH.
func sbin(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p := filepath.Join(dir, name); exec.Command(p, "-V").Run() == nil {
			return p
		}
	}
	return name
}

// makeExt4 makes a file system of sizeBytes with the staged tree in it. What is
// random or a time in it is fixed.
func makeExt4(ctx context.Context, image string, sizeBytes int64, t *staged) error {
	if err := os.RemoveAll(image); err != nil {
		return err
	}
	c := command{
		args: []string{
			sbin("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "bench",
			"-N", strconv.Itoa(t.inodes() * 102 / 100), "-J", "size=16", "-O", "^resize_inode",
			"-U", "6c1f9d3e-0d4a-4f0e-9d5b-2a7c1b3e4f50", "-d", t.dir,
			"-E", "lazy_itable_init=1,nodiscard,root_owner=0:0,hash_seed=6c1f9d3e-0d4a-4f0e-9d5b-2a7c1b3e4f51",
			image, strconv.FormatInt(sizeBytes>>10, 10) + "k",
		},
		env: []string{"E2FSPROGS_FAKE_TIME=1750000000"},
	}
	_, _, err := c.run(ctx)
	return err
}

// makeTight makes a file system that is hardly larger than its content.
// (resize2fs -M leaves a fifth of it empty.)
func makeTight(ctx context.Context, image string, t *staged) error {
	const journal = 16 << 20
	need := t.blocks()*4096 + int64(t.inodes())*256 + journal
	var err error
	for percent := int64(101); percent <= 110; percent++ {
		if err = makeExt4(ctx, image, need*percent/100+8<<20, t); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// check runs e2fsck, which changes nothing.
func check(ctx context.Context, image string) error {
	_, _, err := command{args: []string{sbin("e2fsck"), "-f", "-n", image}}.run(ctx)
	return err
}

// A change says what was done to a file system to make its second version.
type change struct {
	Deleted, Rewritten, Added int // files
	Bytes                     int64
}

// The second version: of 1000 bytes of files, how many are in files that go this
// way. As blocks are scattered, about 5 % of the disk changes.
const (
	deletedPerMille   = 5
	rewrittenPerMille = 10
	addedPerMille     = 4 // fewer than deleted: the disk is cut to its content
)

// changeExt4 deletes, rewrites and adds files: rewritten ones as editors and
// package managers do it, the new content under the old name.
func changeExt4(ctx context.Context, image string, t *staged, seed uint64) (c change, err error) {
	scratch, err := os.MkdirTemp(filepath.Dir(image), "new-")
	if err != nil {
		return c, err
	}
	defer os.RemoveAll(scratch)
	var script strings.Builder
	var gone []stagedFile
	budget := func(perMille int64) int64 { return t.bytes * perMille / 1000 }
	// Deleting comes first, to make room.
	spent := map[string]int64{}
	order := rand.New(rand.NewPCG(seed, 1)).Perm(len(t.files))
	write := func(i int, name string, from stagedFile) error {
		local := filepath.Join(scratch, strconv.Itoa(i))
		if err := edited(local, filepath.Join(t.dir, from.name), seed+uint64(i)); err != nil {
			return err
		}
		fmt.Fprintf(&script, "write %s /%s\n", local, name)
		c.Bytes += from.size
		return nil
	}
	for _, i := range order {
		f := t.files[i]
		switch {
		case f.size > t.bytes/200: // leaves the shares even
		case spent["deleted"]+f.size <= budget(deletedPerMille):
			spent["deleted"] += f.size
			c.Deleted++
			fmt.Fprintf(&script, "rm /%s\n", f.name)
			gone = append(gone, f)
		case spent["rewritten"]+f.size <= budget(rewrittenPerMille):
			spent["rewritten"] += f.size
			c.Rewritten++
			fmt.Fprintf(&script, "rm /%s\n", f.name)
			if err := write(i, f.name, f); err != nil {
				return c, err
			}
		}
	}
	script.WriteString("mkdir /added\n")
	for i, f := range gone {
		if spent["added"]+f.size <= budget(addedPerMille) {
			spent["added"] += f.size
			c.Added++
			if err := write(len(t.files)+i, fmt.Sprintf("added/%d", i), f); err != nil {
				return c, err
			}
		}
	}
	commands := filepath.Join(scratch, "commands")
	if err := os.WriteFile(commands, []byte(script.String()), 0o644); err != nil {
		return c, err
	}
	run := command{args: []string{sbin("debugfs"), "-w", "-f", commands, image}, env: []string{"E2FSPROGS_FAKE_TIME=1750086400"}}
	if _, _, err := run.run(ctx); err != nil {
		return c, err
	}
	return c, check(ctx, image)
}

// edited copies a file and overwrites some stretches of it with text that is in
// no other file.
func edited(to, from string, seed uint64) error {
	p, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(seed, 2))
	for range 1 + len(p)/(16<<10) {
		line := fmt.Appendf(nil, "%016x %016x edited\n", r.Uint64(), r.Uint64())
		copy(p[r.IntN(len(p)):], line)
	}
	return os.WriteFile(to, p, 0o644)
}
