package guest

import (
	"fmt"
	"io"
)

// found is what the probe says of a volume.
type found struct {
	format, label, uuid string
	bytes               int64  // that the file system takes, as it says; 0: not known
	why                 string // why it can't be read, where that is not its format
}

// probe names what v holds and says whether we can read it.
func (v *Volume) probe(d io.ReaderAt) {
	got := probe(io.NewSectionReader(d, v.Off, v.Size), v.Size)
	v.Format, v.Label, v.UUID = got.format, got.label, got.uuid
	f, known := formats[got.format]
	switch {
	case got.why != "":
		v.Why = got.why
	case !known:
		v.Why = "nothing that we know begins here"
	case f.open == nil:
		v.Why = fmt.Sprintf("%s, not readable yet", f.title)
	}
}

// signatures are tried in this order; the first that fits wins.
var signatures = []func(w *window) (found, bool){
	extSuper,
	fatBoot,
}

// probe finds out what the size bytes of dev hold.
func probe(dev io.ReaderAt, size int64) found {
	w := &window{dev: dev, size: size}
	for _, is := range signatures {
		if f, ok := is(w); ok {
			return f
		}
	}
	return found{}
}
