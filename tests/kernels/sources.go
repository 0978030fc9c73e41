package kernels

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// suite takes the names of Debian's own suites, of any release.
var suite = regexp.MustCompile(`^(stable|oldstable|testing|unstable|sid|bullseye|bookworm|trixie|forky|duke)(-security)?$`)

// sourcesFor writes a sources.list for a suite, from the archives that the system uses. For a system that is not
// Debian's, the variables AMBIT_KERNELS_ARCHIVE and AMBIT_KERNELS_SECURITY name others.
func sourcesFor(suite, etc string) (string, error) {
	archive, security := systemArchive(etc)
	uri, name := cmp.Or(os.Getenv("AMBIT_KERNELS_ARCHIVE"), archive), "AMBIT_KERNELS_ARCHIVE"
	if strings.HasSuffix(suite, "-security") {
		uri, name = cmp.Or(os.Getenv("AMBIT_KERNELS_SECURITY"), security), "AMBIT_KERNELS_SECURITY"
	}
	if uri == "" {
		return "", fmt.Errorf("find Debian's archive for %s: no such Debian suite in the sources under %s; set %s to its URI", suite, etc, name)
	}
	return fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, uri, suite), nil
}

// systemArchive returns the URIs of the archive and of its security updates that the system uses, each
// "" if there is none.
func systemArchive(etc string) (archive, security string) {
	take := func(uri string, suites []string) {
		for _, s := range suites {
			m := suite.FindStringSubmatch(s)
			switch {
			case m == nil:
			case m[2] == "" && archive == "":
				archive = uri
			case m[2] != "" && security == "":
				security = uri
			}
		}
	}
	stanzas, _ := filepath.Glob(filepath.Join(etc, "sources.list.d/*.sources")) // the pattern is well-formed
	for _, file := range stanzas {
		for stanza := range strings.SplitSeq(read(file), "\n\n") {
			field := func(name string) []string {
				for line := range strings.Lines(stanza) {
					if value, ok := strings.CutPrefix(line, name+":"); ok {
						return strings.Fields(value)
					}
				}
				return nil
			}
			if uris := field("URIs"); len(uris) > 0 && slices.Contains(field("Types"), "deb") && !slices.Contains(field("Enabled"), "no") {
				take(uris[0], field("Suites"))
			}
		}
	}
	lists, _ := filepath.Glob(filepath.Join(etc, "sources.list.d/*.list")) // the pattern is well-formed
	for _, file := range append([]string{filepath.Join(etc, "sources.list")}, lists...) {
		for line := range strings.Lines(read(file)) {
			line, _, _ = strings.Cut(line, "#")
			if start, end := strings.IndexByte(line, '['), strings.IndexByte(line, ']'); start >= 0 && end > start {
				line = line[:start] + line[end+1:]
			}
			if fields := strings.Fields(line); len(fields) >= 4 && fields[0] == "deb" {
				take(fields[1], fields[2:3])
			}
		}
	}
	return archive, security
}

// read returns what is in a file, nothing if it is not there.
func read(file string) string {
	contents, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return string(contents)
}
