package tc

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// PrivilegeError says which capability is missing, and for what. It unwraps to the system's error.
type PrivilegeError struct {
	// Missing are the capabilities, as "CAP_NET_ADMIN".
	Missing []string
	// Doing is what needs them.
	Doing string
	// Err is the system's error.
	Err error
}

func (e *PrivilegeError) Error() string {
	return fmt.Sprintf("%s: %v: it needs %s, run as root or grant it",
		e.Doing, e.Err, strings.Join(e.Missing, " and "))
}

func (e *PrivilegeError) Unwrap() error { return e.Err }

func privilege(doing, capability string, err error) error {
	return &PrivilegeError{Missing: []string{capability}, Doing: doing, Err: err}
}

// Capabilities are the calling thread's effective ones, a bit each.
func Capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read own capabilities: %w", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

// CheckPrivileges looks at the calling thread's effective capabilities, so that a missing one is told once
// and at the start. The error is a *PrivilegeError where one is missing.
func CheckPrivileges() error {
	have, err := Capabilities()
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range []struct {
		name string
		bit  int
	}{
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN},
	} {
		if have>>c.bit&1 == 0 {
			missing = append(missing, c.name)
		}
	}
	if missing != nil {
		return &PrivilegeError{Missing: missing, Doing: "tap network namespaces", Err: unix.EPERM}
	}
	return nil
}
