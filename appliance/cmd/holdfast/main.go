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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal winds up, a second one ends the process
	os.Exit(cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
