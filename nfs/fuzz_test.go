package nfs

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/nfs/internal/xdr"
	"holdfast/nfs/nfstest"
)

// seeds are the calls of a golden file, without their record marks.
func seeds(tb testing.TB, name string) [][]byte {
	tb.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	var calls [][]byte
	var call []byte
	for line := range strings.Lines(string(text)) {
		if line, ok := strings.CutPrefix(line, "> "); ok {
			b, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
			if err != nil {
				tb.Fatal(err)
			}
			call = append(call, b...)
			continue
		}
		if len(call) > 4 {
			calls = append(calls, call[4:])
		}
		call = nil
	}
	if len(calls) < 9 {
		tb.Fatalf("%d calls in %s", len(calls), name)
	}
	return calls
}

// FuzzProcedures gives a server any record as a request: it answers with a
// proper reply or not at all, and never meets a mistake of its own. The handles
// in the seeds are good for the tree.
func FuzzProcedures(f *testing.F) {
	for _, name := range []string{"testdata/golden.txt", "testdata/portmap.txt"} {
		for _, call := range seeds(f, name) {
			f.Add(call)
		}
	}
	f.Fuzz(func(t *testing.T, call []byte) {
		tree := treetest.NewMemWrite(treetest.MemOptions{Bytes: 8 << 20, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
		for _, name := range []string{"file", ".lck-1"} {
			if _, err := tree.Create(t.Context(), tree.Root(), name, fs.Creation{}, fs.SetAttr{}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := tree.Mkdir(t.Context(), tree.Root(), "dir", fs.SetAttr{}, nil); err != nil {
			t.Fatal(err)
		}
		s, err := New(Options{Exports: []Export{{ID: 7, Path: "/data", Tree: tree, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Key: [16]byte{1, 2, 3}}}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.SetPorts(Mappings(2049, 111))
		rq := &request{}
		rq.reset(s, t.Context(), route{peer: netip.MustParseAddr("127.0.0.1")})
		rq.entry = &entry{}
		var w xdr.Writer
		if !rq.begin(bytes.Clone(call), []program{nfsProgram, mountProgram, portmapProgram}, &w) {
			return
		}
		if rq.proc != nil {
			rq.execute(&w)
		}
		reply := w.B
		for _, seg := range rq.tail.Segments {
			reply = append(reply, seg...)
		}
		reply = append(reply, zeros[:xdr.Padding(rq.tailBytes)]...)
		if len(reply) < 4 || len(reply) > 2<<20 || len(reply)-4 != int(uint32(reply[0]&0x7f)<<24|uint32(reply[1])<<16|uint32(reply[2])<<8|uint32(reply[3])) || !bytes.Equal(reply[4:8], call[:4]) {
			t.Fatalf("a reply of %d bytes: %x", len(reply), reply[:min(len(reply), 64)])
		}
		if _, err := nfstest.Results(reply[4:]); err != nil && strings.Contains(err.Error(), nfstest.ErrReply.Error()) {
			t.Errorf("%v: %x", err, reply)
		}
		if rq.tail.Release != nil {
			rq.tail.Release()
		}
		if n := s.count.panics.Load(); n != 0 {
			t.Errorf("%d panics", n)
		}
		if tree.Lent() != 0 {
			t.Error("frames are still lent")
		}
	})
}
