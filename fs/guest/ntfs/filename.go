package ntfs

import (
	"fmt"

	"holdfast/fs"
)

const (
	attribReadOnly = 0x1
	attribSystem   = 0x4
	attribDir      = 0x10       // as programs see it
	attribIndexed  = 0x10000000 // as $FILE_NAME has it
)

const spaceDOS = 2 // the namespace of names such as PROGRA~1

// fileName is a name of a file: an attribute of the file and a key of the
// directory. The sizes and times in it are hints, seldom up to date.
type fileName struct {
	parent ref
	space  byte
	utf16  []byte
}

// parseFileName. Source: Linux-NTFS documentation, "$FILE_NAME".
func parseFileName(b []byte) (fileName, error) {
	if len(b) < 66 || len(b) < 66+2*int(b[64]) {
		return fileName{}, fmt.Errorf("file name in %d bytes: %w", len(b), fs.ErrDamaged)
	}
	return fileName{
		parent: ref(le.Uint64(b)),
		space:  b[65],
		utf16:  b[66 : 66+2*int(b[64])],
	}, nil
}
