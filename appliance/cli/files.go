package cli

import (
	"github.com/spf13/cobra"
)

func newFiles(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "files VERB",
		GroupID: groupRepo,
		Short:   "Get files out of the disks of a point",
		Long: `Look into the file systems on the disks of a restore point, and get files out,
without restoring a disk and without mounting anything.

POINT is as in "holdfast repo restore"; POINT:DISK looks at one disk. PATH is
DISK/VOLUME/path, with VOLUME the number of the partition, or "whole" for a disk
without partitions. Where the point has only one volume that can be read, PATH may
begin with a slash: /etc/fstab. "files ls DIR POINT" lists the volumes.`,
	}
	group(cmd)
	cmd.AddCommand(newFilesLs(a), newFilesCat(a), newFilesCp(a), newFilesFind(a), newFilesDiff(a), newFilesExport(a))
	return cmd
}
