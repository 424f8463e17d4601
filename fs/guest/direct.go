package guest

import (
	"context"
	"fmt"
	"io"

	"holdfast/fs"
)

// Direct is a Reader that does its work in this process. Its zero value is ready.
type Direct struct{}

var _ Reader = Direct{}

func (Direct) Layout(ctx context.Context, d Disk) (Layout, error) {
	if err := ctx.Err(); err != nil {
		return Layout{}, err
	}
	l, err := layout(ctx, d)
	if err != nil {
		return Layout{}, fmt.Errorf("layout of a disk of %d bytes: %w", d.Size(), err)
	}
	return l, nil
}

func (Direct) Open(ctx context.Context, d Disk, v Volume) (fs.Tree, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := open(d, v)
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", v.Name, err)
	}
	return t, nil
}

func (Direct) Close() error { return nil }

func open(d Disk, v Volume) (fs.Tree, error) {
	if v.Off < 0 || v.Size < 0 || v.Off > d.Size() || v.Size > d.Size()-v.Off {
		return nil, fmt.Errorf("bytes %d to %d are not on a disk of %d: %w", v.Off, v.Off+v.Size, d.Size(), fs.ErrInvalid)
	}
	if v.Why != "" {
		return nil, fmt.Errorf("%s: %w", v.Why, fs.ErrUnsupported)
	}
	f, ok := formats[v.Format]
	if !ok || f.open == nil {
		return nil, fmt.Errorf("format %q: %w", v.Format, fs.ErrUnsupported)
	}
	return f.open(io.NewSectionReader(d, v.Off, v.Size), v.Size)
}
