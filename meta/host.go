package meta

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// host is what every resource of this node shares.
type host struct {
	name string
	id   string // machine ID; "" where there is none
	arch string // as the semantic conventions write it
	boot string // boot ID: process numbers and start times begin anew with each
}

var machineID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// readHost never fails: what cannot be read is left out of the resources.
func readHost(root, name string, count *counters) host {
	read := func(path string) string {
		contents, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(contents))
	}
	h := host{
		name: count.clean(first(name, read("proc/sys/kernel/hostname")), maxValue),
		boot: read("proc/sys/kernel/random/boot_id"),
	}
	for _, path := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		if id := read(path); machineID.MatchString(id) {
			h.id = id
			break
		}
	}
	switch arch := runtime.GOARCH; arch {
	case "386":
		h.arch = "x86"
	case "arm":
		h.arch = "arm32"
	case "ppc64le":
		h.arch = "ppc64"
	default:
		h.arch = arch
	}
	return h
}
