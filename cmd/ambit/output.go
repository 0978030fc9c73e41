package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"unicode"
	"unicode/utf16"

	"ambit/daemon"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// printJSON writes v so that a terminal can show it, too: encoding/json leaves DEL, the C1 controls and
// changes of direction as they are.
func printJSON(w io.Writer, v any) error {
	var plain bytes.Buffer
	encoder := json.NewEncoder(&plain)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	var safe bytes.Buffer
	for _, r := range plain.String() {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			safe.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&safe, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&safe, `\u%04x`, r)
		}
	}
	_, err := w.Write(safe.Bytes())
	return err
}

// columns is the width of the terminal that w is, 0 where it is none.
func columns(w io.Writer) int {
	file, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return min(int(size.Col), 1000)
}

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return p.printVersion(c)
		},
	}
}

func (p *program) printVersion(c *cli.Context) error {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	if wantsJSON(c) {
		return printJSON(p.out, map[string]string{"version": daemon.Version, "go": runtime.Version(), "platform": platform})
	}
	_, err := fmt.Fprintf(p.out, "ambit %s (%s %s)\n", daemon.Version, runtime.Version(), platform)
	return err
}
