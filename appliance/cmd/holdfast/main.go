// Holdfast keeps backups of machines and brings them back. This is the one
// program for the operator and for every role; see package cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"holdfast/appliance/cli"
)

func main() {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	context.AfterFunc(ctx, stop) // the first signal winds up, a second one ends the process
	os.Exit(cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
