package main

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// part is a module that is in the program.
type part struct {
	path, version, sum string
	licence            string   // SPDX
	texts              []string // of its licence files
}

// partsOf finds what a program is made of, and under which licences, in the module cache.
func partsOf(info *buildinfo.BuildInfo, root string) ([]part, error) {
	list := exec.Command("go", "list", "-m", "-json", "all")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list the modules: %w", err)
	}
	dirs := make(map[string]string)
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var m struct{ Path, Dir string }
		if err := decoder.Decode(&m); err != nil {
			return nil, err
		}
		dirs[m.Path] = m.Dir
	}
	parts := []part{{path: "std", version: info.GoVersion, licence: "BSD-3-Clause", texts: []string{goLicence()}}}
	for _, dep := range info.Deps {
		p := part{path: dep.Path, version: dep.Version, sum: dep.Sum}
		if p.texts, err = licenceTexts(dirs[dep.Path]); err != nil {
			return nil, fmt.Errorf("find the licence of %s: %w", dep.Path, err)
		}
		var kinds []string
		for _, text := range p.texts {
			if kind := licenceOf(text); kind != "" && !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
		}
		if p.licence = strings.Join(kinds, " AND "); p.licence == "" {
			return nil, fmt.Errorf("the licence of %s is none that is known: say in packaging/parts.go how it is told", dep.Path)
		}
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.path, b.path) })
	return parts, nil
}

// goLicence is that of Go itself.
func goLicence() string {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err == nil {
		if text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "LICENSE")); err == nil {
			return string(text)
		}
	}
	return "The licence of Go: https://go.dev/LICENSE"
}

var licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)([-.].*)?$`)

func licenceTexts(dir string) (texts []string, err error) {
	if dir == "" {
		return nil, errors.New("the module is not there")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() && licenceName.MatchString(e.Name()) {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			texts = append(texts, string(text))
		}
	}
	return texts, nil
}

// licenceOf tells a licence by its words; "" is none that is known, such as a NOTICE.
func licenceOf(text string) string {
	words := strings.Join(strings.Fields(text), " ")
	for _, known := range []struct{ words, name string }{
		{"Apache License Version 2.0", "Apache-2.0"},
		{"Permission is hereby granted, free of charge", "MIT"},
		{"Neither the name of", "BSD-3-Clause"},
		{"Redistribution and use in source and binary forms", "BSD-2-Clause"},
		{"Mozilla Public License", "MPL-2.0"},
		{"Permission to use, copy, modify, and/or distribute", "ISC"},
	} {
		if strings.Contains(words, known.words) {
			return known.name
		}
	}
	return ""
}

// writeCopyright writes Debian's machine-readable file: ambit's own licences, and those of what is linked into it.
func writeCopyright(path string, parts []part) error {
	var b strings.Builder
	b.WriteString("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: ambit\n\n")
	b.WriteString("Files: *\nCopyright: The ambit authors\nLicense: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n\n")
	b.WriteString("Files: bpf/*.h bpf/*.c l7/*.h tc/*.h\nCopyright: The ambit authors\nLicense: GPL-2.0-only or Apache-2.0\n" +
		" The programs that are loaded into the kernel call helpers that are for programs under the GPL.\n" +
		" On Debian systems the text of the GPL is in /usr/share/common-licenses/GPL-2.\n")
	for _, p := range parts {
		fmt.Fprintf(&b, "\nFiles: %s\nComment: version %s, linked into /usr/bin/ambit\nCopyright: its authors, see the text\nLicense: %s\n", p.path, p.version, p.licence)
		for _, text := range p.texts {
			if licenceOf(text) == "Apache-2.0" {
				text = "On Debian systems the text is in /usr/share/common-licenses/Apache-2.0."
			}
			for line := range strings.Lines(text) {
				if line = strings.TrimRight(line, " \t\r\n"); line == "" {
					line = "."
				}
				b.WriteString(" " + line + "\n")
			}
			b.WriteString(" .\n")
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// writeSBOM writes what the program is made of, as CycloneDX 1.6.
func writeSBOM(path, version string, parts []part) error {
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{
		BOMRef: "ambit", Type: cyclonedx.ComponentTypeApplication, Name: "ambit", Version: version,
		Licenses: &cyclonedx.Licenses{{Expression: "Apache-2.0 AND GPL-2.0-only"}},
	}}
	var components []cyclonedx.Component
	var refs []string
	for _, p := range parts {
		url := "pkg:golang/" + p.path + "@" + p.version
		refs = append(refs, url)
		components = append(components, cyclonedx.Component{
			BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: p.path, Version: p.version, PackageURL: url,
			Licenses: &cyclonedx.Licenses{{Expression: p.licence}},
		})
	}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: "ambit", Dependencies: &refs}}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(cyclonedx.NewBOMEncoder(out, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom), out.Close())
}
