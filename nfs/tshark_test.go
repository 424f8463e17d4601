package nfs_test

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestTshark lets another decoder read the golden requests and replies: it finds
// nothing malformed, and each is what its title says. It skips without tshark,
// which is large and not among the parts that tests need.
func TestTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	text, err := os.ReadFile("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	var p pcap
	p.begin()
	titles := 0
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		var sides [2][]byte
		for line := range strings.Lines(block) {
			if b, err := hex.DecodeString(strings.Join(strings.Fields(line[1:]), "")); err == nil && line[1] == ' ' {
				side := 0
				if line[0] == '<' {
					side = 1
				}
				sides[side] = append(sides[side], b...)
			}
		}
		p.segment(0, sides[0])
		p.segment(1, sides[1])
		titles++
	}
	name := filepath.Join(t.TempDir(), "golden.pcap")
	if err := os.WriteFile(name, p.file, 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) []string {
		t.Helper()
		out, err := exec.Command(tshark, append([]string{"-r", name, "-d", "tcp.port==2049,rpc"}, args...)...).Output()
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	// One call is meant to be.
	if got := run("-Y", "_ws.malformed or _ws.unreassembled or tcp.analysis.flags"); len(got) != 1 || !strings.Contains(got[0], "GETATTR Call[Malformed") {
		t.Errorf("malformed:\n%s", strings.Join(got, "\n"))
	}
	if got := run("-Y", "rpc.msgtyp == 1"); len(got) != titles {
		t.Errorf("%d replies, want %d", len(got), titles)
	}
	// The status of each reply, as it sees it, is the word behind the header.
	for _, line := range run("-Y", "rpc.msgtyp == 1 and rpc.programversion == 3 and nfs.status", "-T", "fields", "-e", "tcp.payload", "-e", "nfs.status") {
		fields := strings.Fields(line)
		payload, err := hex.DecodeString(fields[0])
		if err != nil || len(fields) != 2 || len(payload) < 32 {
			t.Fatalf("%q", line)
		}
		want := binary.BigEndian.Uint32(payload[28:])
		if got := fields[1]; got != strconv.FormatUint(uint64(want), 10) {
			t.Errorf("status %s, want %d: %s", got, want, fields[0])
		}
	}
}

// pcap is a capture of one TCP connection.
type pcap struct {
	file []byte
	seq  [2]uint32
	at   uint32
}

func (p *pcap) begin() {
	for _, v := range []uint32{0xa1b2c3d4, 2 | 4<<16, 0, 0, 1 << 18, 101} { // raw IP
		p.file = binary.LittleEndian.AppendUint32(p.file, v)
	}
	p.seq = [2]uint32{1000, 5000}
	p.packet(0, 0x02, nil)
	p.seq[0]++
	p.packet(1, 0x12, nil)
	p.seq[1]++
	p.packet(0, 0x10, nil)
}

func (p *pcap) segment(side int, b []byte) {
	for len(b) > 0 {
		n := min(len(b), 60_000)
		p.packet(side, 0x18, b[:n])
		p.seq[side] += uint32(n)
		b = b[n:]
	}
}

func (p *pcap) packet(side int, flags byte, data []byte) {
	ports := [2]uint16{999, 2049}
	ip := make([]byte, 40, 40+len(data))
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(40+len(data)))
	copy(ip[12:], []byte{10, 0, 0, byte(1 + side)})
	copy(ip[16:], []byte{10, 0, 0, byte(2 - side)})
	tcp := ip[20:]
	binary.BigEndian.PutUint16(tcp, ports[side])
	binary.BigEndian.PutUint16(tcp[2:], ports[1-side])
	binary.BigEndian.PutUint32(tcp[4:], p.seq[side])
	if flags != 0x02 {
		binary.BigEndian.PutUint32(tcp[8:], p.seq[1-side])
	}
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	ip = append(ip, data...)
	p.at++
	for _, v := range []uint32{1_700_000_000, p.at * 100, uint32(len(ip)), uint32(len(ip))} {
		p.file = binary.LittleEndian.AppendUint32(p.file, v)
	}
	p.file = append(p.file, ip...)
}
