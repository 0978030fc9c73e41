package kernels

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
)

// Initramfs writes the files by their paths in the guest as a compressed archive that the kernel unpacks
// into its first file system. All of them can be executed.
func Initramfs(to io.Writer, files map[string]string) error {
	zip, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("write the initramfs: %w", err)
	}
	cpio := &cpio{to: zip, made: map[string]bool{"/": true, ".": true}}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		contents, err := os.ReadFile(files[name])
		if err != nil {
			return fmt.Errorf("write the initramfs: %w", err)
		}
		if err := cpio.file(name, contents); err != nil {
			return fmt.Errorf("write %s into the initramfs: %w", name, err)
		}
	}
	// The kernel opens the first process's output there before anything is mounted.
	if err := cpio.device("/dev/console", 5, 1); err != nil {
		return fmt.Errorf("write the console into the initramfs: %w", err)
	}
	if err := cpio.entry("TRAILER!!!", 0, nil, 0, 0); err != nil {
		return fmt.Errorf("end the initramfs: %w", err)
	}
	if err := zip.Close(); err != nil {
		return fmt.Errorf("end the initramfs: %w", err)
	}
	return nil
}

// cpio writes the "newc" format: a header of hexadecimal numbers, the name and the contents, each padded
// to four bytes.
type cpio struct {
	to    io.Writer
	inode int
	made  map[string]bool
}

const (
	modeDir    = 0o040755
	modeFile   = 0o100755
	modeDevice = 0o020600
)

func (c *cpio) dirs(name string) error {
	if c.made[name] {
		return nil
	}
	if err := c.dirs(path.Dir(name)); err != nil {
		return err
	}
	c.made[name] = true
	return c.entry(name, modeDir, nil, 0, 0)
}

func (c *cpio) file(name string, contents []byte) error {
	if err := c.dirs(path.Dir(name)); err != nil {
		return err
	}
	return c.entry(name, modeFile, contents, 0, 0)
}

func (c *cpio) device(name string, major, minor int) error {
	if err := c.dirs(path.Dir(name)); err != nil {
		return err
	}
	return c.entry(name, modeDevice, nil, major, minor)
}

func (c *cpio) entry(name string, mode int, contents []byte, major, minor int) error {
	c.inode++
	if name[0] == '/' {
		name = name[1:]
	}
	header := "070701"
	for _, field := range []int{c.inode, mode, 0, 0, 1, 0, len(contents), 0, 0, major, minor, len(name) + 1, 0} {
		header += fmt.Sprintf("%08x", field)
	}
	header += name + "\x00"
	for len(header)%4 != 0 {
		header += "\x00"
	}
	if _, err := io.WriteString(c.to, header); err != nil {
		return err
	}
	if _, err := c.to.Write(contents); err != nil {
		return err
	}
	_, err := c.to.Write(make([]byte, -len(contents)&3))
	return err
}
