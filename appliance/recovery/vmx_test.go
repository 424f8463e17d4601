package recovery

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what tests compare with")

// vmxCases are configurations and what the session of the test has of disks.
var vmxCases = []struct {
	name string
	file string // in testdata/vmx; empty: made
	want machineConfig
}{
	{"esxi", "esxi.vmx", machineConfig{name: "web1", nvram: "web1.nvram", disks: []configDisk{
		{"root", "/vm/web1/web1.vmdk", "root.vmdk"}, {"data", "/vm/web1/web1_1.vmdk", "data.vmdk"}}}},
	{"esxi-copy", "esxi.vmx", machineConfig{name: "web1 \"test\"", newUUID: true, offline: true, swapDir: "/vmfs/volumes/ssd", disks: []configDisk{
		{"web1.vmdk", "", "web1.vmdk"}, {"web1_1.vmdk", "", "web1_1.vmdk"}, {"third", "", "third.vmdk"}}}},
	{"odd", "odd.vmx", machineConfig{name: "odd", disks: []configDisk{
		{"old disk", "", "old disk.vmdk"}, {"lun", "", "lun.vmdk"}}}},
	{"in-order", "odd.vmx", machineConfig{name: "odd", disks: []configDisk{
		{"a", "/dev/sda", "a.vmdk"}, {"b", "/dev/sdb", "b.vmdk"}, {"c", "/dev/sdc", "c.vmdk"}}}},
	{"made", "", machineConfig{name: "new", efi: true, nvram: "new.nvram", disks: []configDisk{
		{"sda", "/dev/sda", "sda.vmdk"}, {"sdb", "/dev/sdb", "sdb.vmdk"}}}},
}

// TestRewrite compares with golden files, and holds each result to what must be
// true of it.
func TestRewrite(t *testing.T) {
	for _, c := range vmxCases {
		t.Run(c.name, func(t *testing.T) {
			config, warnings := makeVMX(c.want), []string(nil)
			if c.file != "" {
				in, err := os.ReadFile("testdata/vmx/" + c.file)
				if err != nil {
					t.Fatal(err)
				}
				if config, warnings, err = rewriteVMX(in, c.want); err != nil {
					t.Fatal(err)
				}
			}
			got := string(config.encode()) + "# " + strings.Join(warnings, "\n# ") + "\n"
			golden := "testdata/vmx/" + c.name + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			sound(t, config, c.want)
		})
	}
}

// sound holds a configuration to what a session needs of it.
func sound(t *testing.T, c *vmx, want machineConfig) {
	t.Helper()
	again, err := parseVMX(c.encode())
	if err != nil {
		t.Fatalf("what was written can't be read: %v", err)
	}
	if diff := cmp.Diff(string(c.encode()), string(again.encode())); diff != "" {
		t.Errorf("read again it is another one: %s", diff)
	}
	attached := make(map[string]int)
	for _, d := range again.devices() {
		if again.isDisk(d) {
			attached[again.get(d.String()+".fileName")]++
		}
	}
	for _, d := range want.disks {
		if attached[d.descriptor] != 1 {
			t.Errorf("disk %s is attached %d times", d.name, attached[d.descriptor])
		}
		delete(attached, d.descriptor)
	}
	for file := range attached {
		t.Errorf("%s is attached and not there", file)
	}
	for _, l := range again.lines {
		key := strings.ToLower(l.key)
		if strings.Contains(key, "ctkenabled") || strings.HasPrefix(key, "snapshot.") || key == "sched.swap.derivedname" ||
			absPath.MatchString(l.value) && !strings.HasPrefix(key, "guestinfo.") && key != "sched.swap.dir" && key != "annotation" && l.key != "" && key != "displayname" {
			t.Errorf("left: %s = %q", l.key, l.value)
		}
	}
	if got := again.get("displayName"); got != want.name {
		t.Errorf("it is called %q, not %q", got, want.name)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":       "",
		"only comments": "# a\n\n",
		"no setting":    "memSize \"5\"\n",
		"binary":        "a = \"b\"\x00\n",
		"an open quote": "a = \"b\n",
		"too long":      "a = \"" + strings.Repeat("x", maxVMXBytes) + "\"\n",
		"too many":      strings.Repeat("#\n", maxVMXLines+1) + "a = \"1\"\n",
	} {
		if _, err := parseVMX([]byte(text)); !errors.Is(err, ErrConfiguration) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err := rewriteVMX([]byte("encryption.keySafe = \"x\"\nmemSize = \"4\"\n"), machineConfig{name: "x"})
	if !errors.Is(err, errEncrypted) {
		t.Errorf("encrypted: %v", err)
	}
}

func TestParseForms(t *testing.T) {
	c, err := parseVMX([]byte("\ufeffa=\"1|22|7C|2\"\r\n  B.c:0 = x y # remark\n d = \"caf\xe9\"\r\nA = \"second\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"A": "1\"||2", "b.C:0": "x y", "d": "café", "none": "", ".encoding": "UTF-8"} {
		if got := c.get(key); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	c.set("b.c:0", "|\"\n#")
	if again, err := parseVMX(c.encode()); err != nil || again.get("b.c:0") != "|\"\n#" {
		t.Errorf("%q, %v", again.get("b.c:0"), err)
	}
}

func TestSwapBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"memSize = \"4096\"\n":                             4096 << 20,
		"memSize = \"4096\"\nsched.mem.min = \"4096\"\n":   0,
		"memSize = \"4096\"\nsched.mem.min = \"1000\"\n":   3096 << 20,
		"memSize = \"4096\"\nsched.mem.min = \"9000\"\n":   0,
		"memSize = \"-3\"\n":                               defaultMemoryMiB << 20,
		"memSize = \"9223372036854775807\"\n":              maxMemoryMiB << 20,
		"numvcpus = \"1\"\n":                               defaultMemoryMiB << 20,
		"memSize = \"many\"\nsched.mem.min = \"plenty\"\n": defaultMemoryMiB << 20,
	} {
		c, err := parseVMX([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.swapBytes(); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestMatchDisks(t *testing.T) {
	cases := []struct {
		name  string
		files []string
		disks []configDisk
		want  []int
	}{
		{"by source", []string{"b.vmdk", "a-000001.vmdk"}, []configDisk{{"x", "/d/a.vmdk", ""}, {"y", "/d/b-flat.vmdk", ""}}, []int{1, 0}},
		{"by name", []string{"[ds] vm/Disk 1.vmdk"}, []configDisk{{"disk 1", "/dev/sdb", ""}}, []int{0}},
		{"source before name", []string{"a.vmdk", "b.vmdk"}, []configDisk{{"b", "a.vmdk", ""}, {"a", "b.vmdk", ""}}, []int{0, 1}},
		{"in order", []string{"m.vmdk", "n.vmdk"}, []configDisk{{"a", "", ""}, {"b", "", ""}}, []int{0, 1}},
		{"not in order if some fit", []string{"m.vmdk", "b.vmdk"}, []configDisk{{"a", "", ""}, {"b", "", ""}}, []int{-1, 1}},
		{"none", []string{"m.vmdk"}, []configDisk{{"a", "", ""}, {"b", "", ""}}, []int{-1}},
		{"each once", []string{"a.vmdk", "a-000001.vmdk"}, []configDisk{{"a", "", ""}, {"b", "", ""}}, []int{0, -1}},
	}
	for _, c := range cases {
		if diff := cmp.Diff(c.want, matchDisks(c.files, c.disks)); diff != "" {
			t.Errorf("%s (-want +got): %s", c.name, diff)
		}
	}
}

// TestFree never attaches two disks to one place, nor to the adapter's own.
func TestFree(t *testing.T) {
	c := makeVMX(machineConfig{name: "x"})
	c.attach(device{"scsi", 0, 0}, "first.vmdk")
	seen := map[device]bool{{"scsi", 0, 0}: true}
	for range 40 {
		d := c.free()
		if seen[d] || d.bus != "scsi" || d.unit == 7 || d.unit > 15 || !c.is("scsi0.present") {
			t.Fatalf("%s", d)
		}
		seen[d] = true
		c.attach(d, d.String()+".vmdk")
	}
}

// FuzzVMX takes whatever a backup may have kept as a configuration.
func FuzzVMX(f *testing.F) {
	for _, name := range []string{"esxi", "odd"} {
		p, err := os.ReadFile("testdata/vmx/" + name + ".vmx")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Add([]byte("a = \"|zz|\"\n"))
	f.Add([]byte("scsi999:999.present = \"TRUE\"\nscsi999:999.fileName = \".vmdk\"\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		want := machineConfig{name: "fuzz", nvram: "fuzz.nvram", disks: []configDisk{{"a", "/x/web1.vmdk", "a.vmdk"}, {"b", "", "b.vmdk"}}}
		c, _, err := rewriteVMX(p, want)
		if err != nil {
			if !errors.Is(err, ErrConfiguration) {
				t.Errorf("%v", err)
			}
			return
		}
		sound(t, c, want)
	})
}
