package redirect

import (
	"fmt"
	"io"
)

// Target is where a disk is migrated to: a file or device of the disk's size.
type Target interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// migration of one disk.
type migration struct{}

func (m *migration) stop(error) {}

func (d *Disk) mirror([]byte, int64) {}

// openTarget opens what the disk was switched to.
func (d *Disk) openTarget() error {
	if d.targetName == "" {
		return nil
	}
	if d.s.opt.OpenTarget == nil {
		return fmt.Errorf("disk %s was switched to %s, and nobody opens that", d.name, d.targetName)
	}
	var err error
	d.target, err = d.s.opt.OpenTarget(d.name, d.targetName)
	return err
}
