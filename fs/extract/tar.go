package extract

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"

	"holdfast/fs"
)

type tarForm struct{ w *tar.Writer }

func newTar(w io.Writer) form { return &tarForm{tar.NewWriter(w)} }

func (t *tarForm) hardLinks() bool { return true }
func (t *tarForm) xattrs() bool    { return true }
func (t *tarForm) Close() error    { return t.w.Close() }

// paxXattr begins the keys of extended attributes, as GNU tar, star and bsdtar
// have them.
const paxXattr = "SCHILY.xattr."

var tarTypes = map[fs.Type]byte{
	fs.TypeFile: tar.TypeReg, fs.TypeDir: tar.TypeDir, fs.TypeSymlink: tar.TypeSymlink,
	fs.TypeFIFO: tar.TypeFifo, fs.TypeCharDevice: tar.TypeChar, fs.TypeBlockDevice: tar.TypeBlock,
}

func (t *tarForm) begin(name string, a *fs.Attr, perm uint32, link string, hard bool, xattrs map[string]string) (io.Writer, error) {
	h := &tar.Header{
		Format: tar.FormatPAX, Typeflag: tarTypes[a.Type], Name: name, Linkname: link,
		Mode: int64(perm), Uid: int(a.UID), Gid: int(a.GID), ModTime: a.Mtime.Time(),
		Devmajor: int64(a.Major), Devminor: int64(a.Minor),
	}
	switch {
	case hard:
		h.Typeflag = tar.TypeLink
	case a.Type == fs.TypeFile:
		h.Size = a.Size
	}
	for k, v := range xattrs {
		// In a record of PAX a key ends at the "=".
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords[paxXattr+strings.ReplaceAll(k, "=", "%3D")] = v
	}
	err := t.w.WriteHeader(h)
	if errors.Is(err, tar.ErrHeader) {
		err = fmt.Errorf("%w: %w", errUnsayable, err)
	}
	return t.w, err
}
