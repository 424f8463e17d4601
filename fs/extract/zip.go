package extract

import (
	"archive/zip"
	"fmt"
	"io"
	iofs "io/fs"
	"math"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"

	"holdfast/fs"
)

type zipForm struct{ w *zip.Writer }

func newZip(w io.Writer) form {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	return &zipForm{z}
}

func (z *zipForm) hardLinks() bool { return false }
func (z *zipForm) xattrs() bool    { return false }
func (z *zipForm) Close() error    { return z.w.Close() }

// zipFirst is what the old form of a time begins with, zipLast where the exact
// one, which stands beside it, ends.
var zipFirst, zipLast = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(math.MaxUint32, 0).UTC()

func (z *zipForm) begin(name string, a *fs.Attr, perm uint32, link string, _ bool, _ map[string]string) (io.Writer, error) {
	name = zipName(name)
	if len(name) > math.MaxUint16 {
		return nil, fmt.Errorf("a path of %d bytes %w", len(name), errUnsayable)
	}
	h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: a.Mtime.Time()}
	if h.Modified.Before(zipFirst) {
		h.Modified = zipFirst
	} else if h.Modified.After(zipLast) {
		h.Modified = zipLast
	}
	if strings.HasSuffix(name, "/") || a.Type != fs.TypeFile || a.Size == 0 {
		h.Method = zip.Store
	}
	h.SetMode(zipMode(a.Type) | iofs.FileMode(perm&0o777) | zipBits(perm))
	w, err := z.w.CreateHeader(h)
	if err == nil && a.Type == fs.TypeSymlink {
		_, err = io.WriteString(w, link)
	}
	return w, err
}

func zipMode(t fs.Type) iofs.FileMode {
	switch t {
	case fs.TypeDir:
		return iofs.ModeDir
	case fs.TypeSymlink:
		return iofs.ModeSymlink
	case fs.TypeFIFO:
		return iofs.ModeNamedPipe
	case fs.TypeCharDevice:
		return iofs.ModeDevice | iofs.ModeCharDevice
	case fs.TypeBlockDevice:
		return iofs.ModeDevice
	}
	return 0
}

func zipBits(perm uint32) (m iofs.FileMode) {
	for bit, mode := range map[uint32]iofs.FileMode{0o4000: iofs.ModeSetuid, 0o2000: iofs.ModeSetgid, 0o1000: iofs.ModeSticky} {
		if perm&bit != 0 {
			m |= mode
		}
	}
	return m
}
