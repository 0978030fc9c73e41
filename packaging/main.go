// Command packaging makes dist/*.deb and dist/*.rpm of programs that are built already, the same bytes of the same sources.
// It is a module of its own: what makes packages is no part of ambit.
package main

import (
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

var (
	version = flag.String("version", "", "of git describe")
	epoch   = flag.Int64("epoch", 0, "time of the sources, seconds since the Unix epoch")
	root    = flag.String("root", ".", "of the sources")
	build   = flag.String("build", "build/package", "directory that has ARCH/ambit, and takes what is made on the way")
	dist    = flag.String("dist", "dist", "directory for the packages")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "packaging: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	if err := os.MkdirAll(*dist, 0o755); err != nil {
		return err
	}
	host, err := hostProgram()
	if err != nil {
		return err
	}
	if err := generate(host); err != nil {
		return err
	}
	for _, arch := range []string{"amd64", "arm64"} {
		program := filepath.Join(*build, arch, "ambit")
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return fmt.Errorf("read what %s is made of: %w", program, err)
		}
		parts, err := partsOf(info, *root)
		if err != nil {
			return err
		}
		if err := writeCopyright(filepath.Join(*build, "copyright"), parts); err != nil {
			return err
		}
		if err := writeSBOM(filepath.Join(*build, "ambit.cdx.json"), packageVersion(*version), parts); err != nil {
			return err
		}
		for _, format := range []string{"deb", "rpm"} {
			if err := write(format, arch, program); err != nil {
				return fmt.Errorf("make the %s for %s: %w", format, arch, err)
			}
		}
	}
	return nil
}

// hostProgram is the one that runs here.
func hostProgram() (string, error) {
	arch, err := exec.Command("go", "env", "GOHOSTARCH").Output()
	if err != nil {
		return "", fmt.Errorf("ask for this machine's architecture: %w", err)
	}
	return filepath.Abs(filepath.Join(*build, strings.TrimSpace(string(arch)), "ambit"))
}

// generate has ambit print its manual page and completions.
func generate(program string) error {
	for kind, name := range map[string]string{"man": "ambit.1.gz", "bash": "ambit.bash", "zsh": "_ambit", "fish": "ambit.fish"} {
		text, err := exec.Command(program, "generate", kind).Output()
		if err != nil {
			return fmt.Errorf("let ambit print its %s: %w", kind, err)
		}
		if strings.HasSuffix(name, ".gz") {
			if text, err = compressed(text); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(*build, name), text, 0o644); err != nil {
			return err
		}
	}
	changes, err := os.ReadFile(filepath.Join(*root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"NEWS.md.gz": changes, "changelog.gz": debianChangelog(string(changes))} {
		if text, err = compressed(text); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(*build, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// debianChangelog has the changes in Debian's form. What is not released yet is this package.
func debianChangelog(changes string) []byte {
	var b strings.Builder
	end := ""
	for line := range strings.Lines(changes) {
		line = strings.TrimRight(line, "\n")
		if title, found := strings.CutPrefix(line, "## "); found {
			name, day, _ := strings.Cut(title, " ")
			at := time.Unix(*epoch, 0).UTC()
			if title == "Unreleased" {
				name = packageVersion(*version)
			} else if t, err := time.Parse("(2006-01-02)", strings.TrimSpace(day)); err == nil {
				at = t
			}
			fmt.Fprintf(&b, "%sambit (%s) unstable; urgency=medium\n\n", end, name)
			end = fmt.Sprintf("\n -- %s  %s\n\n", maintainer, at.Format(time.RFC1123Z))
		} else if end != "" && line != "" {
			wrap(&b, strings.Replace(line, "- ", "* ", 1))
		}
	}
	b.WriteString(strings.TrimRight(end, "\n") + "\n")
	return []byte(b.String())
}

// wrap writes a line of at most 78 columns, as several where it is longer.
func wrap(b *strings.Builder, line string) {
	indent := "  " + line[:len(line)-len(strings.TrimLeft(line, " "))]
	column := 0
	for i, word := range strings.Fields(line) {
		switch {
		case i == 0:
			b.WriteString(indent + word)
			column = len(indent) + len(word)
		case column+1+len(word) > 78:
			b.WriteString("\n    " + word)
			column = 4 + len(word)
		default:
			b.WriteString(" " + word)
			column += 1 + len(word)
		}
	}
	b.WriteString("\n")
}

const maintainer = "The ambit authors <ambit@ambit.example>"

// compressed is the same for the same text: gzip's header has neither a name nor a time.
func compressed(text []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(text)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}

var described = regexp.MustCompile(`^v?(\d+\.\d+\.\d+)(?:-(\d+)-g([0-9a-f]+))?(-dirty)?$`)

// packageVersion makes a version that packages can be ordered by of what git describes: commits behind a tag are newer than
// it, and what has no tag is older than all.
func packageVersion(text string) string {
	if m := described.FindStringSubmatch(text); m != nil {
		v := m[1]
		if m[2] != "" {
			v += "+" + m[2] + ".g" + m[3]
		}
		return v
	}
	return "0.0.0~" + strings.Trim(regexp.MustCompile(`[^0-9A-Za-z.+~]+`).ReplaceAllString(text, "."), ".")
}

func write(format, arch, program string) error {
	at := time.Unix(*epoch, 0).UTC()
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "ambit", Arch: arch, Platform: "linux", Version: packageVersion(*version), VersionSchema: "none",
		Section: "net", Priority: "optional", Maintainer: maintainer, Vendor: "The ambit authors",
		License: "Apache-2.0 AND GPL-2.0-only", MTime: at,
		Description: "traces HTTP and gRPC of a node from the kernel\n" +
			"ambit is a node daemon that parses HTTP/1, HTTP/2 and gRPC in the kernel by\n" +
			"eBPF programs, decides there which requests are worth a span, and sends\n" +
			"spans and metrics by OTLP. It needs no change to any application, and no\n" +
			"sidecar or waypoint in an Istio ambient mesh.",
		Overridables: nfpm.Overridables{
			Contents: contents(format, program, at),
			Scripts: nfpm.Scripts{
				PostInstall: script(format, "postinstall"), PreRemove: script(format, "preremove"), PostRemove: script(format, "postremove"),
			},
			Deb: nfpm.Deb{Compression: "xz"},
			RPM: nfpm.RPM{Compression: "xz", Group: "System Environment/Daemons", Summary: "Traces HTTP and gRPC of a node from the kernel", BuildHost: "localhost"},
		},
	})
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(*dist, packager.ConventionalFileName(info)))
	if err != nil {
		return err
	}
	fmt.Println("packaging:", out.Name())
	return errors.Join(packager.Package(info, out), out.Close())
}

func script(format, name string) string {
	return filepath.Join(*root, "packaging/scripts", format+"-"+name)
}

// contents are the files of a package.
func contents(format, program string, at time.Time) files.Contents {
	zsh := map[string]string{"deb": "/usr/share/zsh/vendor-completions/_ambit", "rpm": "/usr/share/zsh/site-functions/_ambit"}
	doc := map[string]string{"rpm": files.TypeRPMDoc}
	made := func(name string) string { return filepath.Join(*build, name) }
	source := func(name string) string { return filepath.Join(*root, name) }
	list := files.Contents{
		file(program, "/usr/bin/ambit", 0o755, ""),
		file(source("packaging/systemd/ambit.service"), "/usr/lib/systemd/system/ambit.service", 0o644, ""),
		file(source("packaging/systemd/ambit.slice"), "/usr/lib/systemd/system/ambit.slice", 0o644, ""),
		file(source("packaging/ambit.yaml"), "/etc/ambit/ambit.yaml", 0o640, files.TypeConfigNoReplace),
		file(made("ambit.1.gz"), "/usr/share/man/man1/ambit.1.gz", 0o644, doc[format]),
		file(made("ambit.bash"), "/usr/share/bash-completion/completions/ambit", 0o644, ""),
		file(made("_ambit"), zsh[format], 0o644, ""),
		file(made("ambit.fish"), "/usr/share/fish/vendor_completions.d/ambit.fish", 0o644, ""),
		file(made("copyright"), "/usr/share/doc/ambit/copyright", 0o644, doc[format]),
		file(made("NEWS.md.gz"), "/usr/share/doc/ambit/NEWS.md.gz", 0o644, doc[format]),
		file(made("ambit.cdx.json"), "/usr/share/doc/ambit/ambit.cdx.json", 0o644, doc[format]),
	}
	if format == "deb" {
		list = append(list,
			file(source("packaging/lintian-overrides"), "/usr/share/lintian/overrides/ambit", 0o644, ""),
			file(made("changelog.gz"), "/usr/share/doc/ambit/changelog.gz", 0o644, ""))
	}
	for _, f := range list {
		f.FileInfo.MTime = at
	}
	return list
}

func file(source, destination string, mode os.FileMode, kind string) *files.Content {
	return &files.Content{
		Source: source, Destination: destination, Type: kind,
		FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode},
	}
}
