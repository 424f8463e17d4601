package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"holdfast/repo/blockmap"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

func newDumpRecord(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "record PACK OFFSET",
		Short: "Header and frames of a record",
		Args:  takes(false, "PACK", "OFFSET"),
		RunE: func(_ *cobra.Command, args []string) error {
			h, _, err := readRecord(args[0], args[1])
			if h == nil {
				return err
			}
			return errors.Join(a.printRecord(h), err)
		},
	}
}

func newDumpNode(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "node PACK OFFSET",
		Short: "Children of a node and, of a leaf, where their frames lie",
		Args:  takes(false, "PACK", "OFFSET"),
		RunE:  func(_ *cobra.Command, args []string) error { return a.dumpNode(args[0], args[1]) },
	}
}

// readRecord reads the record at an offset of a pack as it lies there. The
// header comes beside the error when it is whole and the body is not.
func readRecord(name, offset string) (*pack.Header, []byte, error) {
	off, err := strconv.ParseUint(offset, 10, 32)
	if err != nil {
		return nil, nil, usagef("%q is not an offset in bytes", offset)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	at := func(err error) error { return fmt.Errorf("%s at %d: %w", name, off, err) }
	p := make([]byte, pack.MaxRecordBytes)
	n, err := f.ReadAt(p, int64(off))
	if err != nil && err != io.EOF {
		return nil, nil, at(err)
	}
	h, _, err := pack.ParseHeader(p[:n])
	if err != nil {
		return nil, nil, at(err)
	}
	p = p[:min(n, h.RecordBytes())]
	if _, err := pack.ParseRecord(p); err != nil {
		return &h, p, at(err)
	}
	return &h, p, nil
}

type recordListing struct {
	Schema       string         `json:"schema"`
	Kind         string         `json:"kind"`
	ID           string         `json:"id"`
	Sealed       bool           `json:"sealed"`
	Base         string         `json:"base"`
	Salt         string         `json:"salt"`
	LogicalBytes uint32         `json:"logicalBytes"`
	BodyBytes    uint32         `json:"bodyBytes"`
	BodyCRC      string         `json:"bodyCRC"`
	Frames       []frameListing `json:"frames"`
}

type frameListing struct {
	Off    uint32 `json:"off"`
	Stored uint32 `json:"stored"`
	Codec  string `json:"codec"`
	InBase bool   `json:"inBase"`
	Digest string `json:"digest"`
}

func listRecord(h *pack.Header) recordListing {
	return recordListing{
		Schema: "holdfast.record/1", Kind: h.Kind.String(), ID: h.ID.String(), Sealed: h.Flags&pack.Sealed != 0,
		Base: hexOr(h.Base[:], ""), Salt: hexOr(h.Salt[:], ""),
		LogicalBytes: h.LogicalBytes, BodyBytes: h.BodyBytes, BodyCRC: fmt.Sprintf("%08x", h.BodyCRC),
		Frames: listFrames(h.Frames),
	}
}

func (a *app) printRecord(h *pack.Header) error {
	l := listRecord(h)
	if a.json {
		return a.printJSON(l)
	}
	f := newFields(a.out)
	f.add("record", "%s %s", l.Kind, l.ID)
	f.add("sealed", "%v", l.Sealed)
	if l.Base != "" {
		f.add("base", "%s", l.Base)
	}
	if l.Salt != "" {
		f.add("salt", "%s", l.Salt)
	}
	f.add("logical", "%d bytes", l.LogicalBytes)
	f.add("body", "%d bytes, CRC %s", l.BodyBytes, l.BodyCRC)
	if err := f.end(); err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "frame\toffset\tstored\tcodec\t digest\t")
	for i, f := range l.Frames {
		codec := f.Codec
		if f.InBase {
			codec += " in base"
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%s\t %s\t\n", i, f.Off, f.Stored, codec, f.Digest)
	}
	return w.Flush()
}

type nodeListing struct {
	Schema   string         `json:"schema"`
	ID       string         `json:"id"`
	Level    uint8          `json:"level"`
	Base     string         `json:"base"`
	Table    string         `json:"table"` // of a leaf: "read", "none", "sealed"
	Children []childListing `json:"children"`
}

type childListing struct {
	Child  int            `json:"child"`
	ID     string         `json:"id"`
	Patch  bool           `json:"patch"`
	Base   string         `json:"base"`
	Frames []frameListing `json:"frames"` // null: not in this table
}

func (a *app) dumpNode(name, offset string) error {
	h, rec, err := readRecord(name, offset)
	if err != nil {
		return err
	}
	l, err := listNode(h, rec)
	if err != nil {
		return fmt.Errorf("%s at %s: %w", name, offset, err)
	}
	return a.printNode(l)
}

// listNode reads a node's record, which is whole.
func listNode(h *pack.Header, rec []byte) (nodeListing, error) {
	l := nodeListing{Schema: "holdfast.node/1", ID: h.ID.String(), Base: hexOr(h.Base[:], ""), Children: []childListing{}}
	if h.Kind != pack.Node {
		return l, fmt.Errorf("a %v and not a node", h.Kind)
	}
	n, err := blockmap.ParseNode(frameOf(h, rec, 0))
	if err != nil {
		return l, err
	}
	l.Level = n.Level
	table, state, err := leafTable(h, rec)
	if err != nil {
		return l, err
	}
	l.Table = state
	for i, id := range n.Children {
		if id.IsNull() {
			continue
		}
		c := childListing{Child: i, ID: id.String()}
		var e blockmap.Entry
		if table != nil && table.Entry(i, &e) {
			c.Patch, c.Base = e.Patch, hexOr(e.Base[:], "")
			c.Frames = listFrames(e.Frames)
		}
		l.Children = append(l.Children, c)
	}
	return l, nil
}

func listFrames(frames []pack.Frame) []frameListing {
	l := []frameListing{}
	for _, f := range frames {
		l = append(l, frameListing{f.Off, f.Stored, f.Codec.String(), f.InBase, f.Digest.String()})
	}
	return l
}

func frameOf(h *pack.Header, rec []byte, i int) []byte {
	f := h.Frames[i]
	return rec[f.Off : f.Off+f.Stored]
}

// leafTable reads the frame table of a leaf's record, nil when it has none or
// it is sealed.
func leafTable(h *pack.Header, rec []byte) (t *blockmap.Table, state string, err error) {
	switch {
	case len(h.Frames) < 2:
		return nil, "none", nil
	case h.Flags&pack.Sealed != 0:
		return nil, "sealed", nil
	}
	raw, err := seal.NewDecoder().Decode(nil, frameOf(h, rec, 1), h.Frames[1].Codec, h.FrameBytes(1))
	if err != nil {
		return nil, "", fmt.Errorf("frame table: %w", err)
	}
	if len(raw) < 2 {
		return nil, "", fmt.Errorf("frame table of %d bytes", len(raw))
	}
	t, err = blockmap.ParseTable(raw, blockmap.Layout{Frames: int(raw[1])})
	if err != nil {
		return nil, "", err
	}
	return t, "read", nil
}

func (a *app) printNode(l nodeListing) error {
	if a.json {
		return a.printJSON(l)
	}
	f := newFields(a.out)
	f.add("node", "%s", l.ID)
	f.add("level", "%d", l.Level)
	f.add("children", "%d", len(l.Children))
	f.add("frame table", "%s", l.Table)
	if l.Base != "" {
		f.add("base", "%s", l.Base)
	}
	if err := f.end(); err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "child\t id\tframes\tstored\t")
	for _, c := range l.Children {
		var stored uint64
		for _, f := range c.Frames {
			stored += uint64(f.Stored)
		}
		frames := strconv.Itoa(len(c.Frames))
		if c.Patch {
			frames += " patch"
		}
		fmt.Fprintf(w, "%d\t %s\t%s\t%d\t\n", c.Child, c.ID, frames, stored)
	}
	return w.Flush()
}
