// Package treetest is how a new fs.Tree proves itself. Conform checks the whole
// contract of package fs over every inode of a tree. Snap and SnapHost write
// down all that a tree, or a directory the kernel shows, says about every path,
// and Diff tells where two of those differ. Populate fills a mounted file system
// with a tree made to find mistakes, Corrupt damages an image a thousand times
// and sees to it that no reader panics, hangs, eats memory or makes up bytes.
// Tree is a small tree in memory for the tests of those who show one.
//
// Everything random comes from seeds that are printed with a failure.
package treetest
