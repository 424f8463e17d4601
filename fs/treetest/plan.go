package treetest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Plan says what Populate makes. The zero value is 300 ordinary files in 40
// directories with the names that every file system can hold: no two that
// differ only in case, none that Windows refuses. Each further ability is named.
type Plan struct {
	Seed uint64

	Files     int   // ordinary ones; 0: 300, less than 0: none
	Dirs      int   // that those are spread over; 0: 40
	FileBytes int64 // the longest of them; 0: 4 MiB
	NameBytes int   // the longest name; 0: 255

	BigDir     int // entries of one directory, of which every third is then removed, and some are made anew
	Deep       int // levels of directories in directories
	Fragmented int // files that grow in turns, each written through before the next

	AnyNames  bool // names that Windows refuses: control characters, "*:<>?\|", a dot or space at the end
	Cases     bool // names that differ only in case
	ByteNames bool // names that are not UTF-8

	Sparse     bool // holes at the beginning, in the middle, at the end and everywhere
	Huge       bool // sparse files of more than 4 GiB with bytes at the far end
	HardLinks  bool
	Symlinks   bool // short, long, dangling, absolute, upwards
	Special    bool // FIFOs and sockets
	Devices    bool // device nodes; needs root
	Xattrs     bool // of the user, and of root where the caller is
	XattrBytes int  // the longest value; 0: 2000
	ACLs       bool // as Linux has them
	Modes      bool // permissions of all kinds, with set-user, set-group and sticky
	Owners     bool // needs root
	WideTimes  bool // before 1970 and after 2106
}

// Linux is a plan with all that a file system of Linux can hold. It needs root.
func Linux(seed uint64) Plan {
	return Plan{
		Seed: seed, BigDir: 10_000, Deep: 200, Fragmented: 4,
		AnyNames: true, Cases: true, ByteNames: true,
		Sparse: true, Huge: true, HardLinks: true, Symlinks: true, Special: true, Devices: true,
		Xattrs: true, ACLs: true, Modes: true, Owners: true, WideTimes: true,
	}
}

func (p Plan) withDefaults() Plan {
	p.Files = max(0, cmp.Or(p.Files, 300))
	p.Dirs = cmp.Or(p.Dirs, 40)
	p.FileBytes = cmp.Or(p.FileBytes, 4<<20)
	p.NameBytes = cmp.Or(p.NameBytes, 255)
	p.XattrBytes = cmp.Or(p.XattrBytes, 2000)
	return p
}

// names are the hard names of a plan, each once.
func (p Plan) names() []string {
	list := []string{
		"with space", " leading space", "-rf", "--", ".hidden", "..two dots", "...", "a.b.c.d.e",
		"caf\u00e9 composed", "cafe\u0301 decomposed", "日本語のファイル名", "Ελληνικά", "עברית", "emoji 🦊🗄️", "zero\u200bwidth",
		"quote'single", "percent%20", "hash#", "semi;colon", "amp&and", "$HOME", "`id`", "[bracket]", "{brace}", "comma,plus+equal=", "~", "!bang", "@at", "LONGNAME.EXTENSION", "8.3",
		strings.Repeat("n", p.NameBytes), strings.Repeat("é", p.NameBytes/2), strings.Repeat("長", p.NameBytes/3),
	}
	if p.NameBytes > 1 {
		list = append(list, strings.Repeat("m", p.NameBytes-1))
	}
	if p.AnyNames {
		list = append(list, "new\nline", "tab\there", "bell\a", "escape\x1b[31m", "del\x7f", "star*", "quest?", "back\\slash", "colon:stream", "<angle>", "pipe|", "quote\"double", "trailing dot.", "trailing space ", "CON", "nul.txt", "\x01")
	}
	if p.Cases {
		list = append(list, "Case", "case", "CASE", "cAsE", "STRASSE", "straße", "ÉCOLE", "école")
	}
	if p.ByteNames {
		list = append(list, "latin1 \xe9\xe8", "\xff\xfe", "cut \xe6\x97", "\x80", "surrogate \xed\xa0\x80", strings.Repeat("\xfe", p.NameBytes))
	}
	return list
}

// size draws the size of an ordinary file.
func (p Plan) size(r *rand.Rand) int64 {
	edges := []int64{511, 512, 513, 1023, 1024, 1025, 2047, 2049, 4095, 4096, 4097, 8191, 8193, 65535, 65536, 65537}
	var n int64
	switch k := r.IntN(100); {
	case k < 5:
		n = 0
	case k < 10:
		n = 1
	case k < 15:
		n = 1 + r.Int64N(160) // where file systems keep bytes in the inode
	case k < 30:
		n = edges[r.IntN(len(edges))]
	case k < 85:
		n = r.Int64N(16 << 10)
	case k < 98:
		n = r.Int64N(256 << 10)
	default:
		n = r.Int64N(max(1, p.FileBytes))
	}
	return min(n, p.FileBytes)
}

// wideTimes are seconds at which a field of time ends, or another begins.
var wideTimes = []int64{
	-1, 0, 1, -1 << 31, -1<<31 - 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1,
	-2_000_000_000, 4_294_967_296 + 86_400, 6_000_000_000, 1<<33 - 1, 1 << 33, 3<<32 - 1, 15_032_385_535,
}

// fileName is a plain name that no other call with another i gives.
func fileName(r *rand.Rand, i int) string {
	words := []string{"report", "photo", "data", "backup-old", "index", "übersicht", "main", "x", "a-rather-long-name-as-people-write-them"}
	ends := []string{"", ".txt", ".jpg", ".c", ".tar.gz", ".DOC"}
	return fmt.Sprintf("%s-%d%s", words[r.IntN(len(words))], i, ends[r.IntN(len(ends))])
}
