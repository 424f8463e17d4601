package nfstest

import (
	"encoding/binary"
	"errors"
)

// ErrReply is what a reply that isn't encoded as the protocol says gives.
var ErrReply = errors.New("nfstest: reply can't be decoded")

// Words encodes numbers, booleans, strings and opaque data one after another:
// uint32, uint64, bool, string and []byte (both with their length), Fixed.
func Words(values ...any) []byte {
	var b []byte
	for _, v := range values {
		switch v := v.(type) {
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(v))
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case bool:
			var n uint32
			if v {
				n = 1
			}
			b = binary.BigEndian.AppendUint32(b, n)
		case string:
			b = appendOpaque(b, []byte(v))
		case Handle:
			b = appendOpaque(b, []byte(v))
		case []byte:
			b = appendOpaque(b, v)
		case Fixed:
			b = append(b, v...)
			for len(b)%4 != 0 {
				b = append(b, 0)
			}
		case Raw:
			b = append(b, v...)
		default:
			panic("nfstest: can't encode this")
		}
	}
	return b
}

// Fixed is opaque data whose length the other side knows. Raw is encoded already.
type (
	Fixed []byte
	Raw   []byte
)

func appendOpaque(b, v []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
	b = append(b, v...)
	for n := len(v); n%4 != 0; n++ {
		b = append(b, 0)
	}
	return b
}

// Decoder decodes results. After the first that isn't there err is set.
type Decoder struct {
	B   []byte
	err error
}

// Err is ErrReply if something could not be decoded, or is left.
func (d *Decoder) Err() error {
	if d.err == nil && len(d.B) > 0 {
		return ErrReply
	}
	return d.err
}

func (d *Decoder) take(n int) []byte {
	if n < 0 || len(d.B) < n {
		d.err, d.B = ErrReply, nil
		return nil
	}
	v := d.B[:n:n]
	d.B = d.B[n:]
	return v
}

func (d *Decoder) Uint32() uint32 {
	if v := d.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (d *Decoder) Uint64() uint64 {
	if v := d.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (d *Decoder) Bool() bool {
	v := d.Uint32()
	if v > 1 {
		d.err = ErrReply
	}
	return v == 1
}

// Opaque decodes opaque data with its length. Its padding has to be zeros.
func (d *Decoder) Opaque() []byte {
	n := int(d.Uint32())
	v := d.take(n)
	for _, b := range d.take(-n & 3) {
		if b != 0 {
			d.err = ErrReply
		}
	}
	return v
}
