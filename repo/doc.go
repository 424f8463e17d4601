// Package repo is the repository: it keeps restore points of machines, each
// stored piece once, and gives them back byte for byte or says what is damaged.
//
//	BackupOptions ─► Owner.Backup ─► Run, Point      one process at a time
//	Repository.Find ─► OpenPoint ─► Reader.Disk ─► ReadAt, NextData, Restore
//
// FORMAT.md beside this file has every byte. The pieces are packages of their
// own: chunk (what is named), seal (compressed and encrypted), pack (stored),
// index (found), blockmap (put together), ledger (signed); vfs is the few file
// operations below them all, repotest a model to hold them to.
//
// # Writing
//
// One process owns a repository, by a lock that dies with it (Own). A run
// reads, digests, compares with the parent and looks up before it compresses
// (pipeline.go), appends to packs in the order of the disk (packwriter.go),
// changes the parent's block map (nodewriter.go), and commits (commit.go):
//
//	packs ─► ledger segment ─► manifest
//
// each synced and named before the next. The point exists once its manifest is
// durable. Whatever interrupts this, Own finds a repository without half-made
// things and without a repair (owner.go); what a failed run stored is found by
// the next run of its machine (runrecord.go).
//
// # Reading
//
// Any number of processes read while the owner writes: files are immutable, and
// a reader's lock on leases/POINT tells the owner what is being read (lease.go).
// Every frame is verified against the point's root before it is returned
// (read.go, leafcache.go). What does not verify is read again from another copy
// or healed from parity; what can't be healed is a *CorruptError that names
// point, disk and range.
//
// # What may overlap
//
// A line says what is under way, a column what is begun then, by the same owner,
// which does it for whoever asks (Perform), or by any process where no owner is
// needed:
//
//	         run     copy    sweep   compact scrub   repair  reindex expire  keys    read    pin     reader  source  list    Own
//	run      yes/no  yes/no  yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     no
//	copy     yes/no  yes/no  yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     no
//	sweep    yes     yes     waits   waits   yes     waits   waits   yes     yes     yes     yes     yes     yes     yes     no
//	compact  yes     yes     waits   waits   yes     waits   waits   yes     yes     yes     yes     yes     yes     yes     no
//	scrub    yes     yes     yes     yes     no      no      yes     yes     yes     yes     yes     yes     yes     yes     no
//	repair   yes     yes     waits   waits   yes     waits   waits   yes     yes     yes     yes     yes     yes     yes     no
//	reindex  waits   waits   waits   waits   waits   waits   waits   yes     yes     waits   yes     yes     yes     yes     no
//	expire   waits   waits   waits   waits   waits   waits   yes     waits   waits   yes     yes     yes     yes     yes     no
//	keys     waits   waits   waits   waits   waits   waits   yes     waits   waits   yes     yes     yes     yes     yes     no
//	read     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     no
//	pin      yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes
//	reader   yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes
//	source   yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes
//	list     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes     yes
//	Own      no      no      no      no      no      no      no      no      no      no      yes     yes     yes     yes     no
//
// What waits goes on when the other has ended; no is a *BusyError. Behind the stroke
// stands what is so for the same machine. The words are
//
//	run      Backup
//	copy     Copy and Sync into this repository, a run for each point
//	sweep    Sweep
//	compact  Compact, Evacuate, Synthesize
//	scrub    Scrub by the owner, which remembers
//	repair   Repair, which begins with a scrub
//	reindex  Reindex, for which whoever asks this process's index stands still
//	expire   Expire, Retain, Recall, AbandonRuns
//	keys     AddKey, RotateKey, RemoveKey
//	read     an open point in the owner's process: Restore, Diff
//	pin      Pin, Unpin
//	reader   an open point in another process, or its Scrub
//	source   Copy and Sync from this repository
//	list     Open, Points, Stats, PlanRetention, VerifyLedger, ListKeys
//	Own      Own, Adopt, ImportKeys; Own waits as long as it is told to
//
// One writes the ledger at a time: expire and keys for as long as they take, which
// is a moment, a run at its end, a sweep while packs go. A point may expire while it
// is read or is the parent of a run: its bytes stay until the lease ends. Of a pin
// and an expiry that meet one gives way to the other. Create overlaps with nothing:
// its directory is empty.
//
// Runs that overlap share what each has stored already; a chunk that both find
// new at the same time is stored twice.
package repo
