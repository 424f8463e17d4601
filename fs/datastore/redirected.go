package datastore

import (
	"context"
	"errors"
	"fmt"

	"holdfast/fs"
	"holdfast/image/redirect"
)

// Redirected makes a Disk of one of a redirect session. Its UsedBytes are those
// in the layer. What knows more, such as how to lend, embeds it.
func Redirected(s *redirect.Session, d *redirect.Disk) Disk { return redirected{s, d} }

type redirected struct {
	s *redirect.Session
	d *redirect.Disk
}

func (r redirected) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := r.d.ReadAt(p, off)
	return n, redirectError(err)
}

func (r redirected) WriteAt(_ context.Context, p []byte, off int64, durable bool) error {
	_, err := r.d.Write(p, off, durable)
	return redirectError(err)
}

func (r redirected) Commit(context.Context) error { return redirectError(r.d.Commit()) }
func (r redirected) Verifier() uint64             { return r.s.Verifier() }
func (r redirected) Size() int64                  { return r.d.Size() }
func (r redirected) UsedBytes() int64             { return r.d.UsedBytes() }

func (r redirected) NextData(off int64) (start, end int64, err error) {
	start, end, err = r.d.NextData(off)
	return start, end, redirectError(err)
}

// redirectErrors is the border where errors of a redirect layer become those of
// a tree. What is not in it stays as it is.
var redirectErrors = []struct{ from, to error }{
	{redirect.ErrNoSpace, fs.ErrNoSpace},
	{redirect.ErrReadOnly, fs.ErrReadOnly},
	{redirect.ErrDamaged, fs.ErrDamaged},
	{redirect.ErrClosed, fs.ErrRetry}, // it is being taken away
}

func redirectError(err error) error {
	for _, e := range redirectErrors {
		if errors.Is(err, e.from) && !errors.Is(err, e.to) {
			return fmt.Errorf("%w: %w", e.to, err)
		}
	}
	return err
}
