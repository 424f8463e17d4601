//go:build linux

package main

import "path/filepath"

// borg at "-e none", with everything it keeps inside the site.
type borg struct {
	name        string
	compression string
	create      []string
}

func (g *borg) label() string { return g.name }
func (g *borg) peer() bool    { return true }
func (g *borg) sealed() bool  { return false }

func (g *borg) command(s site, args ...string) command {
	return command{args: append([]string{"borg"}, args...), env: []string{
		"BORG_BASE_DIR=" + s.state(),
		"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
		"BORG_RELOCATED_REPO_ACCESS_IS_OK=yes",
	}}
}

func (g *borg) initialize(s site) command { return g.command(s, "init", "-e", "none", s.repo()) }

func (g *borg) backup(s site, diskDir, point string) command {
	args := append([]string{"create", "--compression", g.compression}, g.create...)
	c := g.command(s, append(args, s.repo()+"::"+point, diskName)...)
	c.dir = diskDir
	return c
}

func (g *borg) restore(s site, point, target string) (command, string) {
	c := g.command(s, "extract", "--sparse", s.repo()+"::"+point)
	c.dir = target
	return c, filepath.Join(target, diskName)
}

func (g *borg) mount(s site, point, mountpoint string) (*command, string) {
	c := g.command(s, "mount", "-f", s.repo()+"::"+point, mountpoint)
	return &c, filepath.Join(mountpoint, diskName)
}

// restic at its default, which is compression "auto" and encryption.
type restic struct{}

func (*restic) label() string { return "restic auto, encrypted" }
func (*restic) peer() bool    { return true }
func (*restic) sealed() bool  { return true }

func (*restic) command(s site, args ...string) command {
	return command{args: append([]string{"restic", "-q", "-r", s.repo()}, args...), env: []string{
		"RESTIC_PASSWORD_FILE=" + s.pass(),
		"RESTIC_CACHE_DIR=" + s.state(),
	}}
}

func (r *restic) initialize(s site) command { return r.command(s, "init") }

func (r *restic) backup(s site, diskDir, point string) command {
	c := r.command(s, "backup", "--host", "bench", "--tag", point, diskName)
	c.dir = diskDir
	return c
}

func (r *restic) restore(s site, _, target string) (command, string) {
	return r.command(s, "restore", "latest", "--target", target), filepath.Join(target, diskName)
}

func (r *restic) mount(s site, _, mountpoint string) (*command, string) {
	c := r.command(s, "mount", mountpoint)
	return &c, filepath.Join(mountpoint, "snapshots", "latest", diskName)
}

// kopia at zstd-fastest; it encrypts.
type kopia struct{}

func (*kopia) label() string { return "kopia zstd-fastest, encrypted" }
func (*kopia) peer() bool    { return true }
func (*kopia) sealed() bool  { return true }

func (*kopia) env(s site) []string {
	return []string{
		"KOPIA_PASSWORD=correct horse battery staple",
		"KOPIA_CONFIG_PATH=" + filepath.Join(s.state(), "repository.config"),
		"KOPIA_CACHE_DIRECTORY=" + filepath.Join(s.state(), "cache"),
		"KOPIA_LOG_DIR=" + filepath.Join(s.state(), "log"),
		"KOPIA_CHECK_FOR_UPDATES=false",
	}
}

func (k *kopia) command(s site, args ...string) command {
	return command{args: append([]string{"kopia"}, args...), env: k.env(s)}
}

func (k *kopia) initialize(s site) command {
	return command{args: []string{"sh", "-c",
		`kopia repository create filesystem --path="$1" && kopia policy set --global --compression=zstd-fastest`, "sh", s.repo(),
	}, env: k.env(s)}
}

func (k *kopia) backup(s site, diskDir, _ string) command {
	return k.command(s, "snapshot", "create", "--no-progress", diskDir, "--override-source", "bench@bench:/bench")
}

func (k *kopia) restore(s site, _, target string) (command, string) {
	return k.command(s, "restore", "--no-progress", "bench@bench:/bench", target), filepath.Join(target, diskName)
}

func (k *kopia) mount(s site, _, mountpoint string) (*command, string) {
	c := k.command(s, "mount", "all", mountpoint)
	return &c, filepath.Join(mountpoint, "*", "*", "*", diskName)
}
