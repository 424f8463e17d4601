package nfs_test

import (
	"net"
	"os"
	"strings"
	"testing"

	"holdfast/nfs"
)

// TestPortHolder finds this very process at ports that it takes, and nobody once it
// has given them back.
func TestPortHolder(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Skip("no /proc here")
	}
	us := nfs.Holder{PID: os.Getpid(), Name: strings.TrimSpace(string(comm))}
	for _, at := range []string{"127.0.0.1:0", ":0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		if h, taken := nfs.PortHolder("tcp", port); !taken || h != us {
			t.Errorf("tcp %s: %v, %v; want %v", at, h, taken, us)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if h, taken := nfs.PortHolder("tcp", port); taken {
			t.Errorf("tcp %s, closed: %v", at, h)
		}
		pc, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		port = uint16(pc.LocalAddr().(*net.UDPAddr).Port)
		if h, taken := nfs.PortHolder("udp", port); !taken || h != us {
			t.Errorf("udp %s: %v, %v; want %v", at, h, taken, us)
		}
	}
	if s := (nfs.Holder{PID: 7, Name: "rpcbind"}).String(); s != "rpcbind (process 7)" {
		t.Error(s)
	}
	if !strings.Contains(nfs.Holder{}.String(), "kernel") {
		t.Error(nfs.Holder{})
	}
}
