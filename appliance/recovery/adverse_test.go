package recovery

import (
	"bytes"
	"testing"
	"time"

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
