package recovery

import "strconv"

// makeVMX is the configuration of a machine of which the restore point has none:
// as little as every hypervisor needs, with disks on SATA, which every system of
// the last fifteen years starts from without a driver of its own. It has one
// processor, 2 GiB of memory and no network adapter, and starts by BIOS unless
// the point has the variables of an EFI, or want says so.
func makeVMX(want machineConfig) *vmx {
	c := new(vmx)
	for _, kv := range [][2]string{
		{".encoding", "UTF-8"},
		{"config.version", "8"},
		{"virtualHW.version", "13"}, // ESXi 6.5 and later
		{"guestOS", "other-64"},
		{"memSize", strconv.Itoa(defaultMemoryMiB)},
		{"numvcpus", "1"},
		{"pciBridge0.present", "TRUE"},
		{"svga.present", "TRUE"},
		{"vmci0.present", "TRUE"},
	} {
		c.set(kv[0], kv[1])
	}
	if want.efi {
		c.set("firmware", "efi")
	}
	for _, d := range want.disks {
		c.attach(c.free(), d.descriptor)
	}
	r := rewriter{vmx: c, want: want}
	r.identity()
	return c
}
