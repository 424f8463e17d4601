package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// A PaperKey is a key file as it can be printed and typed in again:
//
//	begin key key-1 of 000102030405060708090a0b0c0d0e0f
//	01: f4n3 6ttx … 9gsp  7kq2
//	…
//	end
//
// Each line has its number, 25 bytes of the file in base 32 with the digits 0 to
// 9 and the letters but i, l, o and u, and four digits of the SHA-256 of all that
// with name and repository, so that a slip is found in its line. White space,
// hyphens and case mean nothing; o reads as 0, i and l as 1.
type PaperKey struct {
	Repository string
	Name       string
	File       []byte // the key file
}

const (
	paperBytes  = 25 // of the file, in a line
	checkDigits = 4  // at a line's end
	paperGroup  = 4  // digits between blanks

	maxPaperKeys = 1000
	maxPaperFile = 64 << 10
)

var paperDigits = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// PaperKeys returns the key files of a repository, whole ones alone; those of the
// given names if there are any. ErrNotFound when one is not among them.
func PaperKeys(fsys vfs.FS, names ...string) ([]PaperKey, error) {
	s, err := readSettings(fsys)
	if err != nil {
		return nil, err
	}
	there, err := keyNames(fsys)
	if err != nil {
		return nil, err
	}
	var keys []PaperKey
	for _, name := range there {
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		_, line, err := readKey(fsys, name)
		switch {
		case err == nil:
			keys = append(keys, PaperKey{s.ID, name, line})
		case len(names) > 0:
			return nil, fmt.Errorf("key %s: %w", name, err)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(keys, func(k PaperKey) bool { return k.Name == name }) {
			return nil, fmt.Errorf("key %q: %w", name, ErrNotFound)
		}
	}
	return keys, nil
}

// Text returns the lines to print.
func (k PaperKey) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "begin key %s of %s\n", k.Name, k.Repository)
	n := 0
	for piece := range slices.Chunk(k.File, paperBytes) {
		n++
		digits := paperDigits.EncodeToString(piece)
		fmt.Fprintf(&b, "%02d:", n)
		for group := range slices.Chunk([]byte(digits), paperGroup) {
			fmt.Fprintf(&b, " %s", group)
		}
		fmt.Fprintf(&b, "  %s\n", k.check(n, digits))
	}
	b.WriteString("end\n")
	return b.String()
}

// check returns the digits that end a line.
func (k PaperKey) check(n int, digits string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "holdfast paper\n%s\n%s\n%d\n%s\n", k.Repository, k.Name, n, digits))
	return paperDigits.EncodeToString(sum[:])[:checkDigits]
}

// ParsePaper finds the keys in a text that was typed in; what is not between
// begin and end is passed over. ErrPaper names every line that was not typed as
// it is printed.
func ParsePaper(text []byte) ([]PaperKey, error) {
	var keys []PaperKey
	var wrong []string
	var k *PaperKey
	n, bad := 0, 0
	finish := func() {
		if _, err := seal.ParseFile(k.File); err != nil && bad == 0 {
			wrong = append(wrong, fmt.Sprintf("key %s ends too early, at line %d", k.Name, n))
		}
		if bad > 0 && bad == n {
			wrong = append(wrong, fmt.Sprintf("if all of %s are wrong, so is its first line, %q", k.Name, "begin key …"))
		}
		keys, k = append(keys, *k), nil
	}
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		switch {
		case len(words) == 5 && strings.EqualFold(words[0], "begin") && strings.EqualFold(words[1], "key"):
			if k != nil {
				finish()
			}
			if len(keys) == maxPaperKeys {
				return nil, fmt.Errorf("%w: more than %d keys", ErrPaper, maxPaperKeys)
			}
			k, n, bad = &PaperKey{Repository: strings.ToLower(words[4]), Name: words[2]}, 0, 0
		case k == nil || len(words) == 0:
		case strings.EqualFold(words[0], "end"):
			finish()
		default:
			n++
			piece, ok := k.parseLine(n, strings.Join(words, ""))
			if !ok || len(k.File)+len(piece) > maxPaperFile {
				wrong, bad = append(wrong, fmt.Sprintf("line %d of key %s", n, k.Name)), bad+1
				if len(wrong) == maxPaperKeys {
					return nil, fmt.Errorf("%w: %s and more", ErrPaper, strings.Join(wrong, "; "))
				}
				continue
			}
			k.File = append(k.File, piece...)
		}
	}
	if k != nil {
		finish()
	}
	switch {
	case len(wrong) > 0:
		return nil, fmt.Errorf("%w: %s", ErrPaper, strings.Join(wrong, "; "))
	case len(keys) == 0:
		return nil, fmt.Errorf(`%w: no line says "begin key NAME of REPOSITORY"`, ErrPaper)
	}
	return keys, nil
}

// parseLine reads line n without its white space.
func (k *PaperKey) parseLine(n int, line string) ([]byte, bool) {
	number, digits, _ := strings.Cut(line, ":")
	if got, err := strconv.Atoi(number); err != nil || got != n {
		return nil, false
	}
	digits = strings.NewReplacer("-", "", "o", "0", "i", "1", "l", "1").Replace(strings.ToLower(digits))
	if len(digits) <= checkDigits {
		return nil, false
	}
	digits, check := digits[:len(digits)-checkDigits], digits[len(digits)-checkDigits:]
	piece, err := paperDigits.DecodeString(digits)
	return piece, err == nil && len(piece) <= paperBytes && k.check(n, digits) == check
}

// ImportKeys puts key files that were typed in back into a repository, for when
// keys/ is lost. It returns their names there. One that is there already is left
// alone; one whose name something else has, or had, gets a new name. ErrPaper
// when a key is another repository's. It waits for an owner as Own does, and
// needs no key.
func ImportKeys(ctx context.Context, fsys vfs.FS, keys []PaperKey, wait time.Duration) (names []string, err error) {
	if names, err = importKeys(ctx, fsys, keys, wait); err != nil {
		return names, fmt.Errorf("import keys: %w", readOnly(err))
	}
	return names, nil
}

func importKeys(ctx context.Context, fsys vfs.FS, keys []PaperKey, wait time.Duration) (names []string, err error) {
	s, err := readSettings(fsys)
	if err != nil {
		return nil, err
	}
	if !s.Sealed {
		return nil, ErrNotSealed
	}
	for _, k := range keys {
		if k.Repository != s.ID {
			return nil, fmt.Errorf("%w: key %s is of repository %s, this one is %s", ErrPaper, k.Name, k.Repository, s.ID)
		}
		if _, err := seal.ParseFile(k.File); err != nil {
			return nil, fmt.Errorf("key %s: %w", k.Name, err)
		}
	}
	lock, err := lockOwner(ctx, fsys, "import of keys", time.Now, wait)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, forgetHolder(fsys), lock.Unlock()) }()
	if err := fsys.Mkdir(keysDir); err == nil {
		err = fsys.SyncDir(".")
		if err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	for _, k := range keys {
		name, err := importKey(ctx, fsys, k)
		if err != nil {
			return names, err
		}
		names = append(names, name)
	}
	return names, nil
}

func importKey(ctx context.Context, fsys vfs.FS, k PaperKey) (string, error) {
	taken, err := keyNames(fsys)
	if err != nil {
		return "", err
	}
	for _, name := range taken {
		if _, line, err := readKey(fsys, name); err == nil && bytes.Equal(line, k.File) {
			return name, writeTwins(fsys, keysDir+"/"+name, line)
		}
	}
	// The owner removes what the ledger calls removed, and a ledger that can't be
	// read can't say so.
	said, _ := readKeyRecords(ctx, fsys)
	rec, known := said.keys[k.Name]
	name := k.Name
	if slices.Contains(taken, name) || known && (rec.Action == keyRemoved || rec.SHA256 != sum256(k.File)) || !keyFileName(name) {
		for n := range said.keys {
			taken = append(taken, n)
		}
		name = nextKeyName(taken)
	}
	return name, writeTwins(fsys, keysDir+"/"+name, k.File)
}

// keyFileName reports whether a key file may have this name.
func keyFileName(name string) bool {
	return name != "" && len(name) < 200 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && !strings.HasPrefix(name, signerPrefix)
}
