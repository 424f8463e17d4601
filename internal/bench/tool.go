//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// diskName is what every disk image is called, in a directory of its own: tools
// that keep paths then see the same one each time.
const diskName = "disk.raw"

// A site is a directory with one repository of one tool and whatever the tool
// keeps beside it: caches, keys. A copy of a site is another site.
type site struct{ dir string }

func (s site) repo() string  { return filepath.Join(s.dir, "repo") }
func (s site) state() string { return filepath.Join(s.dir, "state") }
func (s site) pass() string  { return filepath.Join(s.dir, "pass") }

// A tool is a program that backs up, at one setting.
type tool interface {
	label() string
	peer() bool   // not ours
	sealed() bool // encrypts
	initialize(s site) command
	backup(s site, diskDir, point string) command
	// restored is the command that brings the last backup back, and where the
	// image then is.
	restore(s site, point, target string) (c command, restored string)
	// mount serves a point until it is unmounted; image is a pattern that the
	// image's path there matches. nil: this tool is read through the Go API.
	mount(s site, point, mountpoint string) (c *command, image string)
}

// tools at the settings that are compared.
func (b *runner) tools() {
	b.plain = &holdfast{bin: b.opt.bin, name: "holdfast zstd"}
	b.s2 = &holdfast{bin: b.opt.bin, name: "holdfast s2", init: []string{"--compression", "s2"}}
	b.secret = &holdfast{bin: b.opt.bin, name: "holdfast zstd, encrypted", seal: true}
	b.borg = &borg{name: "borg zstd,1", compression: "zstd,1"}
	b.borgLZ4 = &borg{name: "borg lz4", compression: "lz4"}
	b.borgSparse = &borg{name: "borg zstd,1, fixed 1M, --sparse", compression: "zstd,1", create: []string{"--chunker-params", "fixed,1048576", "--sparse"}}
	b.restic = &restic{}
	if _, err := exec.LookPath("kopia"); err == nil {
		b.kopia = &kopia{}
	}
}

// with returns the tools that are there.
func with(tools ...tool) (there []tool) {
	for _, t := range tools {
		if k, ok := t.(*kopia); ok && k == nil {
			continue
		}
		there = append(there, t)
	}
	return there
}

// A variant is a tool under another name: what it does differs.
type variant struct {
	tool
	name string
}

func (v variant) label() string { return v.name }

// newSite makes the directory of a new site.
func (b *runner) newSite() site {
	b.sites++
	return site{filepath.Join(b.opt.work, "sites", fmt.Sprintf("%03d", b.sites))}
}

// begin makes a new site with an empty repository.
func (b *runner) begin(ctx context.Context, t tool) (site, error) {
	s := b.newSite()
	return s, s.begin(ctx, t)
}

// begin makes the site's directories and an empty repository.
func (s site) begin(ctx context.Context, t tool) error {
	if err := s.makeDirs(); err != nil {
		return err
	}
	_, _, err := t.initialize(s).run(ctx)
	return err
}

func (s site) makeDirs() error {
	for _, dir := range []string{s.repo(), s.state()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return os.WriteFile(s.pass(), []byte("correct horse battery staple\n"), 0o600)
}

// copySite makes another site of the same content.
func (b *runner) copySite(ctx context.Context, s site) (site, error) {
	to := b.newSite()
	_, _, err := command{args: []string{"cp", "-a", "--reflink=auto", s.dir, to.dir}}.run(ctx)
	return to, err
}

// holdfast is ours.
type holdfast struct {
	bin, name string
	init      []string
	backupArg []string
	seal      bool
}

func (h *holdfast) label() string { return h.name }
func (h *holdfast) peer() bool    { return false }
func (h *holdfast) sealed() bool  { return h.seal }

func (h *holdfast) command(s site, args ...string) command {
	c := command{args: append([]string{h.bin, "repo"}, args...), env: []string{"HOLDFAST_STATE=" + s.state()}}
	if h.seal {
		c.env = append(c.env, "HOLDFAST_PASSPHRASE_FILE="+s.pass())
	}
	return c
}

func (h *holdfast) initialize(s site) command {
	args := append([]string{"init", s.repo()}, h.init...)
	if h.seal {
		args = append(args, "--encrypt")
	}
	return h.command(s, args...)
}

func (h *holdfast) backup(s site, diskDir, _ string) command {
	args := append([]string{"backup", s.repo(), "--machine", "bench", "--json"}, h.backupArg...)
	return h.command(s, append(args, filepath.Join(diskDir, diskName))...)
}

func (h *holdfast) restore(s site, _, target string) (command, string) {
	to := filepath.Join(target, diskName)
	return h.command(s, "restore", s.repo(), "bench@latest", "--to", to, "--json"), to
}

func (h *holdfast) mount(site, string, string) (*command, string) { return nil, "" }

// runReport is what we read of "holdfast repo backup --json".
type runReport struct {
	Point struct {
		ID       string
		Counters struct{ ReadBytes, NewBytes, PackBytes, ParityBytes, Chunks, Patches, Nodes int64 }
	}
	Disks []struct{ Mode, Reason string }
}

func parseRun(out []byte) (r runReport, err error) {
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("the output of holdfast repo backup --json: %w", err)
	}
	return r, nil
}
