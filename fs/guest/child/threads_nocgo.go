//go:build linux && !cgo

package child

// listsThreads says that the restricting of all threads needs a /proc that has
// this process, as in programs with cgo.
const listsThreads = false
