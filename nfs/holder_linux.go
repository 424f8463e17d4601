package nfs

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PortHolder says who listens at a port of this machine, on any address;
// network is "tcp" or "udp". It is false if nobody does, or if that can't be told.
func PortHolder(network string, port uint16) (h Holder, taken bool) {
	sockets := map[string]bool{}
	for _, table := range []string{network, network + "6"} {
		p, err := os.ReadFile("/proc/self/net/" + table)
		if err != nil {
			continue // without IPv6 there is no such table
		}
		for line := range strings.Lines(string(p)) {
			if inode, ok := listening(line, network, port); ok {
				sockets["socket:["+inode+"]"] = true
			}
		}
	}
	if len(sockets) == 0 {
		return Holder{}, false
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is in order
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || !sockets[to] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		pid, notPID := strconv.Atoi(filepath.Base(dir))
		if err == nil && notPID == nil {
			return Holder{pid, strings.TrimSpace(string(name))}, true
		}
	}
	return Holder{}, true
}

// listening reads a line of one of the kernel's tables of sockets and returns the
// inode of one that listens at the port.
//
// Source: Documentation/networking/proc_net_tcp.rst of Linux.
func listening(line, network string, port uint16) (inode string, ok bool) {
	const local, state, inodeAt = 1, 3, 9
	f := strings.Fields(line)
	if len(f) <= inodeAt {
		return "", false
	}
	_, hexPort, _ := strings.Cut(f[local], ":")
	p, err := hex.DecodeString(hexPort)
	if err != nil || len(p) != 2 || uint16(p[0])<<8|uint16(p[1]) != port {
		return "", false
	}
	// A datagram socket that isn't connected is "closed".
	want := map[string]string{"tcp": "0A", "udp": "07"}[network]
	return f[inodeAt], f[state] == want
}
