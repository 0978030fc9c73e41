// Package kernels boots Debian's kernels under software emulation and runs checks in them.
//
// A guest is a kernel, its modules and one static program, which is process 1 (see guest). It needs no
// root, no /dev/kvm and no network.
package kernels

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Release is a Debian release whose kernel is booted.
type Release struct {
	Name     string // as in the archive, e.g. bookworm
	Modules  []string
	Ceilings Ceilings
}

// Kernel is what a guest needs of a kernel package.
type Kernel struct {
	Version string // of the kernel package
	Image   string // path of vmlinuz
	Modules []string
	// Stale is why the archive was not asked for a newer one; nil if it was, or need not be yet.
	Stale error
}

const (
	keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	// fresh is how long a downloaded package is used without asking for a newer one.
	fresh = 24 * time.Hour
)

// CacheDir is where packages are kept between runs: ambit-kernels in the user's cache, or in /var/cache.
func CacheDir() string {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		base = "/var/cache"
	}
	return filepath.Join(base, "ambit-kernels")
}

// Fetch returns the newest cloud kernel of a release, and the modules by the names in release.Modules,
// in that order, decompressed. It asks the archive once a day, with an apt configuration of its own that
// leaves the system's untouched; when the archive cannot be reached, what was fetched before serves.
func Fetch(ctx context.Context, release Release, cache string) (Kernel, error) {
	dir := filepath.Join(cache, release.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Kernel{}, fmt.Errorf("make the kernel cache: %w; set XDG_CACHE_HOME to a directory that can be written", err)
	}
	var stale error
	stamp := filepath.Join(dir, "asked")
	deb := newest(dir)
	if info, err := os.Stat(stamp); err != nil || time.Since(info.ModTime()) > fresh || deb == "" {
		downloaded, err := download(ctx, release.Name, dir)
		switch {
		case err == nil:
			deb = downloaded
			if err := os.WriteFile(stamp, nil, 0o644); err != nil {
				return Kernel{}, fmt.Errorf("note the download of a kernel: %w", err)
			}
		case deb == "":
			return Kernel{}, err
		default:
			stale = err
		}
	}
	kernel, err := unpack(ctx, deb, release)
	kernel.Stale = stale
	return kernel, err
}

// newest returns the package that was downloaded last, "" if there is none. Older ones are removed.
func newest(dir string) string {
	debs, _ := filepath.Glob(filepath.Join(dir, "linux-image-*.deb")) // the pattern is well-formed
	slices.SortFunc(debs, func(a, b string) int { return age(a).Compare(age(b)) })
	if len(debs) == 0 {
		return ""
	}
	for _, old := range debs[:len(debs)-1] {
		_ = os.Remove(old) // it costs room, nothing else
	}
	return debs[len(debs)-1]
}

func age(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// download asks the archive for the release's kernel and returns the path of its package.
func download(ctx context.Context, release, dir string) (string, error) {
	sources, err := sourcesFor(release, "/etc/apt")
	if err != nil {
		return "", err
	}
	apt := filepath.Join(dir, "apt")
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "preferences.d"} {
		if err := os.MkdirAll(filepath.Join(apt, sub), 0o755); err != nil {
			return "", fmt.Errorf("make apt's directories: %w", err)
		}
	}
	for name, contents := range map[string]string{"sources.list": sources, "status": ""} {
		if err := os.WriteFile(filepath.Join(apt, name), []byte(contents), 0o644); err != nil {
			return "", fmt.Errorf("write apt's %s: %w", name, err)
		}
	}
	options := []string{
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(apt, "sources.list"), "-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::Etc::preferencesparts=" + filepath.Join(apt, "preferences.d"), "-o", "Dir::Etc::preferences=-",
		"-o", "Dir::State=" + filepath.Join(apt, "state"), "-o", "Dir::State::status=" + filepath.Join(apt, "status"),
		"-o", "Dir::Cache=" + filepath.Join(apt, "cache"), "-o", "APT::Architecture=amd64", "-o", "APT::Architectures::=amd64",
		"-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20",
	}
	if _, err := command(ctx, dir, "apt-get", append(options, "update", "-q", "--error-on=any")...); err != nil {
		return "", fmt.Errorf("list the packages of %s: %w", release, err)
	}
	depends, err := command(ctx, dir, "apt-cache", append(options, "depends", "linux-image-cloud-amd64")...)
	if err != nil {
		return "", fmt.Errorf("find the kernel of %s: %w", release, err)
	}
	name := ""
	for line := range strings.Lines(string(depends)) {
		if depend, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			name = "linux-image-" + depend
		}
	}
	if name == "" {
		return "", fmt.Errorf("find the kernel of %s: linux-image-cloud-amd64 depends on no image, but says %q", release, depends)
	}
	if _, err := command(ctx, dir, "apt-get", append(options, "download", name)...); err != nil {
		return "", fmt.Errorf("download %s: %w", name, err)
	}
	debs, _ := filepath.Glob(filepath.Join(dir, name+"_*.deb")) // the pattern is well-formed
	if len(debs) == 0 {
		return "", fmt.Errorf("download %s: apt-get left no package in %s", name, dir)
	}
	deb := slices.MaxFunc(debs, func(a, b string) int { return age(a).Compare(age(b)) })
	now := time.Now() // apt gives the package the archive's time
	if err := os.Chtimes(deb, now, now); err != nil {
		return "", fmt.Errorf("note the download of %s: %w", name, err)
	}
	return deb, nil
}

// unpack takes the image and the modules out of a package, beside which they stay.
func unpack(ctx context.Context, deb string, release Release) (Kernel, error) {
	dir := strings.TrimSuffix(deb, ".deb")
	kernel := Kernel{Version: strings.SplitN(filepath.Base(dir), "_", 3)[1], Image: filepath.Join(dir, "vmlinuz")}
	for _, module := range release.Modules {
		kernel.Modules = append(kernel.Modules, filepath.Join(dir, module+".ko"))
	}
	if complete(kernel) {
		return kernel, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return kernel, fmt.Errorf("unpack %s: %w", deb, err)
	}
	contents, err := command(ctx, dir, "dpkg-deb", "--fsys-tarfile", deb)
	if err != nil {
		return kernel, fmt.Errorf("unpack %s: %w; remove it if it is damaged", deb, err)
	}
	files := tar.NewReader(bytes.NewReader(contents))
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return kernel, fmt.Errorf("unpack %s: %w; remove it if it is damaged", deb, err)
		}
		name := filepath.Base(header.Name)
		module, compressed := strings.CutSuffix(name, ".xz")
		switch {
		case strings.HasPrefix(name, "vmlinuz-"):
			name = "vmlinuz"
		case slices.Contains(kernel.Modules, filepath.Join(dir, module)):
			name = module
		default:
			continue
		}
		data, err := io.ReadAll(files)
		if err == nil && compressed {
			data, err = filter(ctx, data, "xz", "-dc")
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil {
			return kernel, fmt.Errorf("unpack %s of %s: %w", header.Name, deb, err)
		}
	}
	if !complete(kernel) {
		return kernel, fmt.Errorf("unpack %s: it does not hold vmlinuz and all of %s", deb, strings.Join(release.Modules, ", "))
	}
	return kernel, nil
}

func complete(kernel Kernel) bool {
	for _, file := range append([]string{kernel.Image}, kernel.Modules...) {
		if info, err := os.Stat(file); err != nil || info.Size() == 0 {
			return false
		}
	}
	return true
}

// command runs a program and returns its output; an error holds what it wrote to standard error.
func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	return output(c)
}

func filter(ctx context.Context, input []byte, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Stdin = bytes.NewReader(input)
	return output(c)
}

func output(c *exec.Cmd) ([]byte, error) {
	var out, complaint bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaint
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", filepath.Base(c.Path), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.Bytes(), nil
}
