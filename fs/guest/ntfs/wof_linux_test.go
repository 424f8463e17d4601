package ntfs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"holdfast/fs"
	"holdfast/internal/testreq"
)

// wimPacked compresses data with wimlib, whose images keep a file as WOF does,
// and returns what a stream WofCompressedData would hold.
func wimPacked(t testing.TB, data []byte, method string, chunkBytes int) []byte {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/in", 0o755))
	must(t, os.WriteFile(dir+"/in/data", data, 0o644))
	wim := filepath.Join(dir, "w.wim")
	run(t, "wimcapture", "--compress="+method, "--chunk-size="+strconv.Itoa(chunkBytes), "--no-acls", dir+"/in", wim)
	info := run(t, "wiminfo", "--blobs", wim)
	number := func(of string, field string) int64 {
		m := regexp.MustCompile(field + `\s*=\s*(0x)?([0-9a-f]+)`).FindStringSubmatch(of)
		if m == nil {
			t.Fatalf("no %q in %s", field, of)
		}
		base := 10
		if m[1] != "" {
			base = 16
		}
		n, err := strconv.ParseInt(m[2], base, 64)
		must(t, err)
		return n
	}
	b, err := os.ReadFile(wim)
	must(t, err)
	for _, blob := range regexp.MustCompile(`(?s)Hash\s+=.*?(\n\n|$)`).FindAllString(info, -1) {
		if number(blob, "Uncompressed size") == int64(len(data)) {
			off := number(blob, `Offset in WIM`)
			return b[off : off+number(blob, `Compressed size`)]
		}
	}
	t.Fatalf("no blob of %d bytes in %s", len(data), info)
	return nil
}

func TestWOF(t *testing.T) {
	testreq.Need(t, "wimcapture")
	exe, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	methods := []struct {
		name       string
		number     uint32
		wim        string
		chunkBytes int
	}{{"xpress4k", 0, "XPRESS", 4096}, {"lzx", 1, "LZX", 32768}, {"xpress8k", 2, "XPRESS", 8192}, {"xpress16k", 3, "XPRESS", 16384}}
	files := map[string][]byte{
		"text":  text(1, 300_001),
		"exe":   exe[:min(len(exe), 2<<20)],
		"zeros": make([]byte, 100_000),
		"mixed": bytes.Join([][]byte{text(1, 70_000), noise(1, 140_000), make([]byte, 50_000), text(2, 100)}, nil),
		"small": text(1, 3000),
		"even":  text(5, 131_072),
	}
	v := format(t, 64<<20)
	v.mounted("streams_interface=windows", func(dir string) {
		for _, m := range methods {
			for name, data := range files {
				path := fmt.Sprintf("%s/%s-%s", dir, name, m.name)
				must(t, os.WriteFile(path, nil, 0o644))
				must(t, os.WriteFile(path+":WofCompressedData", wimPacked(t, data, m.wim, m.chunkBytes), 0o644))
				must(t, os.WriteFile(path+":other", []byte("beside"), 0o644))
				must(t, os.Truncate(path, int64(len(data))))
				var info []byte
				for _, n := range []uint32{1, 2, 1, m.number, 0} {
					info = binary.LittleEndian.AppendUint32(info, n)
				}
				setxattr(t, path, "system.ntfs_reparse_data", reparse(0x80000017, info))
			}
		}
	})
	f, _ := v.open()
	for _, m := range methods {
		for name, data := range files {
			path := name + "-" + m.name
			got, err := contents(t, f, path)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes, %v; want %d", path, len(got), err, len(data))
			}
			a := find(t, f, path)
			if list, err := f.Streams(t.Context(), a.ID); err != nil || len(list) != 1 || list[0].Name != "other" {
				t.Errorf("%s: streams %+v, %v", path, list, err)
			}
			if k := kinds(t, f, path); k[fs.Made] != int64(len(data)) {
				t.Errorf("%s is kept as %v", path, k)
			}
		}
	}
}
