package repo

import "fmt"

// Where things lie below the repository directory. See FORMAT.md, "Directory".
const (
	settingsName = "format.json"
	lockName     = "lock"
	sockName     = ".sock"
	reserveName  = "reserve"
	keysDir      = "keys"
	pointsDir    = "points"
	ledgerDir    = "ledger"
	indexDir     = "index"
	leasesDir    = "leases"
	runsDir      = "runs"
	tmpDir       = "tmp"
	packsDir     = "packs"
	dataDir      = packsDir + "/data"
	metaDir      = packsDir + "/meta"

	twinSuffix = ".twin"
)

// skeleton lists the directories that Create makes, parents first. They never
// change afterwards, so they can be locked.
func skeleton() []string {
	dirs := []string{keysDir, pointsDir, ledgerDir, indexDir, leasesDir, runsDir, tmpDir, packsDir, dataDir, metaDir}
	for _, kind := range []string{dataDir, metaDir} {
		for i := range 256 {
			dirs = append(dirs, fmt.Sprintf("%s/%02x", kind, i))
		}
	}
	return dirs
}

func pointPath(id PointID) string    { return pointsDir + "/" + string(id) }
func leasePath(id PointID) string    { return leasesDir + "/" + string(id) }
func runPath(id RunID) string        { return runsDir + "/" + string(id) }
func segmentPath(n uint64) string    { return fmt.Sprintf("%s/%08d", ledgerDir, n) }
func signerPath(epoch uint64) string { return fmt.Sprintf("%s/signer-%d.pub", keysDir, epoch) }
