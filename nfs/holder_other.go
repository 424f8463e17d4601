//go:build !linux

package nfs

// PortHolder can't tell on this system.
func PortHolder(network string, port uint16) (h Holder, taken bool) { return Holder{}, false }
