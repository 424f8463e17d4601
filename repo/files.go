package repo

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
)

// A MachineFile is a small file that a machine has beside its disks: its
// configuration, its firmware's variables. It is kept in the point's manifest.
type MachineFile struct {
	Name string // obeys CheckName
	Data []byte
}

// FileInfo describes a machine's file in a listing.
type FileInfo struct {
	Name      string
	SizeBytes int64
}

// Limits of the files of one point.
const (
	MaxMachineFiles     = 64
	MaxMachineFileBytes = 1 << 20 // of all together
)

// manifestFile is a machine's file as the manifest has it.
type manifestFile struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"sizeBytes"`
	Deflate   []byte `json:"deflate"` // RFC 1951
}

// checkFiles refuses files that a point does not take.
func checkFiles(files []MachineFile) error {
	if len(files) > MaxMachineFiles {
		return fmt.Errorf("%w: %d of them, at most %d", ErrMachineFiles, len(files), MaxMachineFiles)
	}
	total := 0
	seen := make(map[string]bool)
	for _, f := range files {
		if err := CheckName("file", f.Name); err != nil {
			return err
		}
		if seen[f.Name] {
			return fmt.Errorf("%w: two are called %q", ErrMachineFiles, f.Name)
		}
		seen[f.Name] = true
		if total += len(f.Data); total > MaxMachineFileBytes {
			return fmt.Errorf("%w: with %q they have more than %d bytes", ErrMachineFiles, f.Name, MaxMachineFileBytes)
		}
	}
	return nil
}

// packFiles compresses files for a manifest.
func packFiles(files []MachineFile) ([]manifestFile, error) {
	var out []manifestFile
	for _, f := range files {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, flate.BestCompression)
		if err == nil {
			_, err = w.Write(f.Data)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("compress %s: %w", f.Name, err)
		}
		out = append(out, manifestFile{f.Name, int64(len(f.Data)), b.Bytes()})
	}
	return out, nil
}

// unpackFiles is the way back. Nothing that the bytes say makes it take more
// memory than a point may have files.
func unpackFiles(packed []manifestFile) ([]MachineFile, error) {
	var files []MachineFile
	room := int64(MaxMachineFileBytes)
	for _, f := range packed {
		if f.SizeBytes < 0 || f.SizeBytes > room {
			return nil, fmt.Errorf("%w: %.64q has %d bytes, at most %d are left", ErrMachineFiles, f.Name, f.SizeBytes, room)
		}
		data, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(f.Deflate)), f.SizeBytes+1))
		if err != nil || int64(len(data)) != f.SizeBytes {
			return nil, fmt.Errorf("%w: %.64q is not %d bytes as it says: %v", ErrMachineFiles, f.Name, f.SizeBytes, err)
		}
		room -= f.SizeBytes
		files = append(files, MachineFile{f.Name, data})
	}
	if err := checkFiles(files); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMachineFiles, err)
	}
	return files, nil
}

// fileInfos describes files for listings.
func fileInfos(packed []manifestFile) []FileInfo {
	var list []FileInfo
	for _, f := range packed {
		list = append(list, FileInfo{f.Name, f.SizeBytes})
	}
	return list
}

// light is the point without the bytes of its files, to be kept in memory.
func (p Point) light() Point {
	p.packed = nil
	return p
}

// Files returns the files that the machine had beside its disks, with their
// bytes. ErrMachineFiles when they are not as they were written.
func (r *Reader) Files() ([]MachineFile, error) {
	files, err := unpackFiles(r.point.packed)
	if err != nil {
		return nil, fmt.Errorf("point %s: %w", r.point.ID, err)
	}
	return files, nil
}
