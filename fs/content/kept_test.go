package content_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"holdfast/fs/content"
	"holdfast/fs/treetest"
	"holdfast/repo"
	"holdfast/repo/repotest"
)

// TestMachineFiles finds the files that a machine has beside its disks in the
// point's directory, whatever they are called.
func TestMachineFiles(t *testing.T) {
	w := newWorld(t)
	files := []repo.MachineFile{
		{Name: "web1.vmx", Data: []byte("memSize = \"2048\"\n")},
		{Name: "web1.nvram", Data: bytes.Repeat([]byte{1, 2, 3}, 50_000)},
		{Name: "empty", Data: nil},
		{Name: "disks", Data: []byte("not a directory")},
		{Name: "machine.json", Data: []byte("{}")},
	}
	_, err := w.owner.Backup(background, repo.BackupOptions{
		Machine: "web1", Files: files,
		Disks: repotest.NewPoint("web1", repotest.NamedDisk{Name: "root", Disk: dense(1, 1<<20)}).Sources(),
	})
	must(t, err)
	tree := w.tree(content.Options{})
	var told struct {
		Files []struct {
			Name, File string
			SizeBytes  int64
		}
	}
	must(t, json.Unmarshal(read(t, tree, "web1/latest/machine.json"), &told))
	if len(told.Files) != len(files) {
		t.Fatalf("machine.json tells of %+v", told.Files)
	}
	for i, f := range told.Files {
		if f.Name != files[i].Name || f.SizeBytes != int64(len(files[i].Data)) || i < 3 && f.File != f.Name || i >= 3 && !strings.HasPrefix(f.File, f.Name+"~") {
			t.Errorf("machine.json tells of %+v, want %s of %d bytes", f, files[i].Name, len(files[i].Data))
		}
		if got := read(t, tree, "web1/latest/"+f.File); !bytes.Equal(got, files[i].Data) {
			t.Errorf("%s has %d bytes, not the %d that were kept", f.File, len(got), len(files[i].Data))
		}
	}
	treetest.Conform(t, tree, treetest.Options{})
}
