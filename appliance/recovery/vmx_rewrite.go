package recovery

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// machineConfig is what a published machine's configuration has to say, however
// the original looked.
type machineConfig struct {
	name    string       // shown, and of the directory
	disks   []configDisk // in the order of the point
	nvram   string       // name of the file beside it, "" for none
	efi     bool         // for a machine without configuration
	newUUID bool
	offline bool   // network adapters are not connected when it starts
	swapDir string // on the hypervisor; "": beside the configuration
}

// configDisk is a disk of the point and what it is called in the session.
type configDisk struct {
	name       string // in the restore point
	source     string // where it was read
	descriptor string // file name in the session
}

var errEncrypted = errors.New("the configuration is encrypted")

// rewriteVMX makes of a machine's configuration one that runs it from the
// session: every disk is one of the session's, and nothing names a file that is
// not there. What could not be kept is told.
func rewriteVMX(p []byte, want machineConfig) (c *vmx, warnings []string, err error) {
	if c, err = parseVMX(p); err != nil {
		return nil, nil, err
	}
	for _, key := range c.keys() {
		if strings.HasPrefix(key, "encryption.") {
			return nil, nil, fmt.Errorf("%w: %w", ErrConfiguration, errEncrypted)
		}
	}
	c.remove(stale)
	r := rewriter{vmx: c, want: want}
	r.disks()
	r.removables()
	r.paths()
	r.identity()
	return c, r.warnings, nil
}

// staleKeys are settings that belong to where and how the machine ran: swap and
// suspend files, change tracking, snapshots, logs, migrations under way.
var staleKeys = regexp.MustCompile(`^(sched\.swap\..*|ctkenabled|.*:\d+\.(ctkenabled|redo|parentfilename|digestfilename|filters|iofilters)` +
	`|(scsi|sata|ide|nvme)\d+:\d+\.(shares.*digest)|workingdir|uuid\.location|extendedconfigfile|vmxstats\.filename|checkpoint\..*` +
	`|snapshot\..*|log\.filename|log\.directory|vmx\.log\..*|migrate\..*|vmotion\..*|suspend\.directory|filesearchpath|cleanshutdown` +
	`|softpoweroff|replay\..*|sharedfolder.*|hpet0?\.swap.*|mainmem\.backing|nvram|uuid\.action|displayname)$`)

func stale(key, _ string) bool { return staleKeys.MatchString(key) }

type rewriter struct {
	*vmx
	want     machineConfig
	warnings []string
}

func (r *rewriter) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

// device is where something is attached: "scsi0:1".
type device struct {
	bus        string
	controller int
	unit       int
}

func (d device) String() string { return fmt.Sprintf("%s%d:%d", d.bus, d.controller, d.unit) }

func compareDevices(a, b device) int {
	order := func(bus string) int { return slices.Index([]string{"scsi", "nvme", "sata", "ide"}, bus) }
	return cmp.Or(cmp.Compare(order(a.bus), order(b.bus)), cmp.Compare(a.controller, b.controller), cmp.Compare(a.unit, b.unit))
}

var deviceKey = regexp.MustCompile(`^(scsi|nvme|sata|ide)(\d{1,3}):(\d{1,3})\.`)

// devices lists what is attached and present, in the order of controllers.
func (c *vmx) devices() []device {
	found := make(map[device]bool)
	for _, key := range c.keys() {
		if m := deviceKey.FindStringSubmatch(key); m != nil {
			n, _ := strconv.Atoi(m[2])
			unit, _ := strconv.Atoi(m[3])
			found[device{m[1], n, unit}] = true
		}
	}
	list := slices.SortedFunc(maps.Keys(found), compareDevices)
	return slices.DeleteFunc(list, func(d device) bool { return !c.is(d.String() + ".present") })
}

// isDisk says whether a device is a disk with a file.
func (c *vmx) isDisk(d device) bool {
	kind := strings.ToLower(c.get(d.String() + ".deviceType"))
	file := strings.ToLower(c.get(d.String() + ".fileName"))
	return !strings.Contains(kind, "cdrom") && strings.HasSuffix(file, ".vmdk")
}

// disks gives each disk of the configuration the file of the session's disk that
// it is. One that is not in the restore point is taken away; one of the point
// that the configuration doesn't know is attached where there is room.
func (r *rewriter) disks() {
	var known []device
	for _, d := range r.devices() {
		if r.isDisk(d) {
			known = append(known, d)
		}
	}
	var files []string
	for _, d := range known {
		files = append(files, r.get(d.String()+".fileName"))
	}
	of := matchDisks(files, r.want.disks)
	used := make(map[int]bool)
	for i, d := range known {
		if of[i] < 0 {
			r.warn("%s (%s) is not in the restore point; the machine runs without it", d, path.Base(files[i]))
			r.detach(d)
			continue
		}
		used[of[i]] = true
		r.set(d.String()+".fileName", r.want.disks[of[i]].descriptor)
		if kind := strings.ToLower(r.get(d.String() + ".deviceType")); strings.Contains(kind, "rdm") || strings.Contains(kind, "passthru") {
			r.set(d.String()+".deviceType", diskTypes[d.bus])
		}
	}
	for i, disk := range r.want.disks {
		if used[i] {
			continue
		}
		d := r.free()
		r.attach(d, disk.descriptor)
		r.warn("the configuration does not know disk %s; it is attached as %s", disk.name, d)
	}
}

// detach removes all settings of a device.
func (r *rewriter) detach(d device) {
	prefix := d.String() + "."
	r.remove(func(key, _ string) bool { return strings.HasPrefix(key, prefix) })
}

func (c *vmx) attach(d device, file string) {
	c.set(fmt.Sprintf("%s%d.present", d.bus, d.controller), "TRUE")
	c.set(d.String()+".deviceType", diskTypes[d.bus])
	c.set(d.String()+".fileName", file)
	c.set(d.String()+".present", "TRUE")
}

// diskTypes are what a disk is called on each kind of controller.
var diskTypes = map[string]string{"scsi": "scsi-hardDisk", "nvme": "disk", "sata": "disk", "ide": "ata-hardDisk"}

// units is how many devices fit on a controller; the adapter itself takes unit 7
// of SCSI.
var units = map[string]int{"scsi": 16, "nvme": 15, "sata": 30, "ide": 2}

// free returns a place for another disk: on a controller that has disks, or else
// on a new one of a kind that every system has a driver for.
func (c *vmx) free() device {
	taken := make(map[device]bool)
	var last *device
	for _, d := range c.devices() {
		taken[d] = true
		if d.bus != "ide" && c.isDisk(d) {
			last = &d
		}
	}
	next := device{bus: "sata"}
	if last != nil {
		next = device{last.bus, last.controller, 0}
	}
	for taken[next] || next.bus == "scsi" && next.unit == 7 {
		if next.unit++; next.unit == units[next.bus] {
			next = device{next.bus, next.controller + 1, 0}
		}
	}
	return next
}

// removables takes media out of drives and ports that have files of the old
// place.
func (r *rewriter) removables() {
	for _, d := range r.devices() {
		if !strings.Contains(strings.ToLower(r.get(d.String()+".deviceType")), "cdrom") {
			continue
		}
		r.set(d.String()+".deviceType", "atapi-cdrom")
		r.set(d.String()+".clientDevice", "TRUE")
		r.set(d.String()+".fileName", "emptyBackingString")
		r.set(d.String()+".startConnected", "FALSE")
	}
	for _, key := range r.keys() {
		port, isFile := strings.CutSuffix(key, ".filename")
		if !isFile || !portKey.MatchString(port) {
			continue
		}
		r.set(port+".present", "FALSE")
		r.remove(func(k, _ string) bool { return k == key })
		r.warn("%s is taken away: its file is not here", port)
	}
	if r.want.offline {
		for _, key := range r.keys() {
			if card, ok := strings.CutSuffix(key, ".present"); ok && cardKey.MatchString(card) {
				r.set(card+".startConnected", "FALSE")
			}
		}
	}
}

var (
	portKey = regexp.MustCompile(`^(floppy|serial|parallel)\d+$`)
	cardKey = regexp.MustCompile(`^ethernet\d+$`)
	absPath = regexp.MustCompile(`^(/|[A-Za-z]:[\\/]|\\\\|\[[^\]]+\] |ds:/)`)
)

// paths removes whatever else names a place of the old host.
func (r *rewriter) paths() {
	r.remove(func(key, value string) bool {
		if !absPath.MatchString(value) || strings.HasPrefix(key, "guestinfo.") || key == "annotation" {
			return false
		}
		r.warn("%s is left out: %s is not here", key, value)
		return true
	})
}

// identity says who the machine is here.
func (r *rewriter) identity() {
	r.set("displayName", r.want.name)
	r.set("uuid.action", "keep")
	if r.want.newUUID {
		r.set("uuid.action", "create")
		r.remove(func(key, _ string) bool { return key == "vc.uuid" })
	}
	if r.want.nvram != "" {
		r.set("nvram", r.want.nvram)
	}
	if r.want.swapDir != "" {
		r.set("sched.swap.dir", r.want.swapDir)
	}
}

// deltaName is what a snapshot puts behind the name of a disk.
var deltaName = regexp.MustCompile(`-\d{6}$`)

// stem is what is the same in all names of one disk.
func stem(file string) string {
	file = strings.ToLower(path.Base(strings.ReplaceAll(file, `\`, "/")))
	for _, ext := range []string{".vmdk", ".raw", ".img", ".qcow2", ".vhdx", ".vhd"} {
		file = strings.TrimSuffix(file, ext)
	}
	file = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(file, "-flat"), "-delta"), "-sesparse")
	return deltaName.ReplaceAllString(file, "")
}

// matchDisks finds for each file name of a configuration the disk it is, -1 for
// none: by where the disk was read, then by its name, and where neither fits any
// and there are as many of both, in order.
func matchDisks(files []string, disks []configDisk) []int {
	of := make([]int, len(files))
	taken := make(map[int]bool)
	for i := range of {
		of[i] = -1
	}
	found := 0
	for _, key := range []func(configDisk) string{
		func(d configDisk) string { return d.source },
		func(d configDisk) string { return d.name },
	} {
		for i, file := range files {
			if of[i] >= 0 {
				continue
			}
			for j, d := range disks {
				if !taken[j] && key(d) != "" && stem(key(d)) == stem(file) {
					of[i], taken[j] = j, true
					found++
					break
				}
			}
		}
	}
	if found == 0 && len(files) == len(disks) {
		for i := range of {
			of[i] = i
		}
	}
	return of
}
