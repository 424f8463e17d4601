package ext4

import (
	"os"
	"testing"

	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

// forms are file systems that the kernel can mount, by what mke2fs is told.
var forms = []struct {
	name string
	mib  int
	args []string
	kind string
}{
	{"ext2 revision 0", 64, []string{"-r", "0", "-t", "ext2", "-O", "none"}, "ext2"},
	{"ext2", 64, []string{"-t", "ext2", "-O", "none,ext_attr,filetype,sparse_super,large_file,dir_index", "-I", "128"}, "ext2"},
	{"ext2 without filetype", 64, []string{"-t", "ext2", "-O", "none,ext_attr,sparse_super,large_file", "-b", "1024", "-I", "256"}, "ext2"},
	{"ext3", 96, []string{"-t", "ext3", "-O", "none,ext_attr,filetype,sparse_super,large_file,dir_index,has_journal,resize_inode", "-I", "256"}, "ext3"},
	{"ext4", 96, []string{"-t", "ext4", "-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum", "-I", "256"}, "ext4"},
	{"1 KiB blocks", 96, []string{"-t", "ext4", "-b", "1024", "-O", "extent,64bit,metadata_csum,has_journal,filetype,dir_index"}, "ext4"},
	{"2 KiB blocks, gdt_csum", 96, []string{"-t", "ext4", "-b", "2048", "-O", "extent,^64bit,^metadata_csum,uninit_bg,flex_bg,filetype,dir_index"}, "ext4"},
	{"gdt_csum with 64bit", 96, []string{"-t", "ext4", "-b", "1024", "-O", "extent,64bit,^metadata_csum,uninit_bg,filetype,dir_index"}, "ext4"},
	{"no journal, no 64bit", 96, []string{"-t", "ext4", "-O", "extent,^has_journal,^64bit,filetype,dir_index"}, "ext4"},
	{"bigalloc", 128, []string{"-t", "ext4", "-O", "extent,bigalloc,has_journal,filetype,dir_index,ext_attr", "-C", "65536"}, "ext4"},
	{"bigalloc, 1 KiB blocks", 128, []string{"-t", "ext4", "-b", "1024", "-O", "extent,bigalloc,metadata_csum,filetype,dir_index,ext_attr", "-C", "16384"}, "ext4"},
	{"inline_data", 96, []string{"-t", "ext4", "-O", "extent,inline_data,metadata_csum,ext_attr,filetype,dir_index", "-I", "256"}, "ext4"},
	{"inline_data, 1 KiB inodes and blocks", 96, []string{"-t", "ext4", "-b", "1024", "-O", "extent,inline_data,ext_attr,filetype,dir_index", "-I", "1024"}, "ext4"},
	{"meta_bg", 96, []string{"-t", "ext4", "-b", "1024", "-g", "1024", "-O", "extent,meta_bg,^resize_inode,64bit,metadata_csum,filetype,dir_index,ext_attr"}, "ext4"},
	{"meta_bg with bigalloc", 128, []string{"-t", "ext4", "-b", "1024", "-C", "4096", "-O", "extent,meta_bg,^resize_inode,bigalloc,filetype,dir_index,ext_attr"}, "ext4"},
	{"sparse_super2, small groups", 96, []string{"-t", "ext4", "-b", "1024", "-g", "1024", "-O", "extent,sparse_super2,^resize_inode,^has_journal,metadata_csum,filetype,dir_index,ext_attr"}, "ext4"},
	{"ea_inode", 96, []string{"-t", "ext4", "-O", "extent,ea_inode,metadata_csum,ext_attr,filetype,dir_index"}, "ext4"},
	{"metadata_csum_seed", 96, []string{"-t", "ext4", "-O", "extent,metadata_csum,metadata_csum_seed,64bit,ext_attr,filetype,dir_index", "-U", "11111111-2222-3333-4444-555555555555"}, "ext4"},
	{"large_dir, mmp", 128, []string{"-t", "ext4", "-b", "1024", "-O", "extent,large_dir,mmp,metadata_csum,ext_attr,filetype,dir_index"}, "ext4"},
	{"fast_commit, orphan_file", 128, []string{"-t", "ext4", "-O", "extent,has_journal,fast_commit,orphan_file,metadata_csum,ext_attr,filetype,dir_index"}, "ext4"},
	{"legacy hashes, no dir_index", 96, []string{"-t", "ext4", "-O", "extent,^dir_index,metadata_csum,ext_attr,filetype"}, "ext4"},
}

// TestKernel compares every path, byte and attribute with what the kernel shows.
func TestKernel(t *testing.T) {
	testreq.Need(t, "root", "loop", "mke2fs", "debugfs")
	for i, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			long := os.Getenv("HOLDFAST_LONG") == "1"
			if long {
				form.mib *= 16
			}
			image := makeImage(t, form.mib, form.args...)
			m := mount(t, image, "noatime")
			plan := treetest.Linux(uint64(i))
			plan.Files, plan.Dirs, plan.FileBytes, plan.BigDir = 20, 8, 128<<10, 300
			plan.Huge = form.name == "ext4" // gigabytes of zeros to read
			if long {
				plan.Huge = true
				plan.Files, plan.Dirs, plan.FileBytes, plan.BigDir = 1000, 80, 2<<20, 10000
			}
			if err := treetest.Populate(t, m.dir, plan); err != nil {
				t.Fatal(err)
			}
			m.unmount()
			want := kernelView(t, image, "ro")

			f, file := openImage(t, image)
			compare(t, want, treetest.Snap(t, f, f.Root()), 0)
			if st, err := f.StatFS(t.Context(), f.Root()); err != nil || st.Type != form.kind {
				t.Errorf("StatFS = %+v, %v; want type %s", st, err, form.kind)
			}
			if len(f.Notes()) > 0 {
				t.Errorf("notes of a clean file system: %q", f.Notes())
			}
			treetest.Conform(t, f, treetest.Options{Device: file, MaxInodes: 80, Reopen: reopener(file, f.size)})
		})
	}
}
