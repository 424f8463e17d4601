package vmtest

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// module is one of the kernel's.
type module struct {
	name string // as in "virtio_net"
	file string
}

// modulesOf finds the modules named, below dir, and those that they depend on, each
// behind what it needs. A name that has no file is part of the kernel itself, if
// modules.builtin says so, and else an error.
func modulesOf(dir string, names []string) ([]module, error) {
	files, err := moduleFiles(dir)
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(builtin)) {
		seen[moduleName(strings.TrimSpace(line))] = true
	}
	var list []module
	var add func(name, by string) error
	add = func(name, by string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		file := files[name]
		if file == "" {
			return fmt.Errorf("vmtest: module %s, needed by %s: %w below %s", name, by, fs.ErrNotExist, dir)
		}
		needs, err := dependsOn(file)
		if err != nil {
			return fmt.Errorf("vmtest: module %s: %w", file, err)
		}
		for _, n := range needs {
			if err := add(n, name); err != nil {
				return err
			}
		}
		list = append(list, module{name, file})
		return nil
	}
	for _, name := range names {
		if err := add(name, "the test"); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// moduleName is what the module in a file is called: hyphens are the same as
// underscores.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}

func moduleFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".ko") {
			files[moduleName(path)] = path
		}
		return err
	})
	return files, err
}

// dependsOn reads from a module's own file which others it needs.
func dependsOn(file string) ([]string, error) {
	e, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	s := e.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no section .modinfo")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	var needs []string
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(field), "depends="); ok {
			for name := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' }) {
				needs = append(needs, moduleName(name))
			}
		}
	}
	return needs, nil
}
