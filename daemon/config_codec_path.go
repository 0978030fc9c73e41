package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"
)

// maxSocketPath is what sockaddr_un holds beside its terminating zero.
const maxSocketPath = 107

func text(s string) string { return s }

// splitHostPort demands a port in digits: a name such as "http" would be looked up.
func splitHostPort(text string, lowest int) (host string, err error) {
	host, digits, err := net.SplitHostPort(text)
	if err != nil {
		return "", fmt.Errorf("%q is not HOST:PORT", text)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || int(n) < lowest {
		return "", fmt.Errorf("%q has no port from %d to 65535", text, lowest)
	}
	return host, nil
}

var errCredentials = errors.New("the URL holds a user or password: credentials belong into OTEL_EXPORTER_OTLP_HEADERS")

// checkPlain refuses what no endpoint has.
func checkPlain(text string) error {
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fmt.Errorf("%q has blanks or control characters", text)
	}
	return nil
}

var endpoint = codec[string]{
	noun: "endpoint", allowed: "HOST:PORT, an http:// or https:// URL, or empty", show: text,
	parse: func(text string) (string, error) {
		if text == "" {
			return "", nil
		}
		if err := checkPlain(text); err != nil {
			return "", err
		}
		if !strings.Contains(text, "://") {
			host, err := splitHostPort(text, 1)
			if err == nil && host == "" {
				err = fmt.Errorf("%q names no host", text)
			}
			return text, err
		}
		u, err := url.Parse(text)
		if err != nil {
			return "", errors.New("this is not a URL") // url.Error would repeat a password
		}
		switch {
		case u.User != nil:
			return "", errCredentials
		case u.Scheme != "http" && u.Scheme != "https":
			return "", fmt.Errorf("%q has the scheme %q", text, u.Scheme)
		case u.Hostname() == "":
			return "", fmt.Errorf("%q names no host", text)
		case u.RawQuery != "" || u.Fragment != "":
			return "", fmt.Errorf("%q has a query or fragment", text)
		}
		if u.Port() != "" {
			if _, err := splitHostPort(u.Host, 1); err != nil {
				return "", err
			}
		}
		return text, nil
	},
}

// listenAddress keeps "off" as the empty address.
var listenAddress = codec[string]{
	noun: "address", allowed: "ADDRESS:PORT with an IP address or localhost and a port from 0 (any free one) to 65535, or off",
	parse: func(text string) (string, error) {
		if text == "off" {
			return "", nil
		}
		host, err := splitHostPort(text, 0)
		if err != nil {
			return "", err
		}
		if host != "" && host != "localhost" {
			if _, err := netip.ParseAddr(host); err != nil {
				return "", fmt.Errorf("%q is no IP address", host)
			}
		}
		return text, nil
	},
	show: func(v string) string {
		if v == "" {
			return "off"
		}
		return v
	},
}

// checkPath demands the one way to write an absolute path, so that two settings can be compared.
func checkPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("%q is not absolute", p)
	case strings.ContainsFunc(p, unicode.IsControl):
		return fmt.Errorf("%q has control characters", p)
	case path.Clean(p) != p:
		return fmt.Errorf("%q is not clean, write %s", p, path.Clean(p))
	}
	return nil
}

var socketPath = codec[string]{
	noun: "path", allowed: fmt.Sprintf("an absolute path of at most %d bytes", maxSocketPath), show: text,
	parse: func(p string) (string, error) {
		if len(p) > maxSocketPath {
			return "", fmt.Errorf("the path has %d bytes", len(p))
		}
		if p == "/" {
			return "", errors.New(`"/" is a directory`)
		}
		return p, checkPath(p)
	},
}

// stateFile may be empty.
var stateFile = codec[string]{
	noun: "path", allowed: "an absolute path, or nothing", show: text,
	parse: func(p string) (string, error) {
		switch p {
		case "":
			return "", nil
		case "/":
			return "", errors.New(`"/" is a directory`)
		}
		return p, checkPath(p)
	},
}

var pinDirectory = codec[string]{
	noun: "path", allowed: "an absolute path on a BPF file system such as /sys/fs/bpf/ambit, or nothing", show: text,
	parse: func(p string) (string, error) {
		if p == "" {
			return "", nil
		}
		if strings.Contains(path.Base(p), ".") {
			return "", fmt.Errorf("%q has a dot in its last part, which a BPF file system refuses", p)
		}
		return p, checkPath(p)
	},
}

// checkNamespace takes the name of a namespace under /run/netns, or an absolute path.
func checkNamespace(n string) error {
	switch {
	case n == "":
		return errors.New("an item is empty")
	case strings.TrimSpace(n) != n:
		return fmt.Errorf("%q has blanks around it", n)
	case strings.HasPrefix(n, "/"):
		return checkPath(n)
	case strings.ContainsFunc(n, unicode.IsControl):
		return fmt.Errorf("%q has control characters", n)
	case strings.Contains(n, "/") || n == "." || n == "..":
		return fmt.Errorf("%q is neither a name nor an absolute path", n)
	}
	return nil
}

var namespace = codec[string]{
	noun: "namespace", show: text,
	allowed: "all, or any of ambient, host, names under /run/netns or /run/docker/netns, and absolute paths",
	parse:   func(n string) (string, error) { return n, checkNamespace(n) },
}

var excludedNamespace = codec[string]{
	noun: "namespace", show: text,
	allowed: "host, names under /run/netns or /run/docker/netns, and absolute paths",
	parse: func(n string) (string, error) {
		if n == "all" || n == "ambient" {
			return "", fmt.Errorf("%q cannot be excluded", n)
		}
		return n, checkNamespace(n)
	},
}

var cgroupPath = codec[string]{
	noun: "cgroup", show: text,
	allowed: "paths below the root of cgroup v2 such as /system.slice/sshd.service",
	parse: func(p string) (string, error) {
		if p == "/" {
			return "", errors.New(`"/" is every cgroup`)
		}
		return p, checkPath(p)
	},
}
