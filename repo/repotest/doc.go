// Package repotest holds a repository to its word. It serves tests and is part
// of no program.
//
//	Disk, New, Change       disks to back up, and what becomes of them
//	Source                  a Disk as a backup reads it, failing where it should
//	Model                   the repository as a list of points and plain bytes
//	Compare                 does a repository read as the model says?
//	Account                 does every file of a repository belong to it?
//
// A seed decides everything that is random, so what failed can be run again.
package repotest
