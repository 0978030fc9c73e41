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
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Series is a line of Debian's cloud kernels, of which the newest build is booted.
type Series struct {
	Version string   // major and minor number, e.g. 6.1
	Arch    string   // as Debian calls it: amd64 or arm64
	Suite   string   // of the archive that has it, e.g. bookworm-security
	Modules []string // what a guest needs that is not built in, in the order in which they are loaded
}

// String names it as the table does, e.g. "6.1" and "6.1 arm64".
func (s Series) String() string {
	if s.Arch == "amd64" {
		return s.Version
	}
	return s.Version + " " + s.Arch
}

// Kernel is what a guest needs of a kernel.
type Kernel struct {
	Build   string // Debian's name of it, e.g. 6.1.0-56
	Arch    string
	Image   string   // path of vmlinuz
	Modules []string // paths
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

// Fetch returns the newest build of a series. It asks the archive once a day, with an apt configuration of its own
// that leaves the system's untouched; when the archive cannot be reached, what was fetched before serves. A series
// that the archive does not have is an error, unless a build was fetched before.
func Fetch(ctx context.Context, s Series, cache string) (Kernel, error) {
	dir := filepath.Join(cache, s.Version+"-"+s.Arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Kernel{}, fmt.Errorf("make the kernel cache: %w; set XDG_CACHE_HOME to a directory that can be written", err)
	}
	var stale error
	stamp := filepath.Join(dir, "asked")
	build := newest(dir, s)
	if info, err := os.Stat(stamp); err != nil || time.Since(info.ModTime()) > fresh || build == "" {
		downloaded, err := download(ctx, s, cache, dir)
		switch {
		case err == nil:
			build = downloaded
			if err := os.WriteFile(stamp, nil, 0o644); err != nil {
				return Kernel{}, fmt.Errorf("note the download of a kernel: %w", err)
			}
		case build == "":
			return Kernel{}, err
		default:
			stale = err
		}
	}
	kernel := kernelAt(dir, build, s)
	kernel.Stale = stale
	return kernel, nil
}

// kernelAt names the files of a build.
func kernelAt(dir, build string, s Series) Kernel {
	kernel := Kernel{Build: build, Arch: s.Arch, Image: filepath.Join(dir, build, "vmlinuz")}
	for _, module := range s.Modules {
		kernel.Modules = append(kernel.Modules, filepath.Join(dir, build, module+".ko"))
	}
	return kernel
}

// newest returns the build that was fetched last and is whole, "" if there is none. Others are removed.
func newest(dir string, s Series) string {
	images, _ := filepath.Glob(filepath.Join(dir, "*/vmlinuz")) // the pattern is well-formed
	slices.SortFunc(images, func(a, b string) int { return age(b).Compare(age(a)) })
	build := ""
	for _, image := range images {
		name := filepath.Base(filepath.Dir(image))
		if build == "" && complete(kernelAt(dir, name, s)) {
			build = name
			continue
		}
		_ = os.RemoveAll(filepath.Dir(image)) // it costs room, nothing else
	}
	return build
}

func age(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// download fetches the newest build of the series into a directory of its own in dir, and returns its name.
func download(ctx context.Context, s Series, cache, dir string) (string, error) {
	options, err := aptFor(s, cache)
	if err != nil {
		return "", err
	}
	if _, err := command(ctx, dir, "apt-get", append(options, "update", "-q", "--error-on=any")...); err != nil {
		return "", fmt.Errorf("list the packages of %s: %w", s.Suite, err)
	}
	names, err := command(ctx, dir, "apt-cache", append(options, "pkgnames", "linux-")...)
	if err != nil {
		return "", fmt.Errorf("list the kernels of %s: %w", s.Suite, err)
	}
	build, packages, err := choose(ctx, s, string(names))
	if err != nil {
		return "", err
	}
	if complete(kernelAt(dir, build, s)) {
		return build, nil
	}
	to := filepath.Join(dir, build)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", fmt.Errorf("download kernel %s: %w", build, err)
	}
	if _, err := command(ctx, to, "apt-get", append(append(options, "download"), packages...)...); err != nil {
		return "", fmt.Errorf("download kernel %s of %s: %w", build, s.Suite, err)
	}
	debs, _ := filepath.Glob(filepath.Join(to, "*.deb")) // the pattern is well-formed
	for _, deb := range debs {
		if err := unpack(ctx, deb, s, to); err != nil {
			return "", err
		}
		_ = os.Remove(deb) // it costs room, nothing else
	}
	if !complete(kernelAt(dir, build, s)) {
		return "", fmt.Errorf("unpack kernel %s: vmlinuz and all of %s are not in %s", build, strings.Join(s.Modules, ", "), strings.Join(packages, ", "))
	}
	return build, nil
}

// aptFor writes an apt configuration for the series alone and returns the options that have apt use it.
func aptFor(s Series, cache string) ([]string, error) {
	sources, err := sourcesFor(s.Suite, "/etc/apt")
	if err != nil {
		return nil, err
	}
	apt := filepath.Join(cache, "apt", s.Suite+"-"+s.Arch)
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "preferences.d"} {
		if err := os.MkdirAll(filepath.Join(apt, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make apt's directories: %w", err)
		}
	}
	for name, contents := range map[string]string{"sources.list": sources, "status": ""} {
		if err := os.WriteFile(filepath.Join(apt, name), []byte(contents), 0o644); err != nil {
			return nil, fmt.Errorf("write apt's %s: %w", name, err)
		}
	}
	return []string{
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(apt, "sources.list"), "-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::Etc::preferencesparts=" + filepath.Join(apt, "preferences.d"), "-o", "Dir::Etc::preferences=-",
		"-o", "Dir::State=" + filepath.Join(apt, "state"), "-o", "Dir::State::status=" + filepath.Join(apt, "status"),
		"-o", "Dir::Cache=" + filepath.Join(apt, "cache"), "-o", "APT::Architecture=" + s.Arch, "-o", "APT::Architectures::=" + s.Arch,
		"-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20",
	}, nil
}

// kernelPackage takes the packages that hold a cloud kernel. From 6.19 on there are two, and the image is empty.
var kernelPackage = regexp.MustCompile(`^linux-(?:image|binary|modules)-(([0-9]+\.[0-9]+)\..*)-cloud-([a-z0-9]+)$`)

// choose returns the newest build of the series among the names of packages, and the packages that it is in.
func choose(ctx context.Context, s Series, names string) (build string, packages []string, err error) {
	builds, others := map[string][]string{}, map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		switch m := kernelPackage.FindStringSubmatch(name); {
		case m == nil || m[3] != s.Arch:
		case m[2] == s.Version:
			builds[m[1]] = append(builds[m[1]], name)
		default:
			others[m[2]] = true
		}
	}
	if len(builds) == 0 {
		return "", nil, fmt.Errorf("find a kernel %s for %s: Debian's %s has none, or none any more; it has %s",
			s.Version, s.Arch, s.Suite, strings.Join(slices.Sorted(maps.Keys(others)), ", "))
	}
	sorted, err := filter(ctx, []byte(strings.Join(slices.Collect(maps.Keys(builds)), "\n")), "sort", "-V")
	if err != nil {
		return "", nil, fmt.Errorf("find the newest kernel %s: %w", s.Version, err)
	}
	fields := strings.Fields(string(sorted))
	build = fields[len(fields)-1]
	return build, builds[build], nil
}

// unpack takes the image and the modules out of a package.
func unpack(ctx context.Context, deb string, s Series, dir string) error {
	contents, err := command(ctx, dir, "dpkg-deb", "--fsys-tarfile", deb)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", deb, err)
	}
	files := tar.NewReader(bytes.NewReader(contents))
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", deb, err)
		}
		name, compressed := strings.CutSuffix(filepath.Base(header.Name), ".xz")
		module, isModule := strings.CutSuffix(name, ".ko")
		switch {
		case strings.HasPrefix(name, "vmlinuz"):
			name = "vmlinuz"
		case isModule && slices.Contains(s.Modules, module):
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
			return fmt.Errorf("unpack %s of %s: %w", header.Name, deb, err)
		}
	}
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
