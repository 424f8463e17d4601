package recovery

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrConfiguration says that a machine's configuration file can't be understood.
var ErrConfiguration = errors.New("bad machine configuration")

// vmx is a machine's configuration: lines of the form key = "value". What is no
// such line, as comments, stays where it is.
type vmx struct{ lines []vmxLine }

type vmxLine struct {
	key   string // as written; empty: other is all there is
	value string
	other string
}

const (
	maxVMXBytes = 1 << 20
	maxVMXLines = 16 << 10
)

var vmxSetting = regexp.MustCompile(`^\s*([A-Za-z0-9_.:\-]+)\s*=\s*(?:"([^"]*)"|([^"\s#][^"#]*?)?)\s*(?:#.*)?$`)

// parseVMX reads a configuration. Bytes that are no UTF-8 are taken for Latin 1;
// what comes out says that it is UTF-8. Of keys that are there twice the first
// counts, as they are compared without regard to case.
func parseVMX(p []byte) (*vmx, error) {
	if len(p) > maxVMXBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrConfiguration, len(p), maxVMXBytes)
	}
	if bytes.IndexByte(p, 0) >= 0 {
		return nil, fmt.Errorf("%w: it is not text", ErrConfiguration)
	}
	p = bytes.TrimPrefix(p, []byte("\ufeff"))
	text := string(p)
	if !utf8.Valid(p) {
		text = latin1(p)
	}
	c := new(vmx)
	seen := make(map[string]bool)
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if len(c.lines) == maxVMXLines {
			return nil, fmt.Errorf("%w: more than %d lines", ErrConfiguration, maxVMXLines)
		}
		m := vmxSetting.FindStringSubmatch(line)
		switch {
		case m == nil && strings.TrimSpace(line) != "" && !strings.HasPrefix(strings.TrimSpace(line), "#"):
			return nil, fmt.Errorf("%w: line %d: %.40q", ErrConfiguration, len(c.lines)+1, line)
		case m == nil:
			c.lines = append(c.lines, vmxLine{other: line})
		case !seen[strings.ToLower(m[1])]:
			seen[strings.ToLower(m[1])] = true
			c.lines = append(c.lines, vmxLine{key: m[1], value: unescapeVMX(m[2] + m[3])})
		}
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("%w: it sets nothing", ErrConfiguration)
	}
	c.remove(func(key, _ string) bool { return key == ".encoding" })
	c.lines = slices.Insert(c.lines, 0, vmxLine{key: ".encoding", value: "UTF-8"})
	return c, nil
}

func latin1(p []byte) string {
	runes := make([]rune, len(p))
	for i, b := range p {
		runes[i] = rune(b)
	}
	return string(runes)
}

// unescapeVMX resolves |XX, a byte in hex.
func unescapeVMX(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '|' && i+2 < len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil && c[0] != 0 {
				b = append(b, c[0])
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return strings.ToValidUTF8(string(b), "\ufffd")
}

func escapeVMX(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '|' || c == '#' || c == 0x7f {
			fmt.Fprintf(&b, "|%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// encode returns the file.
func (c *vmx) encode() []byte {
	var b bytes.Buffer
	for _, l := range c.lines {
		if l.key == "" {
			b.WriteString(l.other + "\n")
		} else {
			fmt.Fprintf(&b, "%s = \"%s\"\n", l.key, escapeVMX(l.value))
		}
	}
	return b.Bytes()
}

// get returns the value of a key, "" if it isn't set.
func (c *vmx) get(key string) string {
	for _, l := range c.lines {
		if l.key != "" && strings.EqualFold(l.key, key) {
			return l.value
		}
	}
	return ""
}

// is says whether a key is set to TRUE.
func (c *vmx) is(key string) bool { return strings.EqualFold(c.get(key), "TRUE") }

// set sets a key, in its place if it is there.
func (c *vmx) set(key, value string) {
	for i := range c.lines {
		if c.lines[i].key != "" && strings.EqualFold(c.lines[i].key, key) {
			c.lines[i].value = value
			return
		}
	}
	c.lines = append(c.lines, vmxLine{key: key, value: value})
}

// remove takes away the settings for which which says so of the key, in lower
// case, and the value.
func (c *vmx) remove(which func(key, value string) bool) {
	kept := c.lines[:0]
	for _, l := range c.lines {
		if l.key == "" || !which(strings.ToLower(l.key), l.value) {
			kept = append(kept, l)
		}
	}
	c.lines = kept
}

// keys lists the keys that are set, in lower case.
func (c *vmx) keys() []string {
	var list []string
	for _, l := range c.lines {
		if l.key != "" {
			list = append(list, strings.ToLower(l.key))
		}
	}
	return list
}

// number returns the value of a key as a number, or other.
func (c *vmx) number(key string, other int64) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(c.get(key)), 10, 64)
	if err != nil || n < 0 {
		return other
	}
	return n
}

const (
	defaultMemoryMiB = 2048
	maxMemoryMiB     = 64 << 20 // 64 TiB, more than any host has
)

// swapBytes is how large the hypervisor's swap file will be: the memory of the
// machine without what is reserved for it.
func (c *vmx) swapBytes() int64 {
	mem := min(c.number("memSize", defaultMemoryMiB), maxMemoryMiB)
	return max(0, mem-c.number("sched.mem.min", 0)) << 20
}
