package redirect

import (
	"bytes"
	"fmt"
	"testing"

	"holdfast/repo/vfs"
)

// TestKilledThenCut ends the process at every operation of some work, opens the
// session with what the kernel has of it, and then cuts the power, at once or
// after more work: what was promised is there, whatever the kernel had not
// written when the process ended. Unless long, only where the map is at stake.
func TestKilledThenCut(t *testing.T) {
	base := newBase(5, 40*grainBytes)
	// write makes durable writes and checkpoints, so many that the map is
	// written anew, and notes in want what is promised.
	write := func(s *Session, gen byte, want []byte) error {
		for i := range int64(30) {
			p := bytes.Repeat([]byte{gen, byte(i)}, grainBytes/2)
			if _, err := s.Disks()[0].Write(p, i*grainBytes, true); err != nil {
				return err
			}
			copy(want[i*grainBytes:], p)
			if i%15 == 14 {
				if err := s.Checkpoint(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	// holds says what is wrong with a session's disk: a grain has what was
	// promised, or what was being written.
	holds := func(fsys vfs.FS, want []byte, gen byte) error {
		s, err := Open(fsys, specs(base), smallLog)
		if err != nil {
			return err
		}
		defer s.Close()
		got := make([]byte, len(want))
		if _, err := s.Disks()[0].ReadAt(got, 0); err != nil {
			return err
		}
		for i := range len(got) / grainBytes {
			g := got[i*grainBytes : (i+1)*grainBytes]
			if !bytes.Equal(g, want[i*grainBytes:(i+1)*grainBytes]) && !bytes.Equal(g, bytes.Repeat([]byte{gen, byte(i)}, grainBytes/2)) {
				return fmt.Errorf("grain %d begins with %x, want %x", i, g[:4], want[i*grainBytes:][:4])
			}
		}
		return nil
	}
	var ops []vfs.Op // of the work when nobody ends it
	for stop := -1; stop < len(ops); stop++ {
		if !long && stop >= 0 && ops[stop].Name != mapName && ops[stop].To != mapName && ops[stop].Kind != vfs.OpSyncDir {
			continue
		}
		mem := vfs.NewMem()
		if err := mustCreate(t, mem, smallLog, base).Close(); err != nil {
			t.Fatal(err)
		}
		faulty := vfs.NewFaulty(mem)
		if stop >= 0 {
			faulty.CrashAt(stop)
		}
		want := bytes.Clone(base.data)
		s, err := Open(faulty, specs(base), smallLog)
		if err == nil {
			err = write(s, 1, want)
			_ = s.Close() // the process is gone
		}
		if stop < 0 {
			if ops = faulty.Ops(); err != nil {
				t.Fatal(err)
			}
		}
		at := fmt.Sprintf("killed before operation %d", stop)
		if all := faulty.Ops(); stop >= 0 && stop < len(all) {
			at += fmt.Sprintf(", %v", all[stop])
		}
		s = mustOpen(t, mem, smallLog, base)
		if err := holds(mem.CrashClone(vfs.CrashOptions{}), want, 1); err != nil {
			t.Fatalf("%s, power cut after the opening: %v", at, err)
		}
		if err := write(s, 2, want); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if err := holds(mem.CrashClone(vfs.CrashOptions{}), want, 2); err != nil {
			t.Fatalf("%s, power cut after more work: %v", at, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
