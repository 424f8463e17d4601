package fs

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// streamPrefix begins the name of the attribute that stands for an alternate
// stream where there are only attributes.
const streamPrefix = "user.stream."

// Limits of Linux. Source: linux/limits.h, XATTR_SIZE_MAX and XATTR_NAME_MAX.
const (
	maxXattrBytes     = 64 << 10
	maxXattrNameBytes = 255
)

// ErrXattrBytes says that an attribute, or the stream that it stands for, is
// longer than Linux allows.
var ErrXattrBytes = errors.New("too long for an attribute")

// HasXattrs says whether inodes of t can have what XattrNames lists.
func HasXattrs(t Tree) bool {
	_, xattrs := t.(XattrTree)
	_, streams := t.(StreamTree)
	return xattrs || streams
}

// XattrNames lists the extended attributes of an inode as Linux can have them:
// those of an XattrTree, and as "user.stream.NAME" the alternate streams of a
// StreamTree. tooLong is the number of streams that are left out because they
// have more than 64 KiB, or names that no attribute can have.
func XattrNames(ctx context.Context, t Tree, id ID) (names []string, tooLong int, err error) {
	if x, ok := t.(XattrTree); ok {
		if names, err = x.Xattrs(ctx, id); err != nil {
			return nil, 0, err
		}
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !isXattrName(name) })
	}
	s, ok := t.(StreamTree)
	if !ok {
		return names, 0, nil
	}
	streams, err := s.Streams(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	for _, st := range streams {
		name := streamPrefix + st.Name
		switch {
		case st.Size > maxXattrBytes || !isXattrName(name):
			tooLong++
		case !slices.Contains(names, name):
			names = append(names, name)
		}
	}
	return names, tooLong, nil
}

func isXattrName(name string) bool {
	return name != "" && len(name) <= maxXattrNameBytes && !strings.Contains(name, "\x00")
}

// XattrValue returns the value of an attribute that XattrNames lists.
// ErrNoXattr; ErrXattrBytes for one of more than 64 KiB.
func XattrValue(ctx context.Context, t Tree, id ID, name string) ([]byte, error) {
	if x, ok := t.(XattrTree); ok {
		value, err := x.Xattr(ctx, id, name)
		if err == nil && len(value) > maxXattrBytes {
			return nil, ErrXattrBytes
		}
		if err == nil || !errors.Is(err, ErrNoXattr) {
			return value, err
		}
	}
	want, named := strings.CutPrefix(name, streamPrefix)
	s, ok := t.(StreamTree)
	if !ok || !named {
		return nil, ErrNoXattr
	}
	streams, err := s.Streams(ctx, id)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(streams, func(st Stream) bool { return st.Name == want })
	switch {
	case i < 0:
		return nil, ErrNoXattr
	case streams[i].Size > maxXattrBytes:
		return nil, ErrXattrBytes
	}
	value := make([]byte, streams[i].Size)
	if len(value) == 0 {
		return value, nil
	}
	if n, err := t.ReadAt(ctx, streams[i].ID, value, 0); n < len(value) {
		return nil, err
	}
	return value, nil
}
