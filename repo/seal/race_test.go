//go:build race

package seal

// raceEnabled says that sync.Pool drops things at random.
const raceEnabled = true
