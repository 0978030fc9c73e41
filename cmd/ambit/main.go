// Command ambit traces the HTTP traffic of a node: the daemon, and the commands that look at a running one.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"ambit/admin"
	"ambit/daemon"

	"github.com/urfave/cli/v2"
)

func main() {
	// The first signal ends the daemon in good order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	p := program{out: os.Stdout, err: os.Stderr, env: os.Environ(), run: daemon.Run}
	os.Exit(p.main(ctx, os.Args))
}

// program is ambit as a process sees it, so that tests can stand in for the process.
type program struct {
	out, err io.Writer
	env      []string // NAME=value
	run      func(context.Context, daemon.Config, daemon.From, *slog.Logger) error
}

// main runs the command that args, which begins with the program's name, ask for. It returns the exit
// code: 0, or 1 after one line on standard error.
func (p *program) main(ctx context.Context, args []string) int {
	if err := p.app().RunContext(ctx, args); err != nil {
		line := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
		fmt.Fprintln(p.err, "ambit: "+admin.Printable(line))
		return 1
	}
	return 0
}

func (p *program) app() *cli.App {
	app := &cli.App{
		Name:      "ambit",
		Usage:     "trace the HTTP traffic of a node from the kernel",
		Writer:    p.out,
		ErrWriter: p.err,
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}},
		Commands: []*cli.Command{
			p.runCommand(), p.configCommand(),
			p.statusCommand(), p.ratesCommand(), p.rulesCommand(), p.reloadCommand(), p.traceCommand(),
			p.pauseCommand(), p.resumeCommand(), p.tracesCommand(), p.topCommand(),
			p.doctorCommand(), p.versionCommand(), p.generateCommand(),
		},
		EnableBashCompletion: true,
		Action:               p.noCommand,
		OnUsageError:         usageError,
		ExitErrHandler:       func(*cli.Context, error) {}, // main prints errors
	}
	for _, c := range app.Commands {
		forEach(c, func(c *cli.Command) {
			c.OnUsageError = usageError
			c.HideHelpCommand = true
		})
	}
	return app
}

func forEach(c *cli.Command, do func(*cli.Command)) {
	do(c)
	for _, sub := range c.Subcommands {
		forEach(sub, do)
	}
}

func (p *program) noCommand(c *cli.Context) error {
	if c.Bool("version") {
		return p.printVersion(c)
	}
	name := c.Args().First()
	if name == "" {
		return cli.ShowAppHelp(c)
	}
	var known []string
	for _, command := range c.App.Commands {
		known = append(known, command.Name)
	}
	return fmt.Errorf(`unknown command %q%s: "ambit help" lists them`, name, didYouMean(name, known, ""))
}

// didYouMean is a hint in brackets, or nothing.
func didYouMean(word string, known []string, prefix string) string {
	if near := daemon.Closest(word, known); near != "" {
		return fmt.Sprintf(" (did you mean %s%s?)", prefix, near)
	}
	return ""
}
