//go:build !linux

package image

import (
	"errors"
	"os"
)

const openFlags = os.O_RDONLY

var errNoHoleMap = errors.New("the file system cannot say where data lies")

func seekData(*os.File, int64) (start, end int64, err error) { return 0, 0, errNoHoleMap }
func adviseSequential(*os.File)                              {}
func dropPages(*os.File, int64, int64)                       {}
