package vfs_test

import (
	"testing"

	"holdfast/repo/vfs"
	"holdfast/repo/vfs/vfstest"
)

func TestConformance(t *testing.T) {
	openOS := func(t *testing.T) vfs.FS {
		d, err := vfs.OS(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	}
	t.Run("os", func(t *testing.T) { vfstest.Run(t, openOS) })
	t.Run("mem", func(t *testing.T) {
		vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.NewMem() })
	})
	t.Run("crash clone", func(t *testing.T) {
		vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.NewMem().CrashClone(vfs.CrashOptions{}) })
	})
	t.Run("faulty os", func(t *testing.T) {
		vfstest.Run(t, func(t *testing.T) vfs.FS { return vfs.NewFaulty(openOS(t)) })
	})
	t.Run("faulty mem", func(t *testing.T) {
		vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.NewFaulty(vfs.NewMem()) })
	})
}
