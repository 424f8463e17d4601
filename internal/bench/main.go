//go:build linux

// Bench measures holdfast and its peers, borg, restic and, where it is
// installed, kopia, on the same disks in one go, and prints tables with the
// goals of the design beside what was reached. "make bench" runs it. Peers over
// NFS are nfs-ganesha and go-nfs, all servers in a network of their own.
//
// Disks are made from files of the machine, chosen by a seed, and kept in the
// work directory for the next time, and so are stores with a long history. Every run is a whole process: wall time,
// CPU seconds of it and its children, peak memory. Contenders take turns, so
// that a slow minute of the machine hits all of them; what is printed is the
// median. Before each run the source is read once, so that all find it in the
// page cache, and what was written before is synced.
//
// A missed goal is printed, not failed. The bench fails when something could
// not be run, came back different from what was backed up, or had no peer to be
// compared with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"holdfast/fs/guest/child"
)

// options are the flags.
type options struct {
	bin   string
	work  string
	from  string
	run   string
	seed  uint64
	times int
	limit time.Duration

	dense, db         int64
	sparse            int64
	huge, small       int64
	changed           int64
	writes            int
	readTime          time.Duration
	history           int64
	chunks, points    int
	many              int
	goBenchTime, pkgs string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == child.Verb {
		os.Exit(child.Main())
	}
	if job := os.Getenv(childEnv); job != "" {
		if err := runChild(job); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", job+":", err)
			os.Exit(1)
		}
		return
	}
	opt, err := parseOptions()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, opt); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions() (options, error) {
	var opt options
	sizeFlag := func(p *int64, name, value, usage string) {
		if err := parseSize(p, value); err != nil {
			panic(err)
		}
		flag.Func(name, usage+" (default "+value+")", func(s string) error { return parseSize(p, s) })
	}
	flag.StringVar(&opt.bin, "bin", "bin/holdfast", "the holdfast to measure")
	flag.StringVar(&opt.work, "work", "var/bench", "work directory")
	flag.StringVar(&opt.from, "from", "", "directories whose files fill the disks, by comma (default the Go tree, /usr/lib, /usr/share, /usr/bin)")
	flag.StringVar(&opt.run, "run", ".", "tables to make, a regular expression over "+strings.Join(tableNames(), ", ")+"; the last ones only when they are asked for")
	flag.Uint64Var(&opt.seed, "seed", 1, "chooses files, changes and offsets")
	flag.IntVar(&opt.times, "times", 3, "runs of each contender, of which the median counts")
	flag.DurationVar(&opt.limit, "limit", 40*time.Minute, "longest time for everything; from half of it on, contenders run once")
	sizeFlag(&opt.dense, "dense", "2G", "real files on the dense disk and the sparse ones")
	sizeFlag(&opt.sparse, "sparse", "64G", "size of the sparse disk")
	sizeFlag(&opt.huge, "huge", "4T", "size of the disk that memory and change lists are tried on")
	sizeFlag(&opt.small, "small", "8G", "size of the disk that the huge one is compared with")
	sizeFlag(&opt.changed, "changed", "1G", "bytes changed on those two")
	sizeFlag(&opt.db, "db", "1G", "size of the database disk")
	flag.IntVar(&opt.writes, "writes", 2000, "random 4 KiB writes to the database disk")
	sizeFlag(&opt.history, "history", "192M", "size of the disk with many points, tables merge, synthesize and copy")
	flag.IntVar(&opt.chunks, "chunks", 1_000_000, "chunks of the synthetic store, table sweep; 10000000 take some ten minutes to make")
	flag.IntVar(&opt.points, "points", 10_000, "points of the table list")
	flag.IntVar(&opt.many, "files", 1_000_000, "files of the table tree")
	flag.DurationVar(&opt.readTime, "readtime", 10*time.Second, "longest time of one run of cold reads")
	flag.StringVar(&opt.goBenchTime, "benchtime", "200ms", "of the Go benchmarks, table micro")
	flag.StringVar(&opt.pkgs, "packages", "./repo/... ./image/...", "with Go benchmarks, table micro")
	flag.Parse()
	if flag.NArg() > 0 {
		return opt, fmt.Errorf("what is %q?", flag.Arg(0))
	}
	if opt.times < 1 {
		return opt, errors.New("-times: want at least 1")
	}
	var err error
	if opt.bin, err = filepath.Abs(opt.bin); err != nil {
		return opt, err
	}
	if opt.work, err = filepath.Abs(opt.work); err != nil {
		return opt, err
	}
	_, err = regexp.Compile(opt.run)
	return opt, err
}

// parseSize reads a number of bytes, with K, M, G or T for the binary units.
func parseSize(p *int64, s string) error {
	number := strings.TrimRight(s, "KMGTiB")
	n, err := strconv.ParseFloat(number, 64)
	shift := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
	bits, known := shift[strings.TrimSuffix(strings.TrimSuffix(s[len(number):], "B"), "i")]
	if err != nil || !known || n <= 0 {
		return fmt.Errorf("size %q: want a number, with K, M, G or T", s)
	}
	*p = int64(n * float64(int64(1)<<bits))
	return nil
}
