package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
)

// TestPaper loses keys/ and types it in again, in somebody's own way of typing.
func TestPaper(t *testing.T) {
	ctx := t.Context()
	w := base(t, true)
	err := w.with(ctx, func(o *repo.Owner) error {
		_, err := o.AddKey(ctx, repo.KeyOptions{Passphrase: []byte(newPassphrase), WorkFactor: 4, Label: "zwei Wörter"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := repo.PaperKeys(w.disk)
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if one, err := repo.PaperKeys(w.disk, "key-2"); err != nil || len(one) != 1 || one[0].Name != "key-2" {
		t.Errorf("one key: %+v, %v", one, err)
	}
	_, err = repo.PaperKeys(w.disk, "key-3")
	is(t, "a key that is not there", err, repo.ErrNotFound)

	text := "On paper.\n\n" + keys[0].Text() + "\nand\n" + keys[1].Text() + "that is all\n"
	dropped := strings.NewReplacer("0", "O", "1", "I", " ", "").Replace
	var b strings.Builder
	for line := range strings.Lines(text) {
		if number, digits, ok := strings.Cut(line, ":"); ok && len(number) == 2 {
			line = "  " + number + ":" + strings.ToUpper(dropped(digits))
		}
		b.WriteString(line)
	}
	for _, text := range []string{text, b.String(), strings.ReplaceAll(text, "\n", "\r\n")} {
		got, err := repo.ParsePaper([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i].Repository != keys[i].Repository || got[i].Name != keys[i].Name || !bytes.Equal(got[i].File, keys[i].File) {
				t.Errorf("key %d: got %+v, want %+v", i, got[i], keys[i])
			}
		}
	}
	lose(t, w, "keys/key-1", "keys/key-1.twin", "keys/key-2", "keys/key-2.twin", "keys/signer-1.pub", "keys/signer-1.pub.twin", "keys")
	if _, err := w.opensWith(ctx, passphrase); err == nil {
		t.Error("opens without keys")
	}
	names, err := repo.ImportKeys(ctx, w.disk, keys, 0)
	if err != nil || strings.Join(names, " ") != "key-1 key-2" {
		t.Fatalf("imported %q, %v", names, err)
	}
	if names, err = repo.ImportKeys(ctx, w.disk, keys, 0); err != nil || strings.Join(names, " ") != "key-1 key-2" {
		t.Fatalf("imported again %q, %v", names, err)
	}
	wantKeys(t, w.disk, "key-1", "key-2")
	if err := errors.Join(w.ownedBy(ctx, w.state), sound(ctx, w.disk), repotest.Account(w.disk),
		repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model())); err != nil {
		t.Error(err)
	}
	// A key that was removed comes back under another name.
	err = w.with(ctx, func(o *repo.Owner) error { return o.RemoveKey(ctx, "key-2") })
	if err != nil {
		t.Fatal(err)
	}
	if names, err = repo.ImportKeys(ctx, w.disk, keys[1:], 0); err != nil || strings.Join(names, " ") != "key-3" {
		t.Fatalf("imported %q, %v", names, err)
	}
	if err := w.ownedBy(ctx, w.state); err != nil {
		t.Error(err)
	}
	wantKeys(t, w.disk, "key-1", "key-3")
	other := newWorld(true, 2)
	if err := other.init(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = repo.ImportKeys(ctx, other.disk, keys, 0)
	is(t, "another repository's", err, repo.ErrPaper)
}

func lose(t *testing.T, w *world, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := w.mem.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPaperSlips changes each character of a printed key, and drops and swaps
// lines. Each slip is found, and where.
func TestPaperSlips(t *testing.T) {
	keys, err := repo.PaperKeys(base(t, true).disk)
	if err != nil {
		t.Fatal(err)
	}
	text := keys[0].Text()
	lines := strings.SplitAfter(text, "\n")
	slip := func(what, typed, says string) {
		t.Helper()
		_, err := repo.ParsePaper([]byte(typed))
		if !errors.Is(err, repo.ErrPaper) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", what, err, says)
		}
	}
	for i, line := range lines[1 : len(lines)-2] {
		for at, c := range []byte(line) {
			if c == ' ' || c == '\n' {
				continue
			}
			wrong := []byte(line)
			wrong[at] = 'z'
			if c == 'z' {
				wrong[at] = 'y'
			}
			typed := strings.Join(lines[:i+1], "") + string(wrong) + strings.Join(lines[i+2:], "")
			slip(string(wrong), typed, fmt.Sprintf("line %d of key key-1", i+1))
		}
		slip("line left out", strings.Join(lines[:i+1], "")+strings.Join(lines[i+2:], ""), "key-1")
	}
	swapped := append([]string(nil), lines...)
	swapped[2], swapped[3] = swapped[3], swapped[2]
	slip("swapped", strings.Join(swapped, ""), "line 2 of key key-1; line 3 of key key-1")
	slip("half", strings.Join(lines[:5], ""), "ends too early, at line 4")
	slip("nothing", "", "begin key NAME")
	slip("another repository", strings.Replace(text, keys[0].Repository, strings.Repeat("0", 32), 1), "so is its first line")
}

func FuzzParsePaper(f *testing.F) {
	w := newWorld(true, 1)
	if err := w.init(context.Background()); err != nil {
		f.Fatal(err)
	}
	keys, err := repo.PaperKeys(w.disk)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(keys[0].Text()))
	f.Add([]byte("begin key a of b\n01: 0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := repo.ParsePaper(text)
		if err != nil {
			if !errors.Is(err, repo.ErrPaper) {
				t.Fatal(err)
			}
			return
		}
		for _, k := range keys {
			again, err := repo.ParsePaper([]byte(k.Text()))
			if err != nil || len(again) != 1 || !bytes.Equal(again[0].File, k.File) {
				t.Fatalf("%q, printed and typed in again: %v", k.Text(), err)
			}
		}
	})
}

// TestPaperPlain: a plain repository has nothing to print.
func TestPaperPlain(t *testing.T) {
	w := base(t, false)
	if keys, err := repo.PaperKeys(w.disk); err != nil || len(keys) > 0 {
		t.Errorf("%+v, %v", keys, err)
	}
	_, err := repo.ImportKeys(t.Context(), w.disk, nil, 0)
	is(t, "import", err, repo.ErrNotSealed)
}
