// Package recovery runs machines straight from their restore points.
//
// A session is one restore point published in a datastore: a directory with the
// machine's configuration and, per disk, a descriptor and a flat file that reads
// as the point's disk and takes writes, which go to a redirect layer. nfs serves
// the datastore; a hypervisor starts the machine from it within seconds.
//
//	Publish ─► running ─► Stop               what was written is gone
//	             ├─► Keep                    … is a new restore point; the session goes on
//	             └─► Migrate ─► Stop         … and all below it is in a file or device
//
// # What is where
//
//	state/sessions/ID            the session's record: which point, which state
//	redirect/datastore/          fs/datastore: names, small files, the numbers in file handles
//	redirect/session-ID/         image/redirect: what was written to the disks
//	repository/leases/pin-…      keeps the point, whoever is running
//
// # Crashes
//
// A record is written before anything it is about is made, and removed after all
// of that is gone, so whoever opens a Manager finds in the records what to finish
// or to undo. The order is
//
//	publish   record "publishing", pin, redirect session, directory, record "running"
//	stop      record "stopping", directory, redirect session, pin, record away
//	migrate   record with the target, the target, switch, record "migrated", pin away
//
// A session that was being published when the process ended is undone, as nobody
// was told of it; one that was being stopped is stopped; all others are there
// again with the same file handles and bytes. Each comes back by itself and in
// parallel; a damaged one is offline and the others are not touched by that. Until
// its disks are back, a session's names and attributes are there already and its
// bytes are fs.ErrRetry.
package recovery
