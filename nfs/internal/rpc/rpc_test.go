package rpc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"holdfast/nfs/internal/xdr"
)

// fragment is a record mark with its bytes.
func fragment(last bool, b []byte) []byte {
	mark := uint32(len(b))
	if last {
		mark |= lastFragment
	}
	return append(binary.BigEndian.AppendUint32(nil, mark), b...)
}

func TestRecords(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 20_000) // 320,000 bytes
	var stream []byte
	want := [][]byte{}
	add := func(rec []byte, cuts ...int) {
		want = append(want, rec)
		at := 0
		for _, c := range cuts {
			stream = append(stream, fragment(false, rec[at:c])...)
			at = c
		}
		stream = append(stream, fragment(true, rec[at:])...)
	}
	add([]byte("one"))
	add(nil)
	add(long[:inPlace])
	add(long[:inPlace+1])
	add([]byte("in three"), 1, 3)
	add([]byte("with empty ones"), 0, 0, 4, 4, 15)
	add(long)
	add(long, 1, firstRead-1, firstRead, firstRead+1, 300_000)
	for range 500 {
		add(long[:137])
	}
	for name, src := range map[string]io.Reader{
		"at once":     bytes.NewReader(stream),
		"by the byte": iotest.OneByteReader(bytes.NewReader(stream)),
		"by halves":   iotest.HalfReader(bytes.NewReader(stream)),
		"EOF at once": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		r := NewRecordReader(src, len(long))
		for i, w := range want {
			ready := r.Ready()
			got, own, err := r.Next()
			if err != nil || !bytes.Equal(got, w) {
				t.Fatalf("%s: record %d: %d bytes, %v; want %d", name, i, len(got), err, len(w))
			}
			if ready && own {
				t.Errorf("%s: record %d was ready and got a buffer of its own", name, i)
			}
		}
		if _, _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
}

func TestBadRecords(t *testing.T) {
	tests := map[string]struct {
		stream []byte
		want   error
	}{
		"nothing":              {nil, io.EOF},
		"cut mark":             {[]byte{0x80, 0}, io.ErrUnexpectedEOF},
		"cut record":           {fragment(true, make([]byte, 50))[:30], io.ErrUnexpectedEOF},
		"no last fragment":     {fragment(false, make([]byte, 50)), io.ErrUnexpectedEOF},
		"cut long one":         {fragment(true, make([]byte, 900_000))[:800_000], io.ErrUnexpectedEOF},
		"too long":             {fragment(true, make([]byte, 1_000_001)), ErrRecord},
		"2 GiB":                {[]byte{0xff, 0xff, 0xff, 0xff}, ErrRecord},
		"2 GiB, not the last":  {[]byte{0x7f, 0xff, 0xff, 0xff}, ErrRecord},
		"too long in all":      {append(fragment(false, make([]byte, 999_999)), fragment(true, make([]byte, 2))...), ErrRecord},
		"empty ones for ever":  {bytes.Repeat(fragment(false, nil), 2000), ErrRecord},
		"another protocol":     {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ErrRecord},
		"TLS's first greeting": {[]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc}, ErrRecord},
	}
	for name, tt := range tests {
		r := NewRecordReader(bytes.NewReader(tt.stream), 1_000_000)
		if _, _, err := r.Next(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// TestClaims has a sender that claims a megabyte and sends little: no room is
// made for what does not come.
func TestClaims(t *testing.T) {
	r := NewRecordReader(bytes.NewReader(fragment(true, make([]byte, 1_000_000))[:1000]), 1_000_000)
	most := 0
	r.Room = func(old []byte, n int) ([]byte, error) {
		most = max(most, n)
		return append(make([]byte, 0, n), old...), nil
	}
	if _, _, err := r.Next(); err != io.ErrUnexpectedEOF || most > firstRead {
		t.Errorf("%v, room for %d bytes", err, most)
	}
	full := errors.New("full")
	r = NewRecordReader(bytes.NewReader(fragment(true, make([]byte, 1_000_000))), 1_000_000)
	r.Room = func([]byte, int) ([]byte, error) { return nil, full }
	if _, _, err := r.Next(); err != full {
		t.Errorf("without room: %v", err)
	}
}

// header is a call's with AUTH_SYS, given as words.
func words(v ...uint32) []byte {
	var w xdr.Writer
	for _, x := range v {
		w.Uint32(x)
	}
	return w.B
}

func TestParse(t *testing.T) {
	sys := words(7, 0, 2, 100003, 3, 1 /**/, 1, 32, 99, 3, 0x68737400, 1000, 100, 2, 4, 27 /**/, 0, 0)
	none := words(7, 0, 2, 100003, 3, 0, 0, 0, 0, 0)
	with := func(b []byte, at int, v uint32) []byte {
		b = bytes.Clone(b)
		binary.BigEndian.PutUint32(b[at*4:], v)
		return b
	}
	tests := map[string]struct {
		b     []byte
		reply string // in hex behind the record mark; "" for none
		drop  bool
	}{
		"AUTH_SYS":            {sys, "", false},
		"AUTH_NONE":           {none, "", false},
		"empty":               {nil, "", true},
		"only an xid":         {words(7), "", true},
		"a reply":             {with(none, 1, 1), "", true},
		"RPC version 1":       {with(none, 2, 1), "00000007 00000001 00000001 00000000 00000002 00000002", false},
		"RPC version 3":       {with(none, 2, 3), "00000007 00000001 00000001 00000000 00000002 00000002", false},
		"cut before proc":     {none[:20], "00000007 00000001 00000000 00000000 00000000 00000004", false},
		"cut in cred":         {none[:28], "00000007 00000001 00000001 00000001 00000001", false},
		"cut in verf":         {none[:36], "00000007 00000001 00000001 00000001 00000003", false},
		"cred of 401 bytes":   {append(words(7, 0, 2, 100003, 3, 0, 1, 401), make([]byte, 500)...), "00000007 00000001 00000001 00000001 00000001", false},
		"verf of 401 bytes":   {append(words(7, 0, 2, 100003, 3, 0, 0, 0, 0, 401), make([]byte, 500)...), "00000007 00000001 00000001 00000001 00000003", false},
		"AUTH_SHORT":          {with(none, 6, 2), "00000007 00000001 00000001 00000001 00000002", false},
		"AUTH_DH":             {with(none, 6, 3), "00000007 00000001 00000001 00000001 00000001", false},
		"RPCSEC_GSS":          {with(none, 6, 6), "00000007 00000001 00000001 00000001 00000001", false},
		"17 groups":           {with(sys, 13, 17), "00000007 00000001 00000001 00000001 00000001", false},
		"a group missing":     {with(sys, 13, 3), "00000007 00000001 00000001 00000001 00000001", false},
		"a group too many":    {with(sys, 13, 1), "00000007 00000001 00000001 00000001 00000001", false},
		"machine name of 256": {with(sys, 9, 256), "00000007 00000001 00000001 00000001 00000001", false},
		"empty AUTH_SYS":      {with(none, 6, 1), "00000007 00000001 00000001 00000001 00000001", false},
	}
	for name, tt := range tests {
		var c Call
		_, fault, ok := Parse(tt.b, &c)
		if ok == tt.drop {
			t.Errorf("%s: answered: %v", name, ok)
			continue
		}
		got := ""
		if fault != nil {
			var w xdr.Writer
			fault.Reply(&w, c.XID)
			if mark := binary.BigEndian.Uint32(w.B); mark != lastFragment|uint32(len(w.B)-4) {
				t.Errorf("%s: record mark %x", name, mark)
			}
			got = hex.EncodeToString(w.B[4:])
		}
		if want := strings.ReplaceAll(tt.reply, " ", ""); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	var c Call
	args, _, _ := Parse(append(bytes.Clone(sys), 1, 2, 3, 4), &c)
	if c.XID != 7 || c.Prog != 100003 || c.Vers != 3 || c.Proc != 1 || c.Cred.UID != 1000 || c.Cred.GID != 100 ||
		len(c.Cred.Groups()) != 2 || c.Cred.Groups()[1] != 27 || !bytes.Equal(args.Rest(), []byte{1, 2, 3, 4}) {
		t.Errorf("%+v, arguments %x", c, args.Rest())
	}
}

func TestReplies(t *testing.T) {
	var w xdr.Writer
	w.Uint32(0x11111111) // what stood there before
	start := Begin(&w, 9, Success)
	w.Uint32(5)
	Rewind(&w, start)
	w.Uint32(6)
	if r := Results(&w, start); !bytes.Equal(r, []byte{0, 0, 0, 6}) {
		t.Errorf("results %x", r)
	}
	End(&w, start, 100)
	Refuse(&w, 9, ProgMismatch, 3, 3)
	Refuse(&w, 9, ProcUnavail, 3, 3)
	want := "11111111" + "80000080" + "00000009" + "00000001" + "00000000" + "00000000" + "00000000" + "00000000" + "00000006" +
		"80000020" + "00000009" + "00000001" + "00000000" + "00000000" + "00000000" + "00000002" + "00000003" + "00000003" +
		"80000018" + "00000009" + "00000001" + "00000000" + "00000000" + "00000000" + "00000003"
	if got := hex.EncodeToString(w.B); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzRecord cuts a stream anywhere: nothing longer than the limit comes out and
// no more than came in.
func FuzzRecord(f *testing.F) {
	f.Add(append(fragment(false, []byte("abc")), fragment(true, []byte("d"))...))
	f.Add(fragment(true, make([]byte, 70_000)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewRecordReader(bytes.NewReader(stream), 100_000)
		total := 0
		for {
			rec, _, err := r.Next()
			if err != nil {
				return
			}
			if total += len(rec) + 4; len(rec) > 100_000 || total > len(stream) {
				t.Fatalf("%d bytes, %d in all", len(rec), total)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(words(7, 0, 2, 100003, 3, 1, 1, 32, 99, 3, 0x68737400, 1000, 100, 2, 4, 27, 0, 0))
	f.Add(words(7, 0, 2, 100003, 3, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Call
		args, fault, ok := Parse(b, &c)
		if len(c.Cred.Groups()) > maxGroups || len(args.Rest()) > len(b) {
			t.Fatal("more than there is")
		}
		if ok && fault != nil {
			var w xdr.Writer
			fault.Reply(&w, c.XID)
			if len(w.B) < 24 || len(w.B) > 32 {
				t.Errorf("reply of %d bytes", len(w.B))
			}
		}
	})
}
