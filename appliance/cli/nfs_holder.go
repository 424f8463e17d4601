package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// portHolder says which process listens on a port, "" where that can't be told:
// other users' processes are hidden from all but root.
func portHolder(network string, port int) string {
	var sockets []string
	for _, table := range []string{network, network + "6"} {
		text, err := os.ReadFile("/proc/net/" + table)
		if err == nil {
			sockets = append(sockets, listeners(string(text), network, port)...)
		}
	}
	if len(sockets) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // those we may see
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		inode, ok := strings.CutPrefix(link, "socket:[")
		if !ok || !slices.Contains(sockets, strings.TrimSuffix(inode, "]")) {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
	}
	return ""
}

// listeners returns the inodes of the sockets in a table of /proc/net that listen
// on a port, or of UDP are bound to it.
// Source: proc_pid_net(5), "/proc/pid/net/tcp".
func listeners(table, network string, port int) []string {
	const listening = "0A"
	var inodes []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(hex, 16, 16)
		if !ok || err != nil || int(n) != port || network == "tcp" && f[3] != listening {
			continue
		}
		inodes = append(inodes, f[9])
	}
	return inodes
}
