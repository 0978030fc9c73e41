package main

import (
	"fmt"
	"io"
	"strings"

	"ambit/admin"
	"ambit/daemon"

	"github.com/urfave/cli/v2"
)

func (p *program) doctorCommand() *cli.Command {
	given := texts{}
	return &cli.Command{
		Name:        "doctor",
		Usage:       "check whether this host has what ambit needs, and say what to do where it has not",
		Description: "Takes the flags of run, and changes nothing. It fails where ambit would not run, or its spans reach nobody.",
		Flags:       append([]cli.Flag{jsonFlag(), given.configFlag()}, given.settingFlags()...),
		Action: func(c *cli.Context) error {
			cfg, _, err := p.load(c, given)
			if err != nil {
				return err
			}
			findings := daemon.Examine(c.Context, cfg)
			if wantsJSON(c) {
				err = printJSON(p.out, findings)
			} else {
				err = writeFindings(p.out, findings)
			}
			if err != nil {
				return err
			}
			var failed []string
			for _, f := range findings {
				if f.Result == daemon.FoundFailure {
					failed = append(failed, f.Check)
				}
			}
			if failed != nil {
				return fmt.Errorf("this host is not fit for ambit as it is configured: %s", strings.Join(failed, ", "))
			}
			return nil
		},
	}
}

func writeFindings(w io.Writer, findings []daemon.Finding) error {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%-8s %s: %s\n", f.Result, f.Check, admin.Printable(f.Found))
		if f.Do != "" {
			fmt.Fprintf(&b, "%-8s -> %s\n", "", admin.Printable(f.Do))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
