// Package content shows the backups of a repository as one fs.Tree:
//
//	/<machine>/latest                  a symbolic link to its last restore point
//	/<machine>/<point>/machine.json    what the repository knows of the point
//	                   <name>.vmx  <name>.nvram …  what was backed up beside the disks
//	                   disks/<disk>.raw  <disk>.vmdk  <disk>-flat.vmdk  …
//	                   files/<disk>/<volume>/…    the guest's own files
//
// A point is called by its time to the millisecond, 2026-11-22T03-00-00.000Z, of
// which a repository makes one at most: what a point is called follows from the
// point alone, so that a name never comes to stand for another one when points
// expire. MACHINE@ and that name is the same point to repo.Find. (Copies from two
// repositories may meet in a millisecond; as long as both are there each has its
// id behind the time, and is found by that name at any time.) Nothing below a point ever changes;
// what is above it follows the repository: points come, expire and go while
// the tree is open, and the tree looks at most once a second.
//
// # Disks and files
//
// What is in disks/ is made as it is read, and stored nowhere (views.go). What
// is in files/ is read by a guest.Reader, which may be another process, from the
// disk's volumes (volumes.go). A volume that can't be read is a file that says
// why, 2.unreadable.txt; what there is to say of those that can, such as a
// journal that was replayed, is in NOTES.txt.
//
// # What is held
//
// Metadata above the volumes is told from the manifests and holds nothing.
// Whatever needs a point's blocks holds the point by a lease, so that the
// repository's owner keeps them, and lets it go when nobody has asked for a
// while. A point that expires is gone from its directory at once, and for those
// who are reading it when they have finished.
//
// # Numbers
//
// An fs.ID must mean the same after a restart, so that inode numbers and file
// handles last. None is counted: a machine's are hashed from its name, a
// point's from its id, and those of a guest's file are the point, the place of
// disk and volume in it, and the guest's own inode number (id.go).
package content
