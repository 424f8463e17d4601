package vfs

import (
	"fmt"
	"strings"
)

// Kind is a kind of operation.
type Kind string

const (
	OpCreate      Kind = "create"
	OpMkdir       Kind = "mkdir"
	OpRemove      Kind = "remove"
	OpRename      Kind = "rename"
	OpSyncDir     Kind = "syncdir"
	OpLock        Kind = "lock"
	OpWrite       Kind = "write"
	OpTruncate    Kind = "truncate"
	OpPreallocate Kind = "preallocate"
	OpSync        Kind = "sync"

	// Those that change nothing are counted only after CountReads.
	OpOpen    Kind = "open"
	OpRead    Kind = "read"
	OpReadDir Kind = "readdir"
	OpStat    Kind = "stat"
)

// Op is one operation that a Faulty saw.
type Op struct {
	Kind Kind
	Name string // of the file as it was opened, or the first argument
	To   string // the new name of a rename
	Off  int64  // of a read or write; the length of truncate and preallocate
	Len  int64  // of a read or write, as asked for
	Err  error  // what it returned
}

// String gives the operation with its numbers, as "write tmp/a 4096+512", and
// an exclamation mark when it failed.
func (o Op) String() string {
	s := o.short()
	switch o.Kind {
	case OpRead, OpWrite:
		s += fmt.Sprintf(" %d+%d", o.Off, o.Len)
	case OpTruncate, OpPreallocate:
		s += fmt.Sprintf(" %d", o.Off)
	}
	if o.Err != nil {
		s += " !"
	}
	return s
}

// short is the operation without numbers.
func (o Op) short() string {
	s := string(o.Kind) + " " + o.Name
	if o.To != "" {
		s += " " + o.To
	}
	return s
}

// Trace writes operations for a golden list: one a line, without numbers, and
// writes to one file that follow each other as one.
func Trace(ops []Op) string {
	var b strings.Builder
	last := ""
	for _, o := range ops {
		s := o.short()
		if o.Kind == OpWrite && s == last {
			continue
		}
		last = s
		b.WriteString(s + "\n")
	}
	return b.String()
}
