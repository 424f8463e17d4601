package nfs

import "fmt"

// Holder is who has a port of this machine.
type Holder struct {
	PID  int    // 0: not known, as it is another user's or the kernel's own
	Name string // of the program
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "a program of another user, or the kernel's own server"
	}
	return fmt.Sprintf("%s (process %d)", h.Name, h.PID)
}
