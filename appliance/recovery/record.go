package recovery

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

// ErrRecord says that the record of a session is not as it was written.
var ErrRecord = errors.New("session record is damaged")

// state is what is to become of a session when its record is found.
type state string

const (
	publishing state = "publishing" // to be undone
	running    state = "running"    // to be there again
	stopping   state = "stopping"   // to be removed
)

// record is what is remembered of a session, in a file of its own:
//
//	magic "HFrs" · u16 version 1 · u16 0 · u32 length · JSON · SHA-256 of all before
//
// Numbers are little-endian. The file is replaced as a whole.
type record struct {
	ID         string       `json:"id"`
	Name       string       `json:"name"` // of the directory
	State      state        `json:"state"`
	Number     uint32       `json:"number,omitempty"` // in the datastore; 0: it has none yet
	Repository string       `json:"repository"`       // its id
	Path       string       `json:"path"`             // where that was, for people
	Point      repo.PointID `json:"point"`
	PointTime  time.Time    `json:"pointTime"`
	Machine    string       `json:"machine"`
	MachineID  string       `json:"machineId"`
	Config     string       `json:"config"` // name of the vmx
	Disks      []recordDisk `json:"disks"`
	Published  time.Time    `json:"published"`
	Warnings   []string     `json:"warnings,omitempty"`
	Kept       []Kept       `json:"kept,omitempty"`
	Released   bool         `json:"released,omitempty"` // all is migrated: neither pin nor point is needed
}

type recordDisk struct {
	Name      string `json:"name"` // in the restore point
	File      string `json:"file"` // of the flat file, in the directory
	SizeBytes int64  `json:"sizeBytes"`
	Root      string `json:"root"`             // names the content of the base
	Target    string `json:"target,omitempty"` // where it is being migrated to, or was
	Migrated  bool   `json:"migrated,omitempty"`
}

const (
	recordMagic    = "HFrs"
	recordVersion  = 1
	recordHead     = 4 + 2 + 2 + 4
	maxRecordBytes = 4 << 20
	recordsDir     = "sessions"
	newSuffix      = ".new"
)

func recordPath(id string) string { return recordsDir + "/" + id }

// pin is the name under which the session's point is pinned.
func (r *record) pin() string { return pinPrefix + r.Name + "." + r.ID }

const pinPrefix = "recovery:"

// elsewhere says that nothing of the point is needed any more.
func (r *record) elsewhere() bool {
	return r.Released || len(r.Disks) > 0 && !slices.ContainsFunc(r.Disks, func(d recordDisk) bool { return !d.Migrated })
}

// dir is the session's directory below the redirect directory.
func (r *record) dir() string { return "session-" + r.ID }

func (r *record) encode() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	b := []byte(recordMagic)
	b = binary.LittleEndian.AppendUint16(b, recordVersion)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	sum := sha256.Sum256(b)
	if b = append(b, sum[:]...); len(b) > maxRecordBytes {
		return nil, fmt.Errorf("%d bytes, at most %d: nobody would read it", len(b), maxRecordBytes)
	}
	return b, nil
}

func decodeRecord(p []byte) (*record, error) {
	bad := func(format string, args ...any) (*record, error) {
		return nil, fmt.Errorf("%w: %s", ErrRecord, fmt.Sprintf(format, args...))
	}
	if len(p) < recordHead+sha256.Size || len(p) > maxRecordBytes || string(p[:4]) != recordMagic {
		return bad("%d bytes without its magic", len(p))
	}
	if v := binary.LittleEndian.Uint16(p[4:]); v != recordVersion {
		return bad("version %d, this program reads %d", v, recordVersion)
	}
	body := p[:len(p)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], p[len(body):]) {
		return bad("its checksum is wrong")
	}
	if n := binary.LittleEndian.Uint32(p[8:]); uint64(n) != uint64(len(body)-recordHead) || binary.LittleEndian.Uint16(p[6:]) != 0 {
		return bad("lengths or flags that can't be")
	}
	r := new(record)
	if err := json.Unmarshal(body[recordHead:], r); err != nil {
		return bad("%v", err)
	}
	return r, r.check()
}

var idForm = regexp.MustCompile(`^[a-z2-7]{10}$`)

func (r *record) check() error {
	var err error
	switch {
	case !idForm.MatchString(r.ID):
		err = fmt.Errorf("session id %.20q", r.ID)
	case r.State != publishing && r.State != running && r.State != stopping:
		err = fmt.Errorf("state %.20q", r.State)
	case r.State == running && (r.Number == 0 || len(r.Disks) == 0):
		err = errors.New("it runs without disks or a number")
	default:
		err = checkSessionName(r.Name)
	}
	for _, d := range r.Disks {
		if d.SizeBytes < 0 || d.Name == "" || d.File == "" {
			err = errors.Join(err, fmt.Errorf("disk %.40q", d.Name))
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return nil
}

// maxSessionName leaves room for what is put behind it in names of files.
const maxSessionName = 80

// checkSessionName says whether a session's directory can have this name.
func checkSessionName(name string) error {
	err := repo.CheckName("session", name)
	if err == nil && (len(name) > maxSessionName || strings.HasPrefix(name, ".") || strings.ContainsAny(name, `"\`)) {
		err = fmt.Errorf("%w: session %.64q has more than %d bytes, a dot in front, a quote or a backslash", repo.ErrName, name, maxSessionName)
	}
	return err
}

// save makes the record durable in place of what it was.
func (r *record) save(fsys vfs.FS) error {
	text, err := r.encode()
	if err == nil {
		err = replaceFile(fsys, recordPath(r.ID), text)
	}
	if err != nil {
		return fmt.Errorf("write the record of session %s: %w", r.Name, err)
	}
	return nil
}

// replaceFile gives a file other bytes, durably: all of them or none.
func replaceFile(fsys vfs.FS, name string, text []byte) error {
	tmp := name + newSuffix
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	return fsys.SyncDir(dirOf(name))
}

func dirOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return "."
}

// removeRecord ends the memory of a session.
func removeRecord(fsys vfs.FS, id string) error {
	if err := fsys.Remove(recordPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fsys.SyncDir(recordsDir)
}

// foundRecord is what lies in the directory of records.
type foundRecord struct {
	id  string
	rec *record // nil: err says why
	err error
}

// readRecords reads all records, and clears away what was not finished.
func readRecords(fsys vfs.FS) ([]foundRecord, error) {
	if err := fsys.Mkdir(recordsDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := fsys.SyncDir("."); err != nil {
		return nil, err
	}
	list, err := fsys.ReadDir(recordsDir)
	if err != nil {
		return nil, err
	}
	var found []foundRecord
	for _, e := range list {
		name := recordsDir + "/" + e.Name
		if strings.HasSuffix(e.Name, newSuffix) {
			if err := fsys.Remove(name); err != nil {
				return nil, err
			}
			continue
		}
		if e.Dir || !idForm.MatchString(e.Name) {
			continue
		}
		f := foundRecord{id: e.Name}
		var p []byte
		if p, f.err = vfs.ReadFile(fsys, name, maxRecordBytes); f.err == nil {
			if f.rec, f.err = decodeRecord(p); f.err == nil && f.rec.ID != e.Name {
				f.rec, f.err = nil, fmt.Errorf("%w: it is the record of %s", ErrRecord, f.rec.ID)
			}
		}
		if f.err != nil {
			f.rec = nil
		}
		found = append(found, f)
	}
	return found, nil
}
