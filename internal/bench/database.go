//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
)

// A database page as SQLite lays one out: a header, an array of cell pointers
// that grows up, cells that grow down from the end, a gap between.
const pageBytes = 4096

var (
	firstNames = []string{"Ada", "Alan", "Barbara", "Kathleen", "Donald", "Edsger", "Frances", "Grace", "John", "Leslie", "Margaret", "Niklaus", "Radia", "Tony"}
	lastNames  = []string{"Allen", "Backus", "Dijkstra", "Hamilton", "Hoare", "Hopper", "Knuth", "Lamport", "Liskov", "Lovelace", "Perlman", "Shannon", "Turing", "Wirth"}
	cities     = []string{"Aachen", "Basel", "Cork", "Delft", "Espoo", "Fribourg", "Ghent", "Haarlem", "Innsbruck", "Jena"}
	states     = []string{"open", "paid", "shipped", "returned", "cancelled"}
)

// fillPage makes page n of a table of orders.
func fillPage(p []byte, n int64, r *rand.Rand) {
	clear(p)
	p[0] = 0x0d // a leaf of a table
	cells, at := 0, len(p)
	for {
		row := n*64 + int64(cells)
		body := fmt.Appendf(nil, "%s %s|%s %d|%s|2026-%02d-%02dT%02d:%02d:%02d|%d.%02d|",
			firstNames[r.IntN(len(firstNames))], lastNames[r.IntN(len(lastNames))], cities[r.IntN(len(cities))], 1000+r.IntN(9000), states[r.IntN(len(states))],
			1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(5000), r.IntN(100))
		body = binary.BigEndian.AppendUint64(body, r.Uint64()) // a key that doesn't compress
		cell := append(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(len(body))), uint64(row)), body...)
		if 8+2*(cells+1) > at-len(cell)-200 { // room for later rows
			break
		}
		at -= len(cell)
		copy(p[at:], cell)
		binary.BigEndian.PutUint16(p[8+2*cells:], uint16(at))
		cells++
	}
	binary.BigEndian.PutUint16(p[3:], uint16(cells))
	binary.BigEndian.PutUint16(p[5:], uint16(at))
}

// makeDatabase writes a file of such pages.
func makeDatabase(path string, sizeBytes int64, seed uint64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	r := rand.New(rand.NewPCG(seed, 3))
	p := make([]byte, pageBytes)
	for n := range sizeBytes / pageBytes {
		fillPage(p, n, r)
		if _, err := w.Write(p); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(w.Flush(), f.Close())
}

// writePages overwrites pages at random places and returns how many stretches
// of frameBytes that touched.
func writePages(path string, writes, frameBytes int, seed uint64) (frames int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	r := rand.New(rand.NewPCG(seed, 4))
	p := make([]byte, pageBytes)
	touched := make(map[int64]bool)
	for range writes {
		n := r.Int64N(info.Size() / pageBytes)
		touched[n*pageBytes/int64(frameBytes)] = true
		fillPage(p, n, r)
		if _, err := f.WriteAt(p, n*pageBytes); err != nil {
			return 0, errors.Join(err, f.Close())
		}
	}
	return int64(len(touched)), f.Close()
}
