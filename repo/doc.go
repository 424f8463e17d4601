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
// Within one owner, and with readers anywhere:
//
//	            run of      run of same   reader    open, points,
//	            another     machine                 stats, diff
//	run         yes         no: BusyError yes       yes
//	pin, unpin  yes         yes           yes       yes
//	expire      yes         yes           yes       yes
//	recall      yes         yes           yes       yes
//	retain      yes         yes           yes       yes
//	keys        yes         yes           yes       yes
//	scrub       yes         yes           yes       yes
//	repair      yes         yes           yes       yes
//	reindex     waits       waits         waits     yes
//	Own         no: *BusyError, or wait   yes       yes
//	Create      no: the directory is empty
//
// Keys are AddKey, RotateKey and RemoveKey; one change after the other, and none
// while a segment is written. VerifyLedger and ListKeys take no lock and run beside
// everything. Adopt and ImportKeys keep others out as Own does.
//
// A copy from another repository is one run for each point: of that machine, one
// after the other (copy.go). The source it only reads, with a lease, whoever owns
// and writes it.
//
// A scrub runs beside everything, another scrub of the same owner apart: packs that
// a sweep removes meanwhile are not missed. Repair and Reindex wait for sweeps and
// the like, and they for them; while the index is made anew, those of this process who
// ask it stand still.
//
// Expire, Recall and Retain write the ledger as a commit does, one after the
// other. A point may expire while it is read or is the parent of a run: its bytes
// stay until the lease ends. Of a pin and an expiry that meet one gives way to the
// other. An owner does these, and others, for whoever asks it (Perform).
//
// Runs that overlap share what each has stored already; a chunk that both find
// new at the same time is stored twice. Commits are one after the other.
package repo
