package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"holdfast/appliance/recovery"
	"holdfast/fs/content"
	"holdfast/nfs"
	"holdfast/repo"
	"holdfast/repo/vfs"
)

type serveOptions struct {
	repos    []string
	state    string
	redirect string
	listen   []string
	host     string
	portmap  string
	allow    []string
	exports  []string
	quota    sizeFlag
	cache    sizeFlag
	transfer sizeFlag
	sync     bool
	rebuild  bool
	trace    bool
}

// Ways to be found by clients that ask the port mapper.
const (
	portmapAuto     = "auto"
	portmapOwn      = "own"
	portmapRegister = "register"
	portmapNone     = "none"
)

const (
	nfsPort     = 2049
	portmapPort = 111

	datastorePath = "/datastore"
	contentPath   = "/content"
)

func newNFSServe(a *app) *cobra.Command {
	opt := serveOptions{cache: 512 << 20}
	cmd := &cobra.Command{
		Use:   "serve --repo DIR --redirect DIR --allow NETWORK",
		Short: "Serve published restore points until told to end",
		Long: `Serve a datastore over NFS version 3, until ctrl-C or SIGTERM. What is published
stays published: the next "serve" with the same --state and --redirect goes on with
the same file handles, and machines that run notice a pause. That holds for a crash
as well: what was acknowledged is there again.

--redirect is where the machines' writes go: give it a volume of its own, fast and
with room. --state has the records of what is published. Both belong together.

Clients in the networks of --allow, and no others, can use it, as anybody they
like: NFS knows no passwords and no encryption. Keep that network apart.

Hypervisors look for NFS by the port mapper, port 111. By default (--portmap auto)
this process is the port mapper, or registers with the rpcbind that runs.

With --export content the backups are there too, read-only, at /content: the disks
of every restore point as raw, VMDK, VHDX and qcow2, and the files in them.`,
		Example: `  holdfast nfs serve --repo /srv/backup --redirect /srv/redirect --allow 192.0.2.0/24
  holdfast nfs serve --repo /srv/backup --redirect /tmp/redirect --listen 127.0.0.1:12049 --portmap none`,
		Args: takes(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			outlivePipes()
			return a.nfsServe(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringArrayVar(&opt.repos, "repo", nil, "`DIR` of a repository; may be repeated")
	f.StringVar(&opt.redirect, "redirect", "", "`DIR` for what machines write")
	stateFlag(cmd, &opt.state)
	f.StringArrayVar(&opt.allow, "allow", nil, "`NETWORK` or address that may use it; may be repeated; default this machine")
	f.StringArrayVar(&opt.listen, "listen", nil, "`ADDRESS[:PORT]` to listen on; may be repeated; default all addresses, port 2049")
	f.StringVar(&opt.host, "host", "", "`NAME` or address by which clients reach this machine, for the lines that are printed")
	f.StringVar(&opt.portmap, "portmap", portmapAuto, "how clients find the port: auto, own, register or none")
	f.StringArrayVar(&opt.exports, "export", nil, "`WHAT` to export besides the datastore: content")
	f.Var(&opt.quota, "quota", "`SIZE` that each session may write; default what is free")
	f.Var(&opt.cache, "cache", "`SIZE` of memory for decompressed data")
	f.Var(&opt.transfer, "transfer", "`SIZE` of one READ or WRITE at most, 64K to 1M; default 1M")
	f.BoolVar(&opt.sync, "sync", false, "make each write durable before it is answered, for clients such as QEMU's that send nothing again")
	f.BoolVar(&opt.rebuild, "rebuild", false, "make a damaged root of the datastore anew out of its sessions; files beside them are lost")
	f.BoolVar(&opt.trace, "trace", false, "log a line for each request")
	return cmd
}

// nfsService is what serve runs.
type nfsService struct {
	app             *app
	opt             serveOptions
	log             *slog.Logger
	allow           []netip.Prefix
	dirs            []*vfs.Dir // closed at the end
	state, redirect *vfs.Dir
	frames          *repo.FrameCache // of all repositories, for the datastore and the content
	m               *recovery.Manager
	trees           []func() error // closed before the manager
	server          *nfs.Server
	info            recovery.Server
}

func (a *app) nfsServe(ctx context.Context, opt serveOptions) (err error) {
	s := &nfsService{app: a, opt: opt}
	if err := s.check(); err != nil {
		return err
	}
	// Ports first: that they are taken is told before anything is opened.
	ports, err := s.listen(ctx)
	if err != nil {
		return err
	}
	defer ports.close()
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		return err
	}
	control, err := recovery.Listen(s.state)
	if err != nil {
		return fmt.Errorf("make the control socket: %w", err)
	}
	return s.run(ctx, ports, control)
}

// check refuses what can't be served.
func (s *nfsService) check() (err error) {
	opt := &s.opt
	if s.log, err = s.app.logger(); err != nil {
		return err
	}
	switch {
	case len(opt.repos) == 0:
		return usagef("--repo is missing")
	case opt.redirect == "":
		return usagef("--redirect is missing")
	case !slices.Contains([]string{portmapAuto, portmapOwn, portmapRegister, portmapNone}, opt.portmap):
		return usagef("--portmap %s: want auto, own, register or none", opt.portmap)
	}
	for _, e := range opt.exports {
		if e != "content" {
			return usagef("--export %s: want content", e)
		}
	}
	if len(opt.allow) == 0 {
		opt.allow = []string{"127.0.0.0/8", "::1"}
	}
	for _, text := range opt.allow {
		p, err := parseNetwork(text)
		if err != nil {
			return err
		}
		s.allow = append(s.allow, p)
	}
	return nil
}

// parseNetwork reads a network or an address.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, usagef("--allow %s: want a network as 192.0.2.0/24, or an address", s)
	}
	return p.Masked(), nil
}

// open opens state, repositories and sessions, and makes the server.
func (s *nfsService) open(ctx context.Context) error {
	dir, err := nfsState(s.opt.state)
	if err != nil {
		return err
	}
	if s.state, err = s.directory(openPrivate(dir)); err != nil {
		return fmt.Errorf("open the state directory: %w", err)
	}
	s.redirect, err = s.directory(openPrivate(s.opt.redirect))
	if err != nil {
		return fmt.Errorf("open the redirect directory: %w", err)
	}
	s.frames = recovery.NewFrameCache(int64(s.opt.cache))
	opt := recovery.Options{State: s.state, Redirect: s.redirect, Frames: s.frames, QuotaBytes: int64(s.opt.quota), Rebuild: s.opt.rebuild, Actor: actor(), Log: s.log}
	for _, path := range s.opt.repos {
		r, err := s.repository(ctx, path)
		if err != nil {
			return err
		}
		opt.Repositories = append(opt.Repositories, r)
	}
	if s.m, err = recovery.Open(ctx, opt); err != nil {
		return err
	}
	exports, err := s.exports(ctx, opt.Repositories)
	if err != nil {
		return err
	}
	s.server, err = nfs.New(nfs.Options{Exports: exports, MaxTransfer: int(s.opt.transfer), Log: s.log})
	if err != nil {
		return err
	}
	s.server.SetTracing(s.opt.trace)
	return nil
}

func (s *nfsService) directory(d *vfs.Dir, err error) (*vfs.Dir, error) {
	if err == nil {
		s.dirs = append(s.dirs, d)
	}
	return d, err
}

// repository says how to open a repository, and looks whether its keys are right.
func (s *nfsService) repository(ctx context.Context, path string) (recovery.Repository, error) {
	r := recovery.Repository{Path: path}
	if abs, err := filepath.Abs(path); err == nil {
		r.Path = abs
	}
	d, err := s.directory(openDir(path))
	if err != nil {
		return r, err
	}
	r.FS = d
	keys, err := s.directory(openState())
	if err != nil {
		return r, err
	}
	_, err = withKeys(s.app, func(opt repo.Options) (struct{}, error) {
		opt.State, opt.Doing = keys, "keep of a recovered machine"
		opt.Frames = s.frames
		r.Options = opt
		open, err := repo.Open(ctx, d, opt)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, open.Close()
	})
	if err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// exports are what clients can mount.
func (s *nfsService) exports(ctx context.Context, repos []recovery.Repository) ([]nfs.Export, error) {
	keys, err := recovery.ExportKeys(s.redirect)
	if err != nil {
		return nil, err
	}
	list := []nfs.Export{{ID: 1, Path: datastorePath, Tree: s.m.Store(), Allow: s.allow, Key: keys.Datastore, Sync: s.opt.sync}}
	if !slices.Contains(s.opt.exports, "content") {
		return list, nil
	}
	for i, r := range repos {
		open, err := repo.Open(ctx, r.FS, r.Options)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Path, err)
		}
		t := content.New(open, content.Options{Guests: guests(s.log), Log: s.log})
		s.trees = append(s.trees, func() error { return errors.Join(t.Close(), open.Close()) })
		path := contentPath
		if len(repos) > 1 {
			path += "/" + filepath.Base(r.Path)
		}
		// The repository is in the export's id, so that handles never lead to
		// another one's files.
		id, key := keys.Content(open.Info().ID)
		list = append(list, nfs.Export{ID: id, Path: path, Tree: t, Allow: s.allow, ReadOnly: true, RootSquash: true, Key: key})
		if i == 0 {
			s.info.Content = contentPath
		}
	}
	return list, nil
}

// run serves until ctx ends or a listener fails.
func (s *nfsService) run(ctx context.Context, ports *nfsPorts, control net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	var failed error
	var once sync.Once
	fail := func(err error) {
		once.Do(func() { failed = err }) // which is looked at when all have ended
		cancel()
	}
	serve := func(fn func() error) {
		all.Go(func() {
			if err := fn(); err != nil && !errors.Is(err, nfs.ErrClosed) {
				fail(err)
			}
			cancel()
		})
	}
	s.describe(ports)
	for _, l := range ports.tcp {
		serve(func() error { return s.server.Serve(l) })
	}
	for _, p := range ports.udp {
		serve(func() error { return s.server.ServePacket(p) })
	}
	if err := ports.servePortmap(ctx, s.server, serve); err != nil {
		fail(err)
	}
	s.info.Portmap = ports.portmap
	serve(func() error { return s.m.Control(ctx, control, s.info) })
	if ctx.Err() == nil {
		s.announce()
	}
	<-ctx.Done()
	ports.unregister()
	err := s.server.Close()
	all.Wait()
	return errors.Join(failed, err)
}

// describe says how the server is reached.
func (s *nfsService) describe(ports *nfsPorts) {
	s.info.PID, s.info.Export, s.info.Host, s.info.Port = os.Getpid(), datastorePath, s.opt.host, ports.port
	for _, l := range ports.tcp {
		s.info.Listen = append(s.info.Listen, l.Addr().String())
	}
	for _, p := range s.allow {
		s.info.Allow = append(s.info.Allow, p.String())
	}
	if s.info.Host != "" {
		return
	}
	if addr, ok := ports.tcp[0].Addr().(*net.TCPAddr); ok && !addr.IP.IsUnspecified() {
		s.info.Host = addr.IP.String()
		if addr.IP.To4() == nil {
			s.info.Host = "[" + s.info.Host + "]"
		}
	} else if name, err := os.Hostname(); err == nil {
		s.info.Host = name
	}
}

type servingListing struct {
	Schema string `json:"schema"`
	recovery.Server
}

// announce tells whoever waits for it that clients can come.
func (s *nfsService) announce() {
	if s.app.json {
		s.app.printJSON(servingListing{"holdfast.nfs/1", s.info}) //nolint:errcheck // nobody reads it, and serving goes on
		return
	}
	s.app.say("Serving %s on %s to %s; ctrl-C ends it.", datastorePath, strings.Join(s.info.Listen, ", "), strings.Join(s.info.Allow, ", "))
	for _, l := range mountLines(s.info) {
		s.app.say("  %s", l)
	}
	if n := len(s.m.List()); n > 0 {
		s.app.say(`%d published before; "holdfast nfs list" shows them.`, n)
	}
}

// close ends everything in the order in which it hangs together.
func (s *nfsService) close() error {
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	for _, c := range s.trees {
		errs = append(errs, c())
	}
	if s.m != nil {
		began := time.Now()
		errs = append(errs, s.m.Close())
		s.log.Debug("sessions are closed", "dur", time.Since(began))
	}
	for _, d := range s.dirs {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}
