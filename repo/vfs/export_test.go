package vfs

// Unsynced returns how many changes of a directory wait to be synced.
func (m *Mem) Unsynced(name string) int {
	n, err := m.find(name)
	if err != nil {
		panic(err)
	}
	return len(n.changes)
}
