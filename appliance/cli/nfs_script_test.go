package cli

import (
	"context"
	"encoding/json"
	"os"
	"path"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"holdfast/nfs/nfstest"
)

// port: sets NFS to the address of the server that runs.
func scriptPort(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(ts.Exec("holdfast", "nfs", "list", "--json"))
	var l sessionsListing
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &l))
	ts.Setenv("NFS", l.Server.Listen[0])
}

// nfsFile opens a file of an export.
func nfsFile(ts *testscript.TestScript, name string) (*nfstest.Client, nfstest.Handle) {
	c, err := nfstest.Dial(context.Background(), ts.Getenv("NFS"))
	ts.Check(err)
	dir, err := c.Mount(path.Dir(name))
	ts.Check(err)
	h, _, err := c.Lookup(dir, path.Base(name))
	ts.Check(err)
	return c, h
}

// nfsput NAME OFFSET FILE: writes the bytes of FILE, durably.
func scriptNFSPut(ts *testscript.TestScript, _ bool, args []string) {
	c, h := nfsFile(ts, args[0])
	defer c.Close()
	_, err := c.Write(h, uint64(number(ts, args[1])), []byte(ts.ReadFile(args[2])), nfstest.FileSync)
	ts.Check(err)
}

// nfsget NAME OFFSET LENGTH FILE: reads bytes into FILE.
func scriptNFSGet(ts *testscript.TestScript, _ bool, args []string) {
	c, h := nfsFile(ts, args[0])
	defer c.Close()
	n, err := strconv.ParseUint(args[2], 10, 32)
	ts.Check(err)
	res, err := c.Read(h, uint64(number(ts, args[1])), uint32(n))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), res.Data, 0o644))
}
