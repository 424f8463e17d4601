package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/image"
	"holdfast/repo"
)

// withDisk runs fn with the only disk of a repository.
func withDisk(t *testing.T, dir string, fn func(d *repo.Disk)) {
	t.Helper()
	a := &app{in: os.Stdin, out: io.Discard, err: io.Discard, quiet: true, logLevel: "error", logFormat: "text"}
	err := a.reading(t.Context(), dir, func(r *repo.Repository) error {
		p, err := r.Find(t.Context(), "m@latest", time.UTC)
		if err != nil {
			return err
		}
		reader, err := r.OpenPoint(p.ID)
		if err != nil {
			return err
		}
		defer reader.Close()
		d, err := reader.Disk(p.Disks[0].Name)
		if err == nil {
			fn(d)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

var viewMakers = map[string]viewMaker{"qcow2": qcow2View, "vhdx": vhdxView}

// TestViewFile: what is restored has the bytes that a view of the disk shows.
func TestViewFile(t *testing.T) {
	dir, _ := newRepository(t)
	for name, maker := range viewMakers {
		withDisk(t, dir, func(d *repo.Disk) {
			path := filepath.Join(t.TempDir(), "x")
			to, err := newViewFile(maker)(path, d.Size(), false)
			if err != nil {
				t.Fatal(err)
			}
			res, err := to.restore(t.Context(), d, func(int64) {})
			if err == nil {
				err = to.place()
			}
			if err != nil {
				t.Fatal(err)
			}
			v, err := maker(d, diskIdentity(d))
			if err != nil {
				t.Fatal(err)
			}
			want, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size()))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: the file has %d bytes that differ from the %d of the view", name, len(got), len(want))
			}
			if res.WrittenBytes <= d.Size() || res.StoredBytes == 0 {
				t.Errorf("%s: written %d bytes, read %d, of a disk of %d without holes", name, res.WrittenBytes, res.StoredBytes, d.Size())
			}
		})
	}
}

// lastTables is a view that fails when its tables are asked for, and then looks
// at the file as it is.
type lastTables struct {
	view
	asked func()
}

var errTables = errors.New("no tables")

func (v lastTables) NextData(int64) (start, end int64, err error) {
	v.asked()
	return 0, 0, errTables
}

// TestViewFileCut: a file in which the bytes of the disk are and no table yet,
// as a power cut may leave it, opens as no disk; and an error leaves none.
func TestViewFileCut(t *testing.T) {
	dir, _ := newRepository(t)
	for name, maker := range viewMakers {
		withDisk(t, dir, func(d *repo.Disk) {
			into := t.TempDir()
			asked := false
			to, err := newViewFile(func(src viewSource, identity string) (view, error) {
				v, err := maker(src, identity)
				return lastTables{v, func() {
					asked = true
					files, err := os.ReadDir(into)
					if err != nil || len(files) != 1 {
						t.Fatalf("%s: %v, %v: want one file", name, files, err)
					}
					half, err := image.Open(filepath.Join(into, files[0].Name()), image.Options{Format: name})
					if err == nil {
						t.Errorf("%s: the half-written file opens as a disk", name)
						half.Close()
					}
				}}, err
			})(filepath.Join(into, "x"), d.Size(), false)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := to.restore(t.Context(), d, func(int64) {}); !errors.Is(err, errTables) || !asked {
				t.Errorf("%s: restore: %v, want %v", name, err, errTables)
			}
			if err := to.discard(); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(into); err != nil || len(left) > 0 {
				t.Errorf("%s: left behind: %v, %v", name, left, err)
			}
		})
	}
}

// TestViewFileTooLarge: a disk that the format can't hold is refused before
// there is a file.
func TestViewFileTooLarge(t *testing.T) {
	into := t.TempDir()
	for name, maker := range viewMakers {
		if _, err := newViewFile(maker)(filepath.Join(into, "x"), 1<<51, false); err == nil {
			t.Errorf("%s: a disk of 2 PiB was accepted", name)
		}
	}
	if left, err := os.ReadDir(into); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
