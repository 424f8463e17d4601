package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

const maxManifestBytes = 16 << 20

func newDumpManifest(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "manifest FILE",
		Short: "A restore point's manifest",
		Args:  takes(false, "FILE"),
		RunE:  func(_ *cobra.Command, args []string) error { return a.dumpManifest(args[0]) },
	}
}

// manifestListing shows the parts of a manifest without their meaning, so that
// one that package repo refuses can be looked at.
type manifestListing struct {
	Schema       string          `json:"schema"`
	Version      uint16          `json:"version"`
	Sealed       bool            `json:"sealed"`
	Digest       string          `json:"digest"` // of the whole file: what the ledger records
	Whole        bool            `json:"whole"`  // its own checksum is right
	Public       json.RawMessage `json:"public"`
	Private      json.RawMessage `json:"private"` // null when sealed
	PrivateBytes int             `json:"privateBytes"`
}

func (a *app) dumpManifest(name string) error {
	p, err := readSmall(name, maxManifestBytes)
	if err != nil {
		return err
	}
	l, err := parseManifest(p)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	err = error(nil)
	if !l.Whole {
		err = fmt.Errorf("%s: damaged: its checksum is wrong", name)
	}
	if a.json {
		return errors.Join(a.printJSON(l), err)
	}
	f := newFields(a.out)
	f.add("manifest", "version %d", l.Version)
	f.add("sha256", "%s", l.Digest)
	f.add("private part", "%d bytes, sealed %v", l.PrivateBytes, l.Sealed)
	if err := f.end(); err != nil {
		return err
	}
	fmt.Fprintln(a.out, indented(l.Public))
	if l.Private != nil {
		fmt.Fprintln(a.out, indented(l.Private))
	}
	return err
}

// parseManifest cuts a manifest by repo/FORMAT.md, "Manifests".
func parseManifest(p []byte) (manifestListing, error) {
	const head = 16
	le := binary.LittleEndian
	if len(p) < head+sha256.Size || string(p[:4]) != "HFmf" {
		return manifestListing{}, errors.New("not a manifest")
	}
	public, private := int64(le.Uint32(p[8:])), int64(le.Uint32(p[12:]))
	if head+public+private+sha256.Size != int64(len(p)) {
		return manifestListing{}, fmt.Errorf("parts of %d and %d bytes in a file of %d", public, private, len(p))
	}
	body := p[:len(p)-sha256.Size]
	sum, whole := sha256.Sum256(body), sha256.Sum256(p)
	l := manifestListing{
		Schema: "holdfast.manifest/1", Version: le.Uint16(p[4:]), Sealed: le.Uint16(p[6:])&1 != 0,
		Digest: fmt.Sprintf("%x", whole), Whole: bytes.Equal(sum[:], p[len(body):]),
		Public: asJSON(body[head : head+public]), PrivateBytes: int(private),
	}
	if !l.Sealed {
		l.Private = asJSON(body[head+public:])
	}
	return l, nil
}

// asJSON returns p, as a string where damage has made it something else.
func asJSON(p []byte) json.RawMessage {
	if json.Valid(p) {
		return p
	}
	s, err := json.Marshal(string(p))
	if err != nil {
		return json.RawMessage("null")
	}
	return s
}
