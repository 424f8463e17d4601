package ext4

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/internal/testreq"
)

// TestWrittenJournal replays journals that debugfs wrote, in forms that the
// kernel does not make any more or only by chance, and compares with e2fsck.
func TestWrittenJournal(t *testing.T) {
	testreq.Need(t, "mke2fs", "debugfs", "e2fsck")
	data := filepath.Join(t.TempDir(), "data")
	content := bytes.Repeat([]byte("from the journal"), 4*1024/16)
	be.PutUint32(content[1024:], journalMagic) // to be escaped
	if err := os.WriteFile(data, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, features := range []string{"", ",64bit"} {
		for _, open := range []string{"jo", "jo -c -v 2", "jo -c -v 3"} {
			for name, writes := range map[string][]string{
				"written": {"jw -b %d,%d,%d,%d " + data},
				"revoked": {"jw -b %d,%d,%d,%d " + data, "jw -r %[2]d"},
				"torn":    {"jw -b %d " + data, "jw -b %[2]d,%[3]d -c " + data},
				"again":   {"jw -b %d " + data, "jw -r %[1]d", "jw -b %[1]d " + data},
			} {
				t.Run(open+features+" "+name, func(t *testing.T) {
					image := makeImage(t, 8, "-b", "1024", "-J", "size=1", "-O", "none,has_journal,filetype,extent,metadata_csum"+features)
					someFiles(t, image)
					f, _ := openImage(t, image)
					in, err := f.inode(lookup(t, f, "file").ID.Ino)
					if err != nil {
						t.Fatal(err)
					}
					var at uint64
					if err := f.mapBlocks(&in, 0, 1, func(e extent) bool { at = e.at; return false }); err != nil {
						t.Fatal(err)
					}
					commands := []string{open}
					for _, w := range writes {
						commands = append(commands, strings.Split(fmt.Sprintf(w, at, at+1, at+2, at+3), "%!(EXTRA")[0])
					}
					debugfs(t, image, append(commands, "jc")...)
					f, _ = openImage(t, image)
					if len(f.overlay.blocks) == 0 && name != "torn" {
						t.Fatal("nothing to replay")
					}
					got := list(t, f)
					checked := copyImage(t, image)
					run(t, "e2fsck", "-y", "-E", "journal_only", checked)
					g, _ := openImage(t, checked)
					if want := list(t, g); len(g.overlay.blocks) > 0 || !strings.HasSuffix(got, want) {
						t.Errorf("got\n%s\nwant\n%s", got, want)
					}
				})
			}
		}
	}
}
