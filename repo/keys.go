package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/repo/ledger"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// A sealed repository has one master key for ever, wrapped once in each key
// file. Changing who may open it is adding and removing key files; nothing else
// is written again. Order, so that an interruption leaves nothing to repair:
//
//	add     key file ─► ledger record     without a record: the next owner records it
//	remove  ledger record ─► key file     the file still there: the next owner removes it

// KeyOptions say what is to open a repository from now on: a passphrase or a
// recipient, one of them.
type KeyOptions struct {
	Passphrase []byte
	Recipient  string // "age1…", X25519
	Label      string // for people; empty means its kind
	WorkFactor int    // of scrypt; 0 means seal.DefaultWorkFactor
}

// AddKey wraps the master key once more, in a new key file. The owner must have
// been opened with a key. When it fails after the file was written, the key may
// have been added all the same.
func (o *Owner) AddKey(ctx context.Context, opt KeyOptions) (KeyInfo, error) {
	info, err := o.addKey(ctx, &opt, "")
	if err != nil {
		return info, fmt.Errorf("add key: %w", readOnly(err))
	}
	return info, nil
}

// RotateKey replaces a key file by a new one: that of the given name, or, if that
// is empty, the one that the owner was opened with. No data is written again:
// the master key stays, so what the old key file opened before, it still opens
// in older copies of the repository.
func (o *Owner) RotateKey(ctx context.Context, name string, opt KeyOptions) (added KeyInfo, removed string, err error) {
	if name == "" {
		name, err = o.openedBy()
	}
	if err == nil {
		added, err = o.addKey(ctx, &opt, name)
	}
	if err != nil {
		return added, name, fmt.Errorf("rotate key: %w", readOnly(err))
	}
	return added, name, nil
}

// openedBy names the key file that opens with what the owner was given.
func (o *Owner) openedBy() (string, error) {
	if !o.settings.Sealed {
		return "", ErrNotSealed
	}
	m, name, err := openMaster(o.fsys, o.opt.Passphrase, o.opt.Identities)
	clear(m[:])
	return name, err
}

// addKey adds a key file and, in the same ledger segment, removes the one that
// it replaces, if any.
func (o *Owner) addKey(ctx context.Context, opt *KeyOptions, replaces string) (KeyInfo, error) {
	f, line, err := o.wrapKey(opt)
	if err != nil {
		return KeyInfo{}, err
	}
	if err := ctx.Err(); err != nil {
		return KeyInfo{}, err
	}
	o.commit.Lock()
	defer o.commit.Unlock()
	var records []ledger.Record
	if replaces != "" {
		gone, err := o.removable(replaces)
		if err != nil {
			return KeyInfo{}, err
		}
		records = append(records, gone)
	}
	name, err := o.newKeyName()
	if err != nil {
		return KeyInfo{}, err
	}
	if err := writeTwins(o.fsys, keysDir+"/"+name, line); err != nil {
		return KeyInfo{}, errors.Join(err, removeTwins(o.fsys, keysDir+"/"+name))
	}
	added := &ledger.Key{Action: keyAdded, Name: name, Kind: string(f.Kind), SHA256: sum256(line)}
	if err := o.recordNow(append([]ledger.Record{added}, records...)...); err != nil {
		return KeyInfo{}, err
	}
	if replaces != "" {
		if err := removeTwins(o.fsys, keysDir+"/"+replaces); err != nil {
			return KeyInfo{}, fmt.Errorf("%s is added, but %s not yet removed: %w", name, replaces, err)
		}
	}
	return keyInfo(name, f, line, true), nil
}

// wrapKey makes a key file, and sees that the passphrase opens it.
func (o *Owner) wrapKey(opt *KeyOptions) (f seal.File, line []byte, err error) {
	if !o.settings.Sealed {
		return f, nil, ErrNotSealed
	}
	if (len(opt.Passphrase) > 0) == (opt.Recipient != "") {
		return f, nil, errors.New("want a passphrase or a recipient, and one of them")
	}
	m, _, err := openMaster(o.fsys, o.opt.Passphrase, o.opt.Identities)
	if err != nil {
		return f, nil, err
	}
	defer clear(m[:])
	if opt.Recipient != "" {
		f, err = seal.WrapRecipient(m, opt.Recipient)
	} else {
		f, err = seal.WrapPassphrase(m, opt.Passphrase, opt.WorkFactor)
	}
	if err != nil {
		return f, nil, err
	}
	f.Created = o.now().UTC().Truncate(time.Second)
	if f.Label = opt.Label; f.Label == "" {
		f.Label = string(f.Kind)
	}
	if line, err = f.Marshal(); err != nil || f.Kind == seal.Recipient {
		return f, line, err
	}
	back, err := seal.ParseFile(line)
	if err != nil {
		return f, nil, err
	}
	again, err := back.Unwrap(opt.Passphrase, nil)
	defer clear(again[:])
	if err == nil && again != m {
		err = seal.ErrFormat
	}
	if err != nil {
		return f, nil, fmt.Errorf("the new key file does not open: %w", err)
	}
	return f, line, nil
}

// RemoveKey removes a key file. It refuses the last one that is whole
// (ErrLastKey) and one that is locked (ErrKeyLocked). ErrNotFound when there is
// none of that name. Who has kept a copy of the file can still open the
// repository with it: the master key stays.
func (o *Owner) RemoveKey(ctx context.Context, name string) error {
	if err := o.removeKey(ctx, name); err != nil {
		return fmt.Errorf("remove key: %w", readOnly(err))
	}
	return nil
}

func (o *Owner) removeKey(ctx context.Context, name string) error {
	if !o.settings.Sealed {
		return ErrNotSealed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o.commit.Lock()
	defer o.commit.Unlock()
	gone, err := o.removable(name)
	if err != nil {
		return err
	}
	if others, err := o.wholeKeys(name); err != nil || others == 0 {
		return errors.Join(fmt.Errorf("%s: %w", name, ErrLastKey), err)
	}
	if err := o.recordNow(gone); err != nil {
		return err
	}
	return removeTwins(o.fsys, keysDir+"/"+name)
}

// removable returns the record of a key file's removal if nothing but the others
// stands against it.
func (o *Owner) removable(name string) (*ledger.Key, error) {
	names, err := keyNames(o.fsys)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("key %q: %w", name, ErrNotFound)
	}
	path := keysDir + "/" + name
	f, line, err := readKey(o.fsys, name)
	if err != nil { // damaged: whatever is there goes
		line, _ = readTwins(o.fsys, path, func([]byte) error { return nil })
	}
	locked, err := lockedTwins(o.fsys, path)
	if err != nil {
		return nil, err
	}
	if locked {
		return nil, fmt.Errorf("%s: %w", path, ErrKeyLocked)
	}
	return &ledger.Key{Action: keyRemoved, Name: name, Kind: string(f.Kind), SHA256: sum256(line)}, nil
}

// wholeKeys counts the key files but one that are not damaged.
func (o *Owner) wholeKeys(but string) (n int, err error) {
	names, err := keyNames(o.fsys)
	for _, name := range names {
		if _, _, kerr := readKey(o.fsys, name); kerr == nil && name != but {
			n++
		}
	}
	return n, err
}

const (
	keyAdded   = "add"
	keyRemoved = "remove"
)

// newKeyName returns a name that no key file has or had.
func (o *Owner) newKeyName() (string, error) {
	names, err := keyNames(o.fsys)
	if err != nil {
		return "", err
	}
	for _, k := range o.state.Keys() {
		names = append(names, k.Name)
	}
	return nextKeyName(names), nil
}

func nextKeyName(names []string) string {
	last := 0
	for _, name := range names {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, keyPrefix)); err == nil && strings.HasPrefix(name, keyPrefix) {
			last = max(last, n)
		}
	}
	return keyPrefix + strconv.Itoa(last+1)
}

const keyPrefix = "key-"

// settleKeys ends what an interruption left of a change of keys: a file without a
// record waits for the next segment, and one that is recorded as removed goes.
func (o *Owner) settleKeys() error {
	names, err := keyNames(o.fsys)
	if err != nil {
		return err
	}
	recorded := make(map[string]ledger.Key)
	for _, k := range o.state.Keys() {
		recorded[k.Name] = k
	}
	for _, name := range names {
		f, line, err := readKey(o.fsys, name)
		if err != nil {
			o.log.Error("key file can't be read", "err", err)
			continue
		}
		rec, known := recorded[name]
		same := rec.SHA256 == sum256(line)
		switch {
		case !known:
			o.log.Warn("key file is not in the ledger; the next segment will record it", "key", name)
			o.voids = append(o.voids, &ledger.Key{Action: keyAdded, Name: name, Kind: string(f.Kind), SHA256: sum256(line)})
		case !same:
			o.log.Error("key file is not the one that the ledger records", "key", name)
		case rec.Action == keyRemoved:
			if err := removeTwins(o.fsys, keysDir+"/"+name); err != nil {
				o.log.Error("key file that was removed is still there", "key", name, "err", err)
			}
		}
	}
	return nil
}

// removeTwins removes a file and its twin, whichever are there.
func removeTwins(fsys vfs.FS, name string) error {
	var errs []error
	for _, n := range []string{name, name + twinSuffix} {
		if err := fsys.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	dir, _, _ := strings.Cut(name, "/")
	return errors.Join(append(errs, fsys.SyncDir(dir))...)
}
