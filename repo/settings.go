package repo

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// FormatVersion is the version of the repository format that this program
// writes, and the newest it reads. See FORMAT.md, "Versions".
const FormatVersion = 1

// Settings are what a repository was made with and keeps for ever.
type Settings struct {
	ID          string // 32 hexadecimal digits
	Geometry    chunk.Geometry
	PackBytes   int // a pack is finished when its records reach this
	Parity      int // parity blocks per 100
	Compression seal.Compression
	Sealed      bool
	Created     time.Time
}

// Limits and defaults of settings; repo/FORMAT.md says why.
const (
	DefaultPackBytes = 32 << 20
	MinPackBytes     = 1 << 20
	MaxPackBytes     = 256 << 20
	DefaultParity    = 3
	MaxParity        = 20

	settingsFormat = "holdfast.repository"
)

// settingsFile is format.json.
type settingsFile struct {
	Format      string    `json:"format"`
	Version     int       `json:"version"`
	ID          string    `json:"id"`
	Digest      string    `json:"digest"`
	ChunkBytes  int       `json:"chunkBytes"`
	FrameBytes  int       `json:"frameBytes"`
	PackBytes   int       `json:"packBytes"`
	Parity      int       `json:"parity"`
	Compression string    `json:"compression"`
	Sealed      bool      `json:"sealed"`
	Created     time.Time `json:"created"`
}

func (s Settings) check() error {
	if err := s.Geometry.Check(); err != nil {
		return err
	}
	if s.PackBytes < MinPackBytes || s.PackBytes > MaxPackBytes {
		return fmt.Errorf("%w: packs of %d bytes, want %d to %d", ErrFormat, s.PackBytes, MinPackBytes, MaxPackBytes)
	}
	if s.Parity < 0 || s.Parity > MaxParity {
		return fmt.Errorf("%w: %d %% parity, want 0 to %d", ErrFormat, s.Parity, MaxParity)
	}
	_, err := seal.ParseCompression(string(s.Compression))
	return err
}

func (s Settings) encode() ([]byte, error) {
	line, err := json.Marshal(settingsFile{
		Format: settingsFormat, Version: FormatVersion, ID: s.ID, Digest: "sha256",
		ChunkBytes: s.Geometry.ChunkBytes, FrameBytes: s.Geometry.FrameBytes,
		PackBytes: s.PackBytes, Parity: s.Parity, Compression: string(s.Compression),
		Sealed: s.Sealed, Created: s.Created.UTC(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	return seal.AddCheck(line), nil
}

func decodeSettings(p []byte) (Settings, error) {
	var f settingsFile
	if err := json.Unmarshal(p, &f); err != nil || f.Format != settingsFormat {
		return Settings{}, fmt.Errorf("%w: %s is not the settings of a repository", ErrNotRepository, settingsName)
	}
	if f.Version > FormatVersion {
		return Settings{}, fmt.Errorf("%w: version %d, this program reads %d", ErrNewerFormat, f.Version, FormatVersion)
	}
	if _, err := seal.CutCheck(p); err != nil {
		return Settings{}, fmt.Errorf("%w: settings: %w", ErrFormat, err)
	}
	if raw, err := hex.DecodeString(f.ID); err != nil || hex.EncodeToString(raw) != f.ID || len(raw) != seal.RepositoryIDBytes ||
		f.Version < 1 || f.Digest != "sha256" {
		return Settings{}, fmt.Errorf("%w: settings of version %d, digest %.16q, id %.40q", ErrFormat, f.Version, f.Digest, f.ID)
	}
	s := Settings{
		ID: f.ID, Geometry: chunk.Geometry{ChunkBytes: f.ChunkBytes, FrameBytes: f.FrameBytes},
		PackBytes: f.PackBytes, Parity: f.Parity, Compression: seal.Compression(f.Compression),
		Sealed: f.Sealed, Created: f.Created,
	}
	if err := s.check(); err != nil {
		return Settings{}, fmt.Errorf("settings: %w", err)
	}
	return s, nil
}

// readSettings reads format.json or its twin. A higher version is refused
// before anything else is read.
func readSettings(fsys vfs.FS) (Settings, error) {
	var s Settings
	_, err := readTwins(fsys, settingsName, func(p []byte) (err error) {
		s, err = decodeSettings(p)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("%w: no %s", ErrNotRepository, settingsName)
	}
	return s, err
}
