package recovery

import (
	"holdfast/repo/vfs"
)

// sub is a directory of a file system as one of its own.
func sub(fsys vfs.FS, dir string) vfs.FS { return subFS{fsys, dir} }

type subFS struct {
	fs  vfs.FS
	dir string
}

func (s subFS) at(name string) string {
	if name == "." {
		return s.dir
	}
	return s.dir + "/" + name
}

func (s subFS) Create(name string) (vfs.File, error)    { return s.fs.Create(s.at(name)) }
func (s subFS) Open(name string) (vfs.File, error)      { return s.fs.Open(s.at(name)) }
func (s subFS) OpenWrite(name string) (vfs.File, error) { return s.fs.OpenWrite(s.at(name)) }
func (s subFS) Mkdir(name string) error                 { return s.fs.Mkdir(s.at(name)) }
func (s subFS) Remove(name string) error                { return s.fs.Remove(s.at(name)) }
func (s subFS) Rename(oldName, newName string) error {
	return s.fs.Rename(s.at(oldName), s.at(newName))
}
func (s subFS) ReadDir(name string) ([]vfs.Info, error) { return s.fs.ReadDir(s.at(name)) }
func (s subFS) Stat(name string) (vfs.Info, error)      { return s.fs.Stat(s.at(name)) }
func (s subFS) Locked(name string) (bool, error)        { return s.fs.Locked(s.at(name)) }
func (s subFS) SyncDir(name string) error               { return s.fs.SyncDir(s.at(name)) }
func (s subFS) Free() (uint64, error)                   { return s.fs.Free() }
func (s subFS) Lock(name string, mode vfs.LockMode) (vfs.Unlocker, error) {
	return s.fs.Lock(s.at(name), mode)
}
