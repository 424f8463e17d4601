package guest

import "holdfast/fs/guest/fat"

// fatBoot recognises FAT12, FAT16 and FAT32. Their boot sector has no magic
// that others don't have, so this comes behind those that have one.
func fatBoot(w *window) (found, bool) {
	g, ok := fat.Probe(w.dev, w.size)
	if !ok {
		return found{}, false
	}
	return found{format: g.Format, label: g.Label, uuid: g.UUID, bytes: g.Bytes}, true
}
