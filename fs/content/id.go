package content

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"strconv"

	"holdfast/fs"
)

// The number of a file system, fs.ID.FS, is
//
//	63         20 19   12 11       0
//	+------------+-------+---------+
//	|    key     | disk  |  slot   |
//	+------------+-------+---------+
//
// key names a machine's directory or a restore point, hashed from the machine's
// name or the point's id; never 0. Slot 0 is what this package makes up: the
// directory of a machine, or all of a point but the guests' files. Slots from 1
// on are the volumes of the disk, whose inodes keep the numbers that their own
// file system gives them. The top has FS 0.
const (
	slotBits = 12
	diskBits = 8
	keyBits  = 64 - slotBits - diskBits

	maxDisks = 1 << diskBits
	maxSlots = 1 << slotBits
)

// keyOf hashes what names a machine or point. try is above 0 only where two
// have met, which among 100,000 of them is three in ten thousand.
func keyOf(kind, name string, try int) uint64 {
	sum := sha256.Sum256([]byte(kind + "\x00" + name + "\x00" + strconv.Itoa(try)))
	return max(1, binary.BigEndian.Uint64(sum[:])>>(64-keyBits))
}

func fsOf(key uint64, disk, slot int) uint64 {
	return key<<(64-keyBits) | uint64(disk)<<slotBits | uint64(slot)
}

// splitFS undoes fsOf.
func splitFS(n uint64) (key uint64, disk, slot int) {
	return n >> (64 - keyBits), int(n >> slotBits & (maxDisks - 1)), int(n & (maxSlots - 1))
}

// Inodes of the top, of a machine's directory and of a point. Those of a disk
// are diskIno of its place in the point and one of the last group.
const (
	inoTop = 1

	inoMachine = 1
	inoLatest  = 2

	inoPoint = 1
	inoJSON  = 2
	inoDisks = 3
	inoFiles = 4
	inoKept  = 0x100 // and the place of the machine's file in the point

	inoVolumes    = 1      // files/<disk>
	inoNotes      = 2      // files/<disk>/NOTES.txt
	inoView       = 0x10   // and the number of the view
	inoUnreadable = 0x1000 // and the slot of the volume
)

const diskInoBits = 16

func diskIno(disk int, ino uint64) uint64 { return uint64(disk+1)<<diskInoBits | ino }

// splitIno undoes diskIno; disk is -1 for what belongs to no disk.
func splitIno(ino uint64) (disk int64, in uint64) {
	return int64(ino>>diskInoBits) - 1, ino & (1<<diskInoBits - 1)
}

// slots gives the volumes of a disk their slots, the same whenever the disk is
// looked at: partitions by their number, others by a hash of their name. A
// volume for which there is none left gets 0.
func slots(names []string) []int {
	const numbered = maxSlots / 2 // the first half
	taken := make(map[int]bool)
	list := make([]int, len(names))
	for i, name := range names {
		n, err := strconv.Atoi(name)
		if err == nil && n > 0 && n < numbered && strconv.Itoa(n) == name && !taken[n] {
			list[i], taken[n] = n, true
		}
	}
	for i, name := range names {
		if list[i] != 0 {
			continue
		}
		h := fnv.New32a()
		h.Write([]byte(name))
		for try := range maxSlots - numbered {
			n := numbered + (int(h.Sum32()&0xffff)+try)%(maxSlots-numbered)
			if !taken[n] {
				list[i], taken[n] = n, true
				break
			}
		}
	}
	return list
}

// top is the tree's root.
var top = fs.ID{FS: 0, Ino: inoTop}
