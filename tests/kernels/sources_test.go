package kernels

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSourcesFollowTheSystem(t *testing.T) {
	const signed = "deb [signed-by=" + keyring + "] "
	for _, test := range []struct {
		about, file, contents, want, security string
	}{
		{"one stanza a suite", "sources.list.d/debian.sources", "Types: deb\nURIs: http://a.example/debian\nSuites: trixie trixie-updates\nComponents: main\n\n" +
			"Types: deb\nURIs: http://s.example/security\nSuites: trixie-security\nComponents: main\n",
			signed + "http://a.example/debian bookworm main\n", signed + "http://s.example/security bookworm-security main\n"},
		{"one line a suite", "sources.list", "# deb http://no.example/debian sid main\ndeb-src http://no.example/debian sid main\n" +
			"deb [arch=amd64 signed-by=/x.gpg] http://a.example/debian stable main contrib\ndeb http://s.example/ stable-security main\n",
			signed + "http://a.example/debian bookworm main\n", signed + "http://s.example/ bookworm-security main\n"},
		{"others are passed over", "sources.list.d/x.list", "deb http://x.example/ cloud-sdk main\ndeb http://b.example/ jammy main\ndeb http://a.example/debian sid main\n",
			signed + "http://a.example/debian bookworm main\n", ""},
		{"what is disabled too", "sources.list.d/x.sources", "Enabled: no\nTypes: deb\nURIs: http://no.example/\nSuites: sid\n\nTypes: deb\nURIs: http://a.example/debian\nSuites: sid\n",
			signed + "http://a.example/debian bookworm main\n", ""},
	} {
		etc := t.TempDir()
		file := filepath.Join(etc, test.file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(test.contents), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := sourcesFor("bookworm", etc); err != nil || got != test.want {
			t.Errorf("%s: %v, got\n%swant\n%s", test.about, err, got, test.want)
		}
		switch got, err := sourcesFor("bookworm-security", etc); {
		case test.security == "":
			if err == nil || !strings.Contains(err.Error(), "AMBIT_KERNELS_SECURITY") {
				t.Errorf("%s: security updates from nowhere: %v, %q", test.about, err, got)
			}
		case err != nil || got != test.security:
			t.Errorf("%s: %v, got\n%swant\n%s", test.about, err, got, test.security)
		}
	}
	if _, err := sourcesFor("bookworm", t.TempDir()); err == nil || !strings.Contains(err.Error(), "AMBIT_KERNELS_ARCHIVE") {
		t.Errorf("without any source: %v", err)
	}
}
