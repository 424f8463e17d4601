package repo_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/repo"
)

func machineFiles(seed byte) []repo.MachineFile {
	nvram := make([]byte, 270<<10)
	rand.NewChaCha8([32]byte{seed}).Read(nvram[:5000])
	return []repo.MachineFile{{Name: "web 1.vmx", Data: []byte("memSize = \"512\"\n")}, {Name: "web 1.nvram", Data: nvram}, {Name: "empty", Data: []byte{}}}
}

// filesOf reads the files of a point, and what a listing says of them.
func filesOf(t *testing.T, w *world, id repo.PointID) []repo.MachineFile {
	t.Helper()
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := r.OpenPoint(id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	files, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	var want []repo.FileInfo
	for _, f := range files {
		want = append(want, repo.FileInfo{Name: f.Name, SizeBytes: int64(len(f.Data))})
	}
	points, err := r.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(points, func(p repo.Point) bool { return p.ID == id })
	if diff := cmp.Diff(want, points[i].Files); diff != "" {
		t.Errorf("listing of %s (-want +got):\n%s", id, diff)
	}
	return files
}

// TestMachineFiles keeps files with a point, in plain and sealed repositories,
// and in copies.
func TestMachineFiles(t *testing.T) {
	for _, p := range pairs(t, 91) {
		t.Run(p.name, func(t *testing.T) {
			want := machineFiles(byte(len(p.name)))
			var id repo.PointID
			err := p.from.with(t.Context(), func(o *repo.Owner) error {
				run, err := p.from.backup(t.Context(), o, oneDisk("web1", dense(1, 300<<10)), func(opt *repo.BackupOptions) { opt.Files = want })
				if err == nil {
					id = run.Point.ID
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := filesOf(t, p.from, id); !reflect.DeepEqual(got, want) {
				t.Errorf("as stored: %d files that differ", len(got))
			}
			if _, err := p.from.copyTo(t.Context(), p.to); err != nil {
				t.Fatal(err)
			}
			if got := filesOf(t, p.to, id); !reflect.DeepEqual(got, want) {
				t.Errorf("as copied: %d files that differ", len(got))
			}
		})
	}
}

func TestMachineFilesRefused(t *testing.T) {
	many := make([]repo.MachineFile, repo.MaxMachineFiles+1)
	for i := range many {
		many[i].Name = strings.Repeat("x", i+1)
	}
	cases := []struct {
		name  string
		files []repo.MachineFile
		want  error
	}{
		{"twice", []repo.MachineFile{{Name: "a"}, {Name: "a"}}, repo.ErrMachineFiles},
		{"too many", many, repo.ErrMachineFiles},
		{"too large", []repo.MachineFile{{Name: "a", Data: make([]byte, repo.MaxMachineFileBytes)}, {Name: "b", Data: []byte{1}}}, repo.ErrMachineFiles},
		{"a path", []repo.MachineFile{{Name: "../a"}}, repo.ErrName},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w, o := owned(t)
			p := oneDisk("web1", dense(1, 4096))
			_, err := w.backup(t.Context(), o, p, func(opt *repo.BackupOptions) { opt.Files = c.files })
			is(t, "backup", err, c.want)
		})
	}
}
