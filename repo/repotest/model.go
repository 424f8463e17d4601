package repotest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"holdfast/repo"
)

// A Model is what a repository must hold: points in the order in which they
// were made. The zero value is an empty one. It is safe for concurrent use.
type Model struct {
	mu      sync.Mutex // guards both
	points  []Point
	expired []Point
}

// A Point is a restore point of a Model. Its disks are not written any more.
type Point struct {
	ID      repo.PointID
	Machine string
	Disks   []NamedDisk
}

// NamedDisk is one disk of a Point.
type NamedDisk struct {
	Name string
	Disk *Disk
}

// NewPoint copies disks into what will be a point, once it has an id.
func NewPoint(machine string, disks ...NamedDisk) Point {
	p := Point{Machine: machine, Disks: slices.Clone(disks)}
	for i := range p.Disks {
		p.Disks[i].Disk = p.Disks[i].Disk.Clone().settle()
	}
	return p
}

// Sources returns the point's disks to be backed up.
func (p Point) Sources() []repo.SourceDisk {
	var list []repo.SourceDisk
	for _, d := range p.Disks {
		list = append(list, repo.SourceDisk{Name: d.Name, Source: NewSource(d.Disk)})
	}
	return list
}

// WithID returns the point under its id.
func (p Point) WithID(id repo.PointID) Point {
	p.ID = id
	return p
}

// Add appends a finished point.
func (m *Model) Add(p Point) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.points = append(m.points, p)
}

// Points returns the points there are now.
func (m *Model) Points() []Point {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.points)
}

// Has reports whether a point is one now.
func (m *Model) Has(id repo.PointID) bool {
	return slices.ContainsFunc(m.Points(), func(p Point) bool { return p.ID == id })
}

// Expire takes a point away.
func (m *Model) Expire(id repo.PointID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	move(&m.points, &m.expired, id)
}

// Recall brings a point back that has expired.
func (m *Model) Recall(id repo.PointID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	move(&m.expired, &m.points, id)
}

// move takes a point from one list to its place in another. Ids sort by time.
func move(from, to *[]Point, id repo.PointID) {
	i := slices.IndexFunc(*from, func(p Point) bool { return p.ID == id })
	if i < 0 {
		return
	}
	p := (*from)[i]
	*from = slices.Delete(slices.Clone(*from), i, i+1)
	at, _ := slices.BinarySearchFunc(*to, p, func(a, b Point) int { return strings.Compare(string(a.ID), string(b.ID)) })
	*to = slices.Insert(slices.Clone(*to), at, p)
}

// Clone returns a model of its own with the same points.
func (m *Model) Clone() *Model {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Model{points: slices.Clone(m.points), expired: slices.Clone(m.expired)}
}

// Latest returns the machine's last point.
func (m *Model) Latest(machine string) (Point, bool) {
	for _, p := range slices.Backward(m.Points()) {
		if p.Machine == machine {
			return p, true
		}
	}
	return Point{}, false
}

// Rand is a stream of bytes that a seed decides, for Options.Rand. It is safe
// for concurrent use.
type Rand struct {
	mu  sync.Mutex // guards src
	src *rand.ChaCha8
}

// NewRand returns the stream of a seed.
func NewRand(seed uint64) *Rand {
	var key [32]byte
	copy(key[:], fmt.Sprint("holdfast ", seed))
	return &Rand{src: rand.NewChaCha8(key)}
}

// Read implements io.Reader and never fails.
func (r *Rand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.src.Read(p)
}

var _ io.Reader = (*Rand)(nil)
