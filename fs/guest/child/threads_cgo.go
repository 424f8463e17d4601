//go:build linux && cgo

package child

// listsThreads says that the restricting of all threads needs a /proc that has
// this process: so it is in programs with cgo, which are those that are tested
// with the race detector, and not those that are shipped.
const listsThreads = true
