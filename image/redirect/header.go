package redirect

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"holdfast/repo/vfs"
)

const (
	headerName  = "session"
	mapName     = "map"
	reserveName = "reserve"
	lockName    = "lock"
	newSuffix   = ".new" // of a file that has not got its name yet

	headerMagic = "HFREDIR 1\n"
	maxHeader   = mib
)

func walName(i int) string                    { return fmt.Sprintf("wal.%d", i) }
func dataName(disk uint16, lay uint32) string { return fmt.Sprintf("data.%d.%d", disk, lay) }

// header is the file "session": written once, when everything else is there.
type header struct {
	ID       string       `json:"id"` // 16 bytes in hex
	WALBytes int64        `json:"walBytes"`
	Disks    []headerDisk `json:"disks"`
}

type headerDisk struct {
	Name     string   `json:"name"`
	Identity Identity `json:"identity"`
}

func (h header) encode() ([]byte, error) {
	text, err := json.MarshalIndent(h, "", " ")
	if err != nil {
		return nil, err
	}
	p := append([]byte(headerMagic), text...)
	p = append(p, '\n')
	return fmt.Appendf(p, "crc32c %08x\n", checksum(p)), nil
}

const crcLine = len("crc32c 00000000\n")

func decodeHeader(p []byte) (h header, id [16]byte, err error) {
	if !bytes.HasPrefix(p, []byte("HFREDIR ")) {
		return h, id, errors.New("not a redirect session")
	}
	if !bytes.HasPrefix(p, []byte(headerMagic)) {
		line, _, _ := bytes.Cut(p, []byte("\n"))
		return h, id, fmt.Errorf("version %q is not known", line[len("HFREDIR "):min(len(line), 32)])
	}
	end := len(p) - crcLine
	if end < len(headerMagic) || string(p[end:]) != fmt.Sprintf("crc32c %08x\n", checksum(p[:end])) {
		return h, id, errors.New("does not match its checksum")
	}
	d := json.NewDecoder(bytes.NewReader(p[len(headerMagic):end]))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return h, id, err
	}
	raw, err := hex.DecodeString(h.ID)
	if err != nil || len(raw) != len(id) {
		return h, id, errors.New("no session id")
	}
	copy(id[:], raw)
	if len(h.Disks) == 0 || len(h.Disks) > maxDisks {
		return h, id, fmt.Errorf("%d disks", len(h.Disks))
	}
	if h.WALBytes != (Options{WALBytes: h.WALBytes}).withDefaults().WALBytes || h.WALBytes > 1<<30 {
		return h, id, fmt.Errorf("a log of %d bytes", h.WALBytes)
	}
	for _, d := range h.Disks {
		if d.Identity.Size < 0 || d.Identity.Size > 1<<60 {
			return h, id, fmt.Errorf("disk %s of %d bytes", d.Name, d.Identity.Size)
		}
	}
	return h, id, nil
}

// readWhole returns the bytes of a small file.
func readWhole(fsys vfs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, damaged(name, limit, "longer than %d bytes", limit)
	}
	p := make([]byte, size)
	if n, err := f.ReadAt(p, 0); err != nil && (err != io.EOF || n < len(p)) {
		return nil, err
	}
	return p, nil
}

// writeDurably makes or replaces a small file in one step.
func writeDurably(fsys vfs.FS, name string, p []byte) error {
	f, err := createNew(fsys, name+newSuffix)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(name+newSuffix, name); err != nil {
		return err
	}
	return fsys.SyncDir(".")
}
