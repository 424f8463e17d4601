//go:build race

package chunk_test

// raceEnabled says that sync.Pool drops things at random.
const raceEnabled = true
