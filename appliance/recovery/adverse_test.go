package recovery

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/repo"
)

// TestConfigurationOfWarnings: what a configuration makes us warn of never makes
// a record that can't be read again.
func TestConfigurationOfWarnings(t *testing.T) {
	w := newWorld(t, inMemory)
	text := append([]byte("memSize = \"4\"\n"+`some.file = "/`), bytes.Repeat([]byte{1}, 900<<10)...)
	text = append(append(text, "\"\n"...), bytes.Repeat([]byte("annotation2.file = \"/x\"\n"), 2)...)
	w.point = w.backup(t, "web2", w.disks, []repo.MachineFile{{Name: "web2.vmx", Data: text}})
	m := w.opened(t)
	s := publish(t, m, w, PublishOptions{})
	if len(s.Warnings) == 0 {
		t.Error("no warnings")
	}
	for _, text := range s.Warnings {
		if len(text) > 400 {
			t.Errorf("a warning of %d bytes", len(text))
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = w.opened(t)
	if list := m.List(); len(list) != 1 || list[0].State != "running" {
		t.Errorf("%+v", list)
	}
	rec := m.list()[0].snapshot()
	rec.Warnings = []string{string(bytes.Repeat([]byte{1}, 900<<10))}
	if err := rec.save(w.state); err == nil {
		t.Error("a record was written that nobody reads")
	}
	if err := m.Stop(t.Context(), "web2"); err != nil {
		t.Error(err)
	}
	left(t, w)
}

// TestPublishIntoNothing: a datastore that answers nothing but errors is no reason
// to look for a free name for ever.
func TestPublishIntoNothing(t *testing.T) {
	w := newWorld(t, inMemory)
	m := w.open(t)
	defer m.Close() // it says that the store is closed already
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := m.Publish(t.Context(), string(w.point), PublishOptions{NoSwapRoom: true})
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("published")
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
}

// TestKeepBesideSnapshots: a point that lacks what a hypervisor's snapshot has says
// so, and what is too large for a point.
func TestKeepBesideSnapshots(t *testing.T) {
	w := newWorld(t, inMemory)
	m := w.opened(t)
	publish(t, m, w, PublishOptions{})
	dir, err := m.store.Lookup(t.Context(), m.store.Root(), "web1")
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"root-000001.vmdk": 300, "root-000001-delta.vmdk": 5 << 20, "old.nvram": 2 << 20, "web1.vswp": 4 << 20} {
		set := fs.SetAttr{Set: fs.SetSize, Size: size}
		if _, err := m.store.Create(t.Context(), dir.ID, name, fs.Creation{}, set, nil); err != nil {
			t.Fatal(err)
		}
	}
	run, err := m.Keep(t.Context(), "web1", KeepOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(run.Warnings, "\n")
	if len(run.Warnings) != 3 || !strings.Contains(text, `"root-000001.vmdk"`) || !strings.Contains(text, `"root-000001-delta.vmdk"`) || !strings.Contains(text, `"old.nvram"`) {
		t.Errorf("warnings %q", run.Warnings)
	}
}
