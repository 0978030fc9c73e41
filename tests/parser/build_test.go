// Package parser tests the kernel's HTTP/1 parser as a program of this machine: the same sources, compiled with
// the address and undefined behaviour sanitizers, read segments from a pipe. It needs a C compiler (gcc, or clang
// with its runtime) and no privilege. The tests that are named TestLoaded have the kernel run it on real connections
// instead, by the same corpus and reference: they need root.
package parser

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ambit/tests/harness"
)

// driverVariable passes the driver's path on to the processes that a fuzz run starts.
const driverVariable = "AMBIT_PARSER_DRIVER"

func TestMain(m *testing.M) {
	harness.Roles{"talk": talk, "hum": hum}.Dispatch()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "parser tests:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if os.Getenv(driverVariable) == "" {
		dir, err := os.MkdirTemp("", "ambit-parser-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		driver := filepath.Join(dir, "driver")
		if err := build(driver); err != nil {
			return 0, err
		}
		if err := os.Setenv(driverVariable, driver); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// build compiles host.c to path, by $CC or the first compiler that can do it.
func build(path string) error {
	compilers := []string{"gcc", "clang-19", "clang"}
	if cc := os.Getenv("CC"); cc != "" {
		compilers = []string{cc}
	}
	var errs []error
	for _, cc := range compilers {
		out, err := exec.Command(cc, "-DAMBIT_HOST", "-I.", "-std=gnu11", "-O1", "-g", "-Wall", "-Werror",
			"-Wno-unused-function", "-fno-strict-aliasing", "-fno-omit-frame-pointer",
			"-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", path, "host.c").CombinedOutput()
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("compile the parser for this machine by %s (Debian: apt install gcc libc6-dev): %w\n%s", cc, err, out))
	}
	return errors.Join(errs...)
}
