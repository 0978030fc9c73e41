package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"ambit/admin"
	_ "ambit/cmd/ambit/background"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/urfave/cli/v2"
)

func (p *program) topCommand() *cli.Command {
	return p.asking(texts{}, cli.Command{
		Name:  "top",
		Usage: "show the routes as a live table: rate, errors, latency, share kept",
		Description: "Keys: s and r sort, 1 to 9 and 0 choose the column, / filters, q ends. Without a terminal the table is printed once. " +
			"docs/metrics.md defines the columns.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "once", Usage: "print one table", DisableDefaultText: true}},
	}, p.top)
}

func (p *program) top(c *cli.Context, dial dialer, _ []string) error {
	terminal, ok := p.out.(*os.File)
	if c.Bool("once") || wantsJSON(c) || !ok || columns(p.out) == 0 {
		return show(p, func(a *admin.Client, c *cli.Context) (admin.Top, error) { return a.Top(c.Context) }, admin.WriteTop)(c, dial, nil)
	}
	client, err := dial()
	if err != nil {
		return err
	}
	m := newTopModel(func() (admin.Top, error) { return client.Top(c.Context) })
	_, err = tea.NewProgram(m, tea.WithContext(c.Context), tea.WithOutput(terminal), tea.WithAltScreen()).Run()
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, tea.ErrProgramKilled) && !errors.Is(err, tea.ErrInterrupted) {
		return fmt.Errorf("show the live table: %w", err)
	}
	return nil
}
