package redirect

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"holdfast/internal/testreq"
	"holdfast/repo/vfs"
)

const (
	childDir  = "HOLDFAST_REDIRECT_CHILD"
	killedMiB = 8
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver writes and says of each write on standard output when it is
// durable. The lower half of the disk gets sectors too, the upper one only whole
// grains. Seals and merges go on beside that.
func writeForEver(dir string) error {
	fsys, err := vfs.OS(dir)
	if err != nil {
		return err
	}
	s, err := Open(fsys, specs(newBase(1, killedMiB*mib)), Options{})
	if err != nil {
		return err
	}
	go func() {
		for {
			if _, err := s.Seal(); err != nil && !errors.Is(err, ErrBusy) {
				fmt.Fprintln(os.Stderr, err)
			}
			time.Sleep(20 * time.Millisecond)
			if err := s.Merge(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for gen := uint64(time.Now().UnixNano()); ; gen++ {
		n := 512 << rng.IntN(8)
		off := int64(rng.IntN(killedMiB*mib/n)) * int64(n)
		if off >= killedMiB*mib/2 && n < grainBytes {
			continue
		}
		durable := rng.IntN(2) == 0
		if _, err := s.Disks()[0].Write(stamped(off, n, 1, gen), off, durable); err != nil {
			return err
		}
		if !durable {
			if err := s.Commit(); err != nil {
				return err
			}
		}
		fmt.Println(off, n, gen)
	}
}

// TestKilled kills a writing process again and again, on XFS, HOLDFAST_KILLS
// times when that is set: what it called durable is there, or something newer,
// and every byte is one that was written to its place.
func TestKilled(t *testing.T) {
	testreq.Need(t, "root", "loop", "mkfs.xfs")
	kills := steps(4)
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_KILLS")); err == nil && n > 0 {
		kills = n
	}
	dir := mountXFS(t, 512)
	fsys, err := vfs.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	base := newBase(1, killedMiB*mib)
	s, err := Create(fsys, specs(base), Options{WALBytes: 8 * mib})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	promised := make(map[int64]uint64)
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range kills {
		killWriter(t, dir, time.Duration(rng.IntN(400))*time.Millisecond, promised)
		began := time.Now()
		s, err := Open(fsys, specs(base), Options{})
		if err != nil {
			t.Fatalf("after kill %d: %v", i, err)
		}
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("opened in %v", d)
		}
		if err := errors.Join(checkSectors(s.Disks()[0], base.data, promised), s.Close()); err != nil {
			t.Fatalf("after kill %d: %v", i, err)
		}
	}
	t.Logf("%d kills, %d sectors promised", kills, len(promised))
	if len(promised) < 100 {
		t.Error("hardly anything was written")
	}
}

// killWriter runs a writer, kills it some time after its first word, and notes
// what it promised.
func killWriter(t *testing.T, dir string, after time.Duration, promised map[int64]uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	first := true
	for in := bufio.NewScanner(out); in.Scan(); {
		var off, n int64
		var gen uint64
		if k, err := fmt.Sscan(in.Text(), &off, &n, &gen); k < 3 || err != nil {
			continue // cut off
		}
		for at := off; at < off+n; at += 512 {
			promised[at] = gen
		}
		if first {
			first = false
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait() // killed
}

// checkSectors compares every byte of a disk with what was promised of it: a
// sector holds its address and a generation not older than the promised one, or
// where nothing was promised maybe the base's bytes. The grains of the upper
// half, which are written whole, are of one generation.
func checkSectors(d io.ReaderAt, base []byte, promised map[int64]uint64) error {
	p := make([]byte, len(base))
	if _, err := d.ReadAt(p, 0); err != nil {
		return err
	}
	for off := int64(0); off < int64(len(p)); off += 512 {
		sector := p[off : off+512]
		want, sure := promised[off]
		gen := binary.LittleEndian.Uint64(sector[16:])
		switch {
		case !sure && bytes.Equal(sector, base[off:off+512]):
			gen = 0
		case gen < want || !bytes.Equal(sector, stamped(off, 512, 1, gen)):
			return fmt.Errorf("sector at %d says it is %d of generation %d, promised is %d, or is mixed", off, binary.LittleEndian.Uint64(sector), gen, want)
		}
		if first := off / grainBytes * grainBytes; off >= int64(len(p)/2) && off > first {
			before := p[first : first+512]
			if old := bytes.Equal(before, base[first:first+512]); old != (gen == 0) || !old && binary.LittleEndian.Uint64(before[16:]) != gen {
				return fmt.Errorf("grain at %d is mixed", first)
			}
		}
	}
	return nil
}
