package ntfs_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs"
)

// reparse makes reparse data as a driver gets it.
func reparse(tag uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, tag)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(data)))
	return append(append(b, 0, 0), data...)
}

// windowsLink is the reparse data of a symbolic link, or of a junction.
func windowsLink(junction bool, path, shown string, flags uint32) []byte {
	p, s := utf16le(path), utf16le(shown)
	var b []byte
	for _, n := range []int{0, len(p), len(p), len(s)} {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	if junction {
		return reparse(0xa0000003, append(append(b, p...), s...))
	}
	return reparse(0xa000000c, append(append(binary.LittleEndian.AppendUint32(b, flags), p...), s...))
}

func TestLinks(t *testing.T) {
	v := format(t, 32<<20)
	tests := []struct {
		name   string
		isDir  bool
		data   []byte
		target string
	}{
		{"relative", false, windowsLink(false, `..\Dir\file.txt`, `..\Dir\file.txt`, 1), "../Dir/file.txt"},
		{"relative, other case", false, windowsLink(false, `..\dIR\FILE.TXT`, `..\dIR\FILE.TXT`, 1), "../Dir/file.txt"},
		{"relative, to nothing", false, windowsLink(false, `no\such\thing`, `no\such\thing`, 1), "no/such/thing"},
		{"absolute", false, windowsLink(false, `\??\C:\dir\file.txt`, `C:\dir\file.txt`, 0), "../Dir/file.txt"},
		{"absolute, to a directory", true, windowsLink(false, `\??\C:\Dir`, `C:\Dir`, 0), "../Dir"},
		{"absolute, of another drive", false, windowsLink(false, `\??\D:\elsewhere\x`, `D:\elsewhere\x`, 0), "D:/elsewhere/x"},
		{"rooted", false, windowsLink(false, `\dir\file.txt`, `\dir\file.txt`, 1), "../Dir/file.txt"},
		{"junction", true, windowsLink(true, `\??\C:\DIR`, `C:\DIR`, 0), "../Dir"},
		{"junction with a slash at the end", true, windowsLink(true, `\??\C:\DIR\`, ``, 0), "../Dir"},
		{"junction to the root", true, windowsLink(true, `\??\C:\`, `C:\`, 0), ".."},
		{"junction by way of a junction", true, windowsLink(true, `\??\C:\links\junction\Sub`, ``, 0), "../links/junction/Sub"},
		{"mounted volume", true, windowsLink(true, `\??\Volume{01234567-89ab-cdef-0123-456789abcdef}\`, ``, 0), `\??\Volume{01234567-89ab-cdef-0123-456789abcdef}\`},
		{"share", false, windowsLink(false, `\??\UNC\server\share\x`, `\\server\share\x`, 0), `\\server\share\x`},
	}
	v.mounted("", func(dir string) {
		must(t, os.MkdirAll(dir+"/Dir/Sub", 0o755))
		must(t, os.WriteFile(dir+"/Dir/file.txt", []byte("here"), 0o644))
		must(t, os.Mkdir(dir+"/links", 0o755))
		for _, tt := range tests {
			path := dir + "/links/" + tt.name
			if tt.isDir {
				must(t, os.Mkdir(path, 0o755))
			} else {
				must(t, os.WriteFile(path, nil, 0o644))
			}
			setxattr(t, path, "system.ntfs_reparse_data", tt.data)
		}
	})
	f, _ := v.open()
	v.mounted("ro", func(dir string) {
		for _, tt := range tests {
			a := find(t, f, "links/"+tt.name)
			target, err := f.ReadLink(t.Context(), a.ID)
			if a.Type != fs.TypeSymlink || target != tt.target || err != nil || a.Size != int64(len(target)) {
				t.Errorf("%s: a %v of %d to %q, %v; want %q", tt.name, a.Type, a.Size, target, err, tt.target)
			}
			theirs, err := os.Readlink(dir + "/links/" + tt.name)
			t.Logf("%s: %q; ntfs-3g %q, %v", tt.name, target, theirs, err)
			if err != nil {
				continue
			}
			// Where both lead to something, it is the same.
			want, err1 := filepath.EvalSymlinks(dir + "/links/" + tt.name)
			got, err2 := fs.Resolve(t.Context(), f, f.Root(), "links/"+tt.name, true)
			if err1 == nil && (err2 != nil || inode(t, want) != got.ID.Ino) {
				t.Errorf("%s leads to %+v, %v; for ntfs-3g to %s", tt.name, got, err2, want)
			}
		}
	})
	if _, err := f.ReadLink(t.Context(), f.Root()); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("read link of the root: %v", err)
	}
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Ino
}

// TestElsewhere reads files whose contents are not on the volume.
func TestElsewhere(t *testing.T) {
	v := format(t, 32<<20)
	tests := []struct {
		name     string
		tag      uint32
		readable bool
		says     string
	}{
		{"dedup", 0x80000013, false, "deduplicated by Windows"},
		{"onedrive", 0x9000601a, false, "OneDrive"},
		{"onedrive, here", 0x9000601a, true, ""},
		{"container", 0x80000018, false, "container"},
		{"unknown", 0x80004711, false, "0x80004711"},
		{"app", 0x8000001b, true, ""},
	}
	v.mounted("", func(dir string) {
		for _, tt := range tests {
			must(t, os.WriteFile(dir+"/"+tt.name, nil, 0o644))
			if tt.name == "onedrive" {
				must(t, os.Truncate(dir+"/"+tt.name, 1<<20))
			}
			setxattr(t, dir+"/"+tt.name, "system.ntfs_reparse_data", reparse(tt.tag, []byte("12345678")))
		}
	})
	// ntfs-3g doesn't write such a file, so ntfscp gives it bytes.
	data := filepath.Join(t.TempDir(), "data")
	must(t, os.WriteFile(data, noise(1, 9000), 0o644))
	for _, tt := range tests {
		if tt.name != "onedrive" { // a hole
			run(t, "ntfscp", v.path, data, tt.name)
		}
	}
	f, _ := v.open()
	for _, tt := range tests {
		a := find(t, f, tt.name)
		got, err := contents(t, f, tt.name)
		_, xerr := f.Extents(t.Context(), a.ID, 0, 1)
		if tt.readable {
			if err != nil || xerr != nil || len(got) != 9000 {
				t.Errorf("%s: %d bytes, %v, %v", tt.name, len(got), err, xerr)
			}
		} else if !errors.Is(err, fs.ErrUnsupported) || !errors.Is(xerr, fs.ErrUnsupported) || len(got) > 0 || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %d bytes, %v, %v", tt.name, len(got), err, xerr)
		}
	}
}

func TestWSL(t *testing.T) {
	v := format(t, 32<<20)
	ea := func(pairs ...any) []byte {
		var b []byte
		for i := 0; i < len(pairs); i += 2 {
			name, value := pairs[i].(string), pairs[i+1].([]byte)
			e := append([]byte{0, byte(len(name))}, byte(len(value)), 0)
			e = append(append(append(e, name...), 0), value...)
			for len(e)%4 != 0 {
				e = append(e, 0)
			}
			b = binary.LittleEndian.AppendUint32(b, uint32(4+len(e)))
			b = append(b, e...)
		}
		return b
	}
	u32 := func(v ...uint32) (b []byte) {
		for _, v := range v {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return b
	}
	v.mounted("special_files=wsl", func(dir string) {
		must(t, os.Symlink("../a target/é", dir+"/link"))
		must(t, unix.Mkfifo(dir+"/fifo", 0o600))
		must(t, unix.Mknod(dir+"/char", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		must(t, unix.Mknod(dir+"/block", unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))))
		must(t, unix.Mknod(dir+"/socket", unix.S_IFSOCK|0o600, 0))
		must(t, os.WriteFile(dir+"/script", []byte("#!"), 0o644))
		setxattr(t, dir+"/script", "system.ntfs_ea", ea("$LXUID", u32(1000), "$LXGID", u32(100), "$LXMOD", u32(0o104755)))
	})
	v.compare()
	f, _ := v.open()
	if a := find(t, f, "script"); a.UID != 1000 || a.GID != 100 || a.Perm != 0o4755 {
		t.Errorf("owner and mode of WSL: %+v", a)
	}
	if a := find(t, f, "block"); a.Type != fs.TypeBlockDevice || a.Major != 259 || a.Minor != 70000 {
		t.Errorf("device of WSL: %+v", a)
	}
}
