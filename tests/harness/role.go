package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Role is something that a process does when this program is started again for it: it runs until it fails or
// is killed. The arguments are those of RoleProgram.
type Role func(args []string) error

// Roles lets one program (a test binary, the demo) be several processes without another binary to build.
type Roles map[string]Role

const roleArgument = "lab-role"

// dispatched tells that Dispatch was called. Without it a process that is started for a role would run the
// whole test suite again, and so on without end.
var dispatched bool

// Dispatch runs the role that this process was started for and exits, or returns if it was started for none.
// Call it first thing in main or TestMain.
func (r Roles) Dispatch() {
	dispatched = true
	if len(os.Args) < 3 || os.Args[1] != roleArgument {
		return
	}
	name := os.Args[2]
	role, ok := r[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "role %s is not known to %s: add it to the Roles that it dispatches\n", name, os.Args[0])
		os.Exit(2)
	}
	// What ps, and the kernel's record of who made a socket, should call it.
	if err := os.WriteFile("/proc/self/comm", []byte(filepath.Base(name)), 0); err != nil {
		fmt.Fprintf(os.Stderr, "name process %s: %v\n", name, err)
		os.Exit(1)
	}
	if err := role(os.Args[3:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// RoleProgram is the program that runs a role of this executable.
func RoleProgram(name string, args ...string) (Program, error) {
	if !dispatched {
		return Program{}, errors.New("start a role: call Roles.Dispatch first thing in main or TestMain")
	}
	return Program{Path: "/proc/self/exe", Args: append([]string{roleArgument, name}, args...)}, nil
}
