package image_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"holdfast/image"
	"holdfast/image/internal/disktest"
	"holdfast/internal/testreq"
)

// layer is one file of a chain made by qemu-img and written by qemu-io.
type layer struct {
	options string
	size    int64
}

// TestChains writes at random into every layer of a chain and compares what
// qemu-img makes of the top with what we read.
func TestChains(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	const mib = 1 << 20
	tests := []struct {
		name   string
		base   string // format of the lowest file, 4 MiB and 300 sectors
		layers []layer
	}{
		{"on raw", "raw", []layer{{"cluster_size=64k", 4 * mib}}},
		{"on raw, larger", "raw", []layer{{"cluster_size=64k", 9*mib + 512}}},
		{"on raw, smaller", "raw", []layer{{"cluster_size=4k", 3*mib - 512}}},
		{"on qcow2", "qcow2", []layer{{"cluster_size=4k", 6 * mib}}},
		{"on vmdk", "vmdk", []layer{{"cluster_size=4k", 6 * mib}}},
		{"extended L2 on raw", "raw", []layer{{"extended_l2=on", 6 * mib}}},
		{"four of all kinds", "raw", []layer{{"cluster_size=4k", 8 * mib}, {"extended_l2=on", 5 * mib},
			{"compat=0.10,cluster_size=512", 7 * mib}, {"compression_type=zstd,extended_l2=on,cluster_size=16k", 9 * mib}}},
	}
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := rand.New(rand.NewPCG(uint64(n), 5))
			disktest.WriteSparse(t, filepath.Join(dir, "base.raw"), disktest.Pattern(4*mib+300*512, uint64(n)))
			under, underFormat := "base.raw", "raw"
			if tt.base != "raw" {
				under, underFormat = "base."+tt.base, tt.base
				disktest.Run(t, "qemu-img", "convert", "-f", "raw", "-O", tt.base, filepath.Join(dir, "base.raw"), filepath.Join(dir, under))
			}
			for i, l := range tt.layers {
				name := fmt.Sprintf("layer%d.qcow2", i)
				path := filepath.Join(dir, name)
				disktest.Run(t, "qemu-img", "create", "-f", "qcow2", "-o", l.options, "-b", under, "-F", underFormat, path, fmt.Sprint(l.size))
				disktest.Run(t, "qemu-io", append(randomWrites(r, l), path)...)
				under, underFormat = name, "qcow2"
			}
			top, flat := filepath.Join(dir, under), filepath.Join(dir, "flat.raw")
			disktest.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", top, flat)
			want, err := os.ReadFile(flat)
			if err != nil {
				t.Fatal(err)
			}
			// Some clusters that read as zeros are held: QEMU copied around what
			// was written.
			holes, least := disktest.Same(t, open(t, top, image.Options{}), want), disktest.Holes(want, 64<<10)-512<<10
			if holes < least || least <= 0 {
				t.Fatalf("%d bytes of holes, want at least %d, which is more than 0", holes, least)
			}
		})
	}
}

// randomWrites are commands for qemu-io: compressed clusters, which it writes
// into absent ones only, then data and zeros.
func randomWrites(r *rand.Rand, l layer) (args []string) {
	const sector, cluster = 512, 64 << 10
	first := r.Int64N(l.size/cluster-3) * cluster
	for i := range int64(2) {
		args = append(args, "-c", fmt.Sprintf("write -c -P %d %d %d", 100+i, first+i*cluster, cluster))
	}
	for i := range 12 {
		n := (1 + r.Int64N(200)) * sector
		off := r.Int64N((l.size-n)/sector) * sector
		what := fmt.Sprintf("-P %d", i+1)
		if i%4 == 2 {
			what = "-z"
		}
		args = append(args, "-c", fmt.Sprintf("write %s %d %d", what, off, n))
	}
	return args
}

// TestPreallocated reads clusters that are in the tables and not in the file as
// QEMU left them.
func TestPreallocated(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	for _, mode := range []string{"metadata", "falloc", "full"} {
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		disktest.Run(t, "qemu-img", "create", "-f", "qcow2", "-o", "preallocation="+mode, path, "1000k")
		disktest.Run(t, "qemu-io", "-c", "write -P 7 100k 3k", path)
		want := make([]byte, 1000<<10)
		for i := range 3 << 10 {
			want[100<<10+i] = 7
		}
		disktest.Same(t, open(t, path, image.Options{}), want)
	}
}

// TestInternalSnapshot reads the disk as it is, not as it was.
func TestInternalSnapshot(t *testing.T) {
	testreq.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	disktest.Run(t, "qemu-img", "create", "-f", "qcow2", path, "1M")
	disktest.Run(t, "qemu-io", "-c", "write -P 1 0 1M", path)
	disktest.Run(t, "qemu-img", "snapshot", "-c", "before", path)
	disktest.Run(t, "qemu-io", "-c", "write -P 2 0 512k", path)
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = 1
		if i < 512<<10 {
			want[i] = 2
		}
	}
	disktest.Same(t, open(t, path, image.Options{}), want)
}

func TestBackingRefused(t *testing.T) {
	testreq.Need(t, "qemu-img")
	dir := t.TempDir()
	outside := write(t, filepath.Join(t.TempDir(), "secret.raw"), make([]byte, 1<<20))
	if err := os.Symlink(outside, filepath.Join(dir, "link.raw")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "base.raw"), make([]byte, 1<<20))
	create := func(name, backing, format string) {
		t.Helper()
		disktest.Run(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, filepath.Join(dir, name), "1M")
	}
	create("middle.qcow2", "base.raw", "raw")
	tests := []struct {
		name, backing, format string
		err                   error
	}{
		{"absolute", outside, "raw", image.ErrOutside},
		{"dots", "../secret.raw", "raw", image.ErrOutside},
		{"symbolic link", "link.raw", "raw", image.ErrOutside},
		{"missing", "none.raw", "raw", fs.ErrNotExist},
		{"protocol", "nbd://localhost/x", "raw", image.ErrUnsupported},
		{"json", `json:{"driver":"file","filename":"/etc/passwd"}`, "raw", image.ErrUnsupported},
		{"format unknown", "base.raw", "qed", image.ErrUnsupported},
		{"format not read", "base.raw", "vdi", image.ErrUnsupported},
		{"format wrong", "base.raw", "qcow2", image.ErrDamaged},
		{"itself", "disk.qcow2", "qcow2", image.ErrCycle},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			create("disk.qcow2", tt.backing, tt.format)
			d, err := image.Open(filepath.Join(dir, "disk.qcow2"), image.Options{})
			if err == nil {
				d.Close()
			}
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), strconv.Quote(tt.backing)) {
				t.Fatalf("error is %v, want one that is %q and names %q", err, tt.err, tt.backing)
			}
			t.Log(err)
		})
	}
	t.Run("a ring", func(t *testing.T) {
		create("a.qcow2", "b.qcow2", "qcow2")
		create("b.qcow2", "a.qcow2", "qcow2")
		if _, err := image.Open(filepath.Join(dir, "a.qcow2"), image.Options{}); !errors.Is(err, image.ErrCycle) {
			t.Fatalf("error is %v, want %v", err, image.ErrCycle)
		}
	})
	t.Run("too deep", func(t *testing.T) {
		// The same overlay over and over: only the name of what is below differs.
		create("d1.qcow2", "d00.qcow2", "qcow2")
		text, err := os.ReadFile(filepath.Join(dir, "d1.qcow2"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			next := strings.Replace(string(text), "d00.qcow2", fmt.Sprintf("e%02d.qcow2", i+1), 1)
			write(t, filepath.Join(dir, fmt.Sprintf("e%02d.qcow2", i)), []byte(next))
		}
		write(t, filepath.Join(dir, "e64.qcow2"), text)
		if _, err := image.Open(filepath.Join(dir, "e00.qcow2"), image.Options{}); !errors.Is(err, image.ErrCycle) {
			t.Fatalf("error is %v, want %v", err, image.ErrCycle)
		}
	})
}

// TestFormatNotSaid: the content of a parent may say raw, or a disk that stands
// by itself, but not a disk that names another file.
func TestFormatNotSaid(t *testing.T) {
	testreq.Need(t, "qemu-img")
	dir := t.TempDir()
	want := disktest.Pattern(1<<20, 41)
	raw := write(t, filepath.Join(dir, "base.raw"), want)
	disktest.Run(t, "qemu-img", "convert", "-O", "qcow2", raw, filepath.Join(dir, "alone.qcow2"))
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", filepath.Join(dir, "overlay.qcow2"))
	for backing, fails := range map[string]error{"base.raw": nil, "alone.qcow2": nil, "overlay.qcow2": image.ErrUntold} {
		// qemu-img insists on a format; the extension that says it is cut out.
		path := filepath.Join(dir, "top.qcow2")
		disktest.Run(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", path, "1M")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cut := strings.Replace(string(b), "\xe2\x79\x2a\xca", "\x00\x00\x00\x00", 1)
		if cut == string(b) {
			t.Fatal("the header says no format")
		}
		write(t, path, []byte(cut))
		d, err := image.Open(path, image.Options{})
		if !errors.Is(err, fails) {
			t.Fatalf("%s: error is %v, want %v", backing, err, fails)
		}
		if err == nil {
			disktest.Same(t, d, want)
			d.Close()
		}
	}
}

// TestBelowTheDirectory: names are relative to the file that has them.
func TestBelowTheDirectory(t *testing.T) {
	testreq.Need(t, "qemu-img")
	dir := t.TempDir()
	want := disktest.Pattern(1<<20, 42)
	write(t, filepath.Join(dir, "sub/deep/base.raw"), want)
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "deep/base.raw", "-F", "raw", filepath.Join(dir, "sub/middle.qcow2"))
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "sub/middle.qcow2", "-F", "qcow2", filepath.Join(dir, "top.qcow2"))
	disktest.Same(t, open(t, filepath.Join(dir, "top.qcow2"), image.Options{}), want)
}
