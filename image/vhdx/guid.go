package vhdx

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is an identifier as it lies in the file: the first three of its five
// groups are little-endian numbers.
type GUID [16]byte

func (g GUID) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g[0:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:16])
}

// parseGUID reads a GUID as text, with or without braces.
func parseGUID(text string) (GUID, error) {
	plain := strings.TrimSuffix(strings.TrimPrefix(text, "{"), "}")
	b, err := hex.DecodeString(strings.ReplaceAll(plain, "-", ""))
	if err != nil || len(b) != 16 || len(plain) != 36 {
		return GUID{}, fmt.Errorf("%q is no GUID", text)
	}
	var g GUID
	le, be := binary.LittleEndian, binary.BigEndian
	le.PutUint32(g[0:], be.Uint32(b[0:]))
	le.PutUint16(g[4:], be.Uint16(b[4:]))
	le.PutUint16(g[6:], be.Uint16(b[6:]))
	copy(g[8:], b[8:])
	return g, nil
}

// known returns the GUID of a text that is part of this program.
func known(text string) GUID {
	g, err := parseGUID(text)
	if err != nil {
		panic(err)
	}
	return g
}
