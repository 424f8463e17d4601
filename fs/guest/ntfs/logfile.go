package ntfs

// readLog notes whether $LogFile tells of changes that had not arrived. It
// begins with two restart pages, the newer of which counts. Source: Linux-NTFS
// documentation, "$LogFile".
func (f *FS) readLog() {
	state, err := f.logState()
	if err != nil {
		f.note("The journal ($LogFile) can't be read: %v.", err)
	} else if state != "" {
		f.note("The journal ($LogFile) %s, and is not replayed: some of what was changed last may be missing or contradict itself.", state)
	}
}

// logState says what is wrong with the journal, if anything.
func (f *FS) logState() (string, error) {
	n, err := f.node(fileLog)
	if err != nil {
		return "", err
	}
	a := n.data()
	if a == nil || a.bytes() == 0 {
		return "", nil
	}
	var newest *restart
	pageBytes := int64(4096)
	for i := range int64(2) {
		if (i+1)*pageBytes > a.bytes() {
			break
		}
		page := make([]byte, pageBytes)
		if err := f.readPart(a, page, i*pageBytes); err != nil {
			return "", err
		}
		if string(page[:4]) == "CHKD" {
			return "", nil // chkdsk has dealt with it
		}
		r, ok := parseRestart(page)
		if !ok {
			continue
		}
		if pageBytes = r.pageBytes; newest == nil || r.lsn > newest.lsn {
			newest = r
		}
	}
	switch {
	case newest == nil && f.logEmpty(a):
		return "", nil
	case newest == nil:
		return "has no restart page", nil
	case newest.inUse && !newest.clean:
		return "was in use", nil
	}
	return "", nil
}

// logEmpty says whether the log was wiped, which leaves ones in every bit.
func (f *FS) logEmpty(a *attribute) bool {
	b := make([]byte, min(4096, a.bytes()))
	if f.readPart(a, b, 0) != nil {
		return false
	}
	for _, c := range b {
		if c != 0xff {
			return false
		}
	}
	return true
}

// restart is a restart page.
type restart struct {
	pageBytes    int64
	lsn          uint64
	inUse, clean bool
}

func parseRestart(page []byte) (*restart, bool) {
	size := le.Uint32(page[16:])
	if size < stride || size > maxSmall || size&(size-1) != 0 {
		return nil, false
	}
	// A larger page is only partly here; what counts is at its beginning.
	if int(size) == len(page) {
		if err := fixup(page, "RSTR"); err != nil {
			return nil, false
		}
	} else if string(page[:4]) != "RSTR" {
		return nil, false
	}
	at := int(le.Uint16(page[24:]))
	if at < 30 || at+16 > stride-2 {
		return nil, false
	}
	area := page[at:]
	return &restart{
		pageBytes: int64(size),
		lsn:       le.Uint64(area),
		inUse:     le.Uint16(area[12:]) != 0xffff,
		clean:     le.Uint16(area[14:])&2 != 0,
	}, true
}
