package main

import (
	"fmt"
	"io"

	"ambit/admin"
	"ambit/daemon"

	"github.com/urfave/cli/v2"
)

// dialer finds the daemon that a command's flags, the environment and the configuration point to.
type dialer func() (*admin.Client, error)

// asking makes a command that asks the running daemon. do gets the arguments, of which names says what they
// are; it looks at them before it dials. given collects the flags.
func (p *program) asking(given texts, c cli.Command, do func(*cli.Context, dialer, []string) error, names ...string) *cli.Command {
	c.Flags = append(c.Flags, jsonFlag(), given.configFlag())
	c.Flags = append(c.Flags, given.settingFlags("socket")...)
	c.Action = func(c *cli.Context) error {
		args, err := arguments(c, names...)
		if err != nil {
			return err
		}
		return do(c, func() (*admin.Client, error) {
			src, err := given.sources(p.env)
			if err != nil {
				return nil, err
			}
			path, err := daemon.LoadSocket(src)
			if err != nil {
				return nil, err
			}
			return admin.Dial(path)
		}, args)
	}
	return &c
}

// show makes the action of a command that dials, asks for one thing and prints it.
func show[T any](p *program, ask func(*admin.Client, *cli.Context) (T, error), write func(io.Writer, T) error) func(*cli.Context, dialer, []string) error {
	return func(c *cli.Context, dial dialer, _ []string) error {
		client, err := dial()
		if err != nil {
			return err
		}
		answer, err := ask(client, c)
		if err != nil {
			return err
		}
		if wantsJSON(c) {
			return printJSON(p.out, answer)
		}
		return write(p.out, answer)
	}
}

func (p *program) statusCommand() *cli.Command {
	return p.asking(texts{}, cli.Command{
		Name:        "status",
		Usage:       "show what is attached, counted, lost and used",
		Description: "docs/operations.md says what each number means and what to do about it.",
	}, show(p, func(a *admin.Client, c *cli.Context) (admin.Status, error) { return a.Status(c.Context) }, admin.WriteStatus))
}

func (p *program) pauseCommand() *cli.Command {
	return p.asking(texts{}, cli.Command{
		Name:        "pause",
		Usage:       "detach everything at once; the daemon stays",
		Description: "The kill switch: nothing of ambit runs in the path of a packet until \"ambit resume\".",
	}, show(p, func(a *admin.Client, c *cli.Context) (stateAnswer, error) {
		state, err := a.Pause(c.Context)
		return stateAnswer{state}, err
	}, writeState))
}

func (p *program) resumeCommand() *cli.Command {
	return p.asking(texts{}, cli.Command{
		Name:  "resume",
		Usage: "attach everything again after a pause",
	}, show(p, func(a *admin.Client, c *cli.Context) (stateAnswer, error) {
		state, err := a.Resume(c.Context)
		return stateAnswer{state}, err
	}, writeState))
}

type stateAnswer struct {
	State admin.State `json:"state"`
}

func writeState(w io.Writer, a stateAnswer) error {
	line := admin.Printable(string(a.State))
	if a.State == admin.Paused {
		line += `: nothing is attached, "ambit resume" attaches again`
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

func (p *program) tracesCommand() *cli.Command {
	return p.asking(texts{}, cli.Command{
		Name:        "traces",
		Usage:       "show the latest traces, or one as a waterfall",
		ArgsUsage:   "[ID]",
		Description: "Traces are kept in memory only where no endpoint is set. Of an ID the first 8 digits or more will do.",
		Flags:       []cli.Flag{&cli.IntFlag{Name: "n", Value: 20, Usage: fmt.Sprintf("how many `TRACES` are listed, 1 to %d", admin.MaxTraces)}},
	}, p.traces, "the ID of one trace")
}

func (p *program) traces(c *cli.Context, dial dialer, args []string) error {
	if len(args) > 0 {
		id, err := admin.ParseTraceID(args[0])
		if err != nil {
			return fmt.Errorf(`%w: "ambit traces" lists them`, err)
		}
		return show(p, func(a *admin.Client, c *cli.Context) (admin.TraceDetail, error) {
			return a.Trace(c.Context, id, columns(p.out))
		}, admin.WriteTrace)(c, dial, nil)
	}
	n := c.Int("n")
	if n < 1 || n > admin.MaxTraces {
		return fmt.Errorf("flag -n: %d is out of range; allowed: a whole number from 1 to %d", n, admin.MaxTraces)
	}
	return show(p, func(a *admin.Client, c *cli.Context) ([]admin.TraceSummary, error) {
		return a.Traces(c.Context, n)
	}, admin.WriteTraces)(c, dial, nil)
}
