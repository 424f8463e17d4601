// Package ntfs reads NTFS volumes, version 3.0 and 3.1, as a tree.
//
// # The format
//
// A volume is clusters; everything on it, its own tables included, is a file. A
// file is a record of the master file table (MFT), which is file 0:
//
//	boot sector ─► $MFT ─► record n: header, attributes …
//	                       attribute: type, name, and either its value (resident)
//	                       or a mapping of its clusters to the volume's
//
// A record that is too small has an $ATTRIBUTE_LIST, which says in what other
// records the rest of the attributes lies. The contents are attributes of type
// $DATA: the one without a name is what people call the file, the others are its
// alternate streams. A directory is a B+ tree of $FILE_NAME values, its root in
// $INDEX_ROOT and its blocks in $INDEX_ALLOCATION. Multi-byte numbers are little
// endian. Records and index blocks carry an update sequence: the last two bytes of
// each 512 are moved aside and replaced by a number, by which a torn write is
// known.
//
// Sources: the Linux-NTFS project's documentation; Microsoft's [MS-FSCC] for
// reparse points and security descriptors, [MS-XCA] for LZNT1 and XPRESS Huffman;
// the behaviour of ntfs-3g, with which the tests compare.
//
// # What people see
//
// An inode's number is that of its MFT record. A stream's is that of its file,
// with its place among the file's streams, from one on, in the upper sixteen bits.
//
// Names are UTF-16 there and WTF-8 here: UTF-8, with half of a surrogate pair
// that has lost the other half as three bytes, ED and two more. Look-up tells
// capitals from small letters. DOS names (PROGRA~1) are not listed, and the
// volume's own files ($MFT to $Extend, records below 16) do not exist in the tree.
//
// NTFS keeps no modes. Files have 0644, those that are read-only 0444, directories
// 0755 and symbolic links 0777, all of user and group 0, unless the extended
// attributes $LXUID, $LXGID and $LXMOD of the Windows Subsystem for Linux (WSL) say
// otherwise. WSL's special files are what they say; of those of Interix, which
// ntfs-3g makes, symbolic links and device nodes are known by their magic, but an
// empty system file is a file, though ntfs-3g would show a FIFO: Windows has such
// files too. The attributes, the security descriptor, reparse data, extended
// attributes and object id are xattrs under ntfs-3g's names.
//
// # Links and other reparse points
//
// Symbolic links and junctions are links with a target that works wherever the
// tree is shown. Backslashes become slashes. "C:\x" and "\x" become a relative path
// by way of the volume's root, "../../x", if all of x is on this volume under
// whatever case, since nothing on a volume says what letter it had; if not, and
// for "\\server\x" and volumes named by GUID, the target stays as Windows shows it.
//
// Files that Windows compressed with WOF ("compact /exe", CompactOS) are read
// through. Deduplicated files, files moved to a cloud and any with a reparse tag we
// don't know are listed but give ErrUnsupported when read: what the volume holds in
// their place is not what they are. The same holds for files encrypted with EFS.
//
// # The journal
//
// $LogFile is not replayed: it redoes metadata, its format is undocumented, and
// ntfs-3g doesn't either. Notes say when it, or the volume's dirty flag, tells of
// changes that had not arrived. What then contradicts itself is ErrDamaged: a name
// whose record has gone to another file, for one, is listed but leads nowhere.
//
// # Why no library
//
// The one that was fit to try, www.velocidex.com/golang/go-ntfs, is made for
// forensics, where a guess is better than nothing: a field or a page that can't be
// read is zeros, an attribute list that can't be is shorter, a compression unit
// whose runs do not add up is left out. Nor can it name a file's links, resume a
// directory or find a name in one without listing it.
package ntfs
