//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// figures are one row: what one contender took. Seconds and bytes; 0 is not
// measured.
type figures struct {
	Tool   string  `json:"tool"`
	Peer   bool    `json:"peer"`
	Sealed bool    `json:"sealed"`
	Wall   float64 `json:"wallSeconds"`
	CPU    float64 `json:"cpuSeconds"`
	RSS    int64   `json:"peakRssBytes"`
	Anon   int64   `json:"peakRssAnonBytes"`

	Stored int64 `json:"storedBytes"` // growth of the repository, parity included
	Parity int64 `json:"parityBytes"` // of which

	Work    int64   `json:"workBytes"`                  // what rates are counted over
	Read    int64   `json:"readBytes,omitempty"`        // from the source, by holdfast's count
	Mode    string  `json:"mode,omitempty"`             // how holdfast read the source
	Chunks  int64   `json:"chunks,omitempty"`           // stored
	Patches int64   `json:"patches,omitempty"`          // stored
	Nodes   int64   `json:"nodes,omitempty"`            // stored
	IOPS    float64 `json:"iops,omitempty"`             // of cold reads
	PerByte float64 `json:"bytesReadPerByte"`           // of storage, per byte asked
	Reads   int     `json:"reads,omitempty"`            // made in the time
	Latency float64 `json:"p99Seconds,omitempty"`       // of cold reads
	Depth   int     `json:"depth,omitempty"`            // reads in flight
	Random  int64   `json:"randomStored,omitempty"`     // stored for the random writes
	In      int64   `json:"inBytes,omitempty"`          // read by system calls, from the page cache too
	Out     int64   `json:"outBytes,omitempty"`         // written by system calls
	Storage int64   `json:"storageBytes,omitempty"`     // read from storage
	Moved   int64   `json:"movedBytes,omitempty"`       // that were stored already and were written again
	Freed   int64   `json:"freedBytes,omitempty"`       // that the repository has become smaller
	Durable float64 `json:"durableSeconds,omitempty"`   // until a point that goes is gone
	Packs   int64   `json:"packs,omitempty"`            // read from, or removed
	Open    float64 `json:"openSeconds,omitempty"`      // until the repository is open
	Listing float64 `json:"listSeconds,omitempty"`      // of all points, once it is
	Rate    float64 `json:"rate,omitempty"`             // of Unit, per second
	Unit    string  `json:"unit,omitempty"`             // of Rate
	Client  float64 `json:"clientCpuSeconds,omitempty"` // of who makes the load; CPU is then the server's
	Flushes int64   `json:"flushes,omitempty"`          // that the device was asked for
	Times   int     `json:"runs"`                       // of which this is the median
	WallMin float64 `json:"wallSecondsMin"`             // of these
	WallMax float64 `json:"wallSecondsMax"`             // of these
	Outside bool    `json:"outsideGoals,omitempty"`     // for information: goals leave it out
}

func (f figures) perCPU() float64  { return float64(f.Work) / (1 << 20) / f.CPU }
func (f figures) perWall() float64 { return float64(f.Work) / (1 << 20) / f.Wall }
func (f figures) bare() int64      { return f.Stored - f.Parity }

// median takes the median of each measured time and rate and the most memory;
// what is stored is the same each time but for a few bytes.
func median(runs []figures) figures {
	f := runs[len(runs)-1]
	of := func(get func(figures) float64) float64 {
		var v []float64
		for _, r := range runs {
			v = append(v, get(r))
		}
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	f.Wall, f.CPU = of(func(f figures) float64 { return f.Wall }), of(func(f figures) float64 { return f.CPU })
	f.IOPS, f.PerByte = of(func(f figures) float64 { return f.IOPS }), of(func(f figures) float64 { return f.PerByte })
	f.Rate, f.Client = of(func(f figures) float64 { return f.Rate }), of(func(f figures) float64 { return f.Client })
	f.Latency = of(func(f figures) float64 { return f.Latency })
	f.Durable, f.Open = of(func(f figures) float64 { return f.Durable }), of(func(f figures) float64 { return f.Open })
	f.Listing = of(func(f figures) float64 { return f.Listing })
	f.Times, f.WallMin, f.WallMax = len(runs), runs[0].Wall, runs[0].Wall
	for _, r := range runs {
		f.RSS, f.Anon = max(f.RSS, r.RSS), max(f.Anon, r.Anon)
		f.WallMin, f.WallMax = min(f.WallMin, r.Wall), max(f.WallMax, r.Wall)
	}
	return f
}

// A goal is one line of the design, with what came of it.
type goal struct {
	What    string `json:"what"`
	Want    string `json:"want"`
	Got     string `json:"got"`
	Reached bool   `json:"reached"`
}

// A result is one finished table.
type result struct {
	Name  string    `json:"name"`
	Title string    `json:"title"`
	Rows  []figures `json:"rows"`
	Goals []goal    `json:"goals"`
	Notes []string  `json:"notes"`
	Text  string    `json:"text,omitempty"` // for what is no table

	columns []column
}

// A column shows one figure of each row.
type column struct {
	head string
	show func(figures) string
}

var (
	colWall   = column{"wall s", func(f figures) string { return number(f.Wall) }}
	colCPU    = column{"CPU s", func(f figures) string { return number(f.CPU) }}
	colRate   = column{"MiB/s", func(f figures) string { return number(f.perWall()) }}
	colPerCPU = column{"MiB/CPU s", func(f figures) string { return number(f.perCPU()) }}
	colRSS    = column{"peak RSS", func(f figures) string { return size(f.RSS) }}
	colAnon   = column{"RssAnon", func(f figures) string { return size(f.Anon) }}
	colBare   = column{"stored", func(f figures) string { return size(f.bare()) }}
	colStored = column{"with parity", func(f figures) string { return size(f.Stored) }}
	colRatio  = column{"ratio", func(f figures) string { return number(float64(f.Work) / float64(f.bare())) }}
	colIn     = column{"reads", func(f figures) string { return size(f.In) }}
	colOut    = column{"writes", func(f figures) string { return size(f.Out) }}
	colRead   = column{"read", func(f figures) string { return size(f.Read) }}
)

func (r *result) hasPeer() bool {
	return slices.ContainsFunc(r.Rows, func(f figures) bool { return f.Peer })
}

// row returns the row of a tool; false when it did not run.
func (r *result) row(label string) (figures, bool) {
	i := slices.IndexFunc(r.Rows, func(f figures) bool { return f.Tool == label })
	if i < 0 {
		return figures{}, false
	}
	return r.Rows[i], true
}

// best returns the peer with the highest score among those that goals compare
// with ours: plain with plain, sealed with sealed.
func (r *result) best(sealed bool, score func(figures) float64) (best figures, found bool) {
	for _, f := range r.Rows {
		if f.Peer && !f.Outside && f.Sealed == sealed && (!found || score(f) > score(best)) {
			best, found = f, true
		}
	}
	return best, found
}

// atLeast adds a goal: got must be want or more.
func (r *result) atLeast(what string, got, want float64) {
	r.Goals = append(r.Goals, goal{what, "≥ " + number(want), number(got), got >= want})
}

// atMost adds a goal: got must be want or less.
func (r *result) atMost(what string, got, want float64) {
	r.Goals = append(r.Goals, goal{what, "≤ " + number(want), number(got), got <= want})
}

func (r *result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *result) print(out io.Writer) {
	fmt.Fprintf(out, "\n== %s: %s\n", r.Name, r.Title)
	if len(r.Rows) > 0 {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		heads := []string{""}
		for _, c := range r.columns {
			heads = append(heads, c.head)
		}
		fmt.Fprintln(w, strings.Join(heads, "\t")+"\t")
		width := 0
		for _, f := range r.Rows {
			width = max(width, len([]rune(f.Tool)))
		}
		for _, f := range r.Rows {
			cells := []string{fmt.Sprintf("%-*s", width, f.Tool)}
			for _, c := range r.columns {
				cells = append(cells, c.show(f))
			}
			fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
		}
		w.Flush()
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "  ·", n)
	}
	fmt.Fprint(out, r.Text)
	printGoals(out, r.Goals)
}

func printGoals(out io.Writer, goals []goal) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, g := range goals {
		verdict := "reached"
		if !g.Reached {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "  goal\t%s\t%s\t%s\t%s\n", g.What, g.Want, g.Got, verdict)
	}
	w.Flush()
}

// A report is the whole bench, as the JSON file has it.
type report struct {
	Schema  string    `json:"schema"`
	Machine machine   `json:"machine"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	Tables  []*result `json:"tables"`
}

func (r *report) save(path string, took time.Duration) error {
	r.Schema, r.Seconds = "holdfast.bench/1", took.Seconds()
	p, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(p, '\n'), 0o644)
}

func (r *report) summary(out io.Writer, took time.Duration, path string) {
	var reached, missed []goal
	for _, t := range r.Tables {
		for _, g := range t.Goals {
			g.What = t.Name + ": " + g.What
			if g.Reached {
				reached = append(reached, g)
			} else {
				missed = append(missed, g)
			}
		}
	}
	fmt.Fprintf(out, "\n%d goals reached, %d missed, in %s; all figures are in %s\n", len(reached), len(missed), took.Round(time.Second), path)
	printGoals(out, missed)
}

// A machine says where the figures come from.
type machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Memory   int64             `json:"memoryBytes"`
	Kernel   string            `json:"kernel"`
	FS       string            `json:"fileSystem"`
	Load     string            `json:"load"` // when the bench began
	Versions map[string]string `json:"versions"`
}

func (m machine) String() string {
	var v []string
	for name := range m.Versions {
		v = append(v, m.Versions[name])
	}
	slices.Sort(v)
	return fmt.Sprintf("%s, %d cores, %s memory, Linux %s, work directory on %s, load at the start %s; %s",
		m.CPU, m.Cores, size(m.Memory), m.Kernel, m.FS, m.Load, strings.Join(v, ", "))
}

func thisMachine(ctx context.Context, b *runner) machine {
	m := machine{CPU: "unknown CPU", Cores: runtime.NumCPU(), Versions: make(map[string]string)}
	if p, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := bytes.Cut(p, []byte("model name")); ok {
			line, _, _ := bytes.Cut(rest, []byte("\n"))
			m.CPU = strings.TrimLeft(string(line), " \t:")
		}
	}
	if p, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.Memory = statusBytes(append([]byte("\n"), p...), "MemTotal:")
	}
	if p, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(p), " ")
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	m.FS = "unknown"
	if out, err := exec.CommandContext(ctx, "stat", "-f", "-c", "%T", b.opt.work).Output(); err == nil {
		m.FS = strings.TrimSpace(string(out))
	}
	for name, args := range map[string][]string{
		"holdfast": {b.opt.bin, "version"}, "borg": {"borg", "--version"}, "restic": {"restic", "version"}, "kopia": {"kopia", "--version"},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output(); err == nil {
			line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
			if !strings.HasPrefix(line, name) {
				line = name + " " + line
			}
			m.Versions[name] = line
		}
	}
	return m
}

// number shows three digits or so.
func number(v float64) string {
	switch {
	case v != v || v > 1e15:
		return "–"
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// size shows bytes in binary units.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return number(v) + " " + units[i]
}
