package guest

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"holdfast/fs"
	"holdfast/image/part"
)

// wholeName is the name of a volume that is a whole disk.
const wholeName = "whole"

// maxVolumes is how many volumes are looked into. A GPT may have tens of
// thousands of entries; real disks have a few.
const maxVolumes = 256

// layout finds the volumes of d.
func layout(ctx context.Context, d Disk) (Layout, error) {
	size := d.Size()
	t, err := part.Read(d, size, part.Options{Known: func(off, size int64) bool { return known(d, off, size) }})
	if err != nil {
		return Layout{}, asFS(err)
	}
	l := Layout{Table: t.Kind, SectorBytes: t.SectorBytes, Notes: t.Notes}
	if t.Kind == "" {
		l.Table = "none"
		v := Volume{Name: wholeName, Size: size}
		_, err := v.probe(d)
		l.Volumes = []Volume{v}
		return l, err
	}
	for i, p := range t.Partitions {
		if err := ctx.Err(); err != nil {
			return Layout{}, err
		}
		v := Volume{
			Name: strconv.Itoa(p.Number), Off: p.Off, Size: p.Size,
			PartName: p.Name, PartType: p.Type, Why: p.Why,
		}
		switch {
		case p.Why != "":
		case i >= maxVolumes:
			v.Why = fmt.Sprintf("not looked at: there are more than %d partitions before it", maxVolumes)
		default:
			if err := l.look(d, &v); err != nil {
				return Layout{}, err
			}
		}
		l.Volumes = append(l.Volumes, v)
	}
	if len(t.Partitions) == 0 {
		l.Notes = append(l.Notes, "the partition table has no partitions")
	}
	return l, nil
}

// Types of partitions that are parts of Windows' dynamic disks.
const (
	mbrDynamic  = "0x42"
	gptDynamic  = "af9b60a0-1431-4f62-bc68-3311714a69ad"
	gptDatabase = "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"
)

// look finds out what a partition holds.
func (l *Layout) look(d Disk, v *Volume) error {
	got, err := v.probe(d)
	if err != nil {
		return err
	}
	switch v.PartType {
	case gptDatabase:
		v.Format, v.Why = "ldm", "database of a Windows dynamic disk (LDM), no files in it"
	case mbrDynamic, gptDynamic:
		// A volume may be in several pieces, on several disks. One that ends
		// within the partition where it begins is whole.
		if (got.format == "ntfs" || got.uuid != "" && formats[got.format].open != nil) && got.bytes > 0 && got.bytes <= v.Size {
			l.Notes = append(l.Notes, fmt.Sprintf("partition %s is a dynamic one of Windows (LDM): only the volume at its beginning is shown", v.Name))
			break
		}
		*v = Volume{Name: v.Name, Off: v.Off, Size: v.Size, Format: "ldm", PartName: v.PartName, PartType: v.PartType}
		v.Why = "Windows dynamic disk (LDM), not readable yet"
	default:
		if name := part.TypeName(v.PartType); name != "" && v.Format == "" {
			v.Why = fmt.Sprintf("%s (the partition is of type %s)", v.Why, name)
		}
	}
	return nil
}

// asFS turns an error about a partition table into one of package fs.
func asFS(err error) error {
	if errors.Is(err, part.ErrDamaged) && !errors.Is(err, fs.ErrDamaged) {
		return errors.Join(err, fs.ErrDamaged)
	}
	return err
}
