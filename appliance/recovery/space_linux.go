package recovery

import "golang.org/x/sys/unix"

// space tells how much is free on the volume that sessions write to, and how much
// there is.
func (m *Manager) space() (free, total int64, err error) {
	n, err := m.opt.Redirect.Free()
	if err != nil {
		return 0, 0, err
	}
	free = int64(min(n, 1<<62))
	dir, ok := m.opt.Redirect.(interface{ Fd() int })
	if !ok {
		return free, free, nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir.Fd(), &st); err != nil {
		return 0, 0, err
	}
	return free, max(free, int64(st.Blocks)*st.Bsize), nil
}
