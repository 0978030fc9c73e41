package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit/admin"

	"github.com/urfave/cli/v2"
)

func (p *program) ratesCommand() *cli.Command {
	given := texts{} // of all: "rates --socket PATH set 1"
	rates := p.asking(given, cli.Command{
		Name:      "rates",
		Usage:     "show the rates and budgets in force and why they are so, or put a rate above all rules",
		UsageText: "ambit rates [command options]\nambit rates set [command options] RATE\nambit rates clear [command options]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "service", Usage: "rates of routes of this `SERVICE` alone"},
			&cli.IntFlag{Name: "limit", Value: 30, Usage: fmt.Sprintf("how many `ROUTES` are shown, 0 to %d", admin.MaxRates)},
			&cli.BoolFlag{Name: "history", Usage: "show how the rate of each route changed"},
			&cli.StringFlag{Name: "explain", Usage: "tell the last decisions on a `ROUTE` in words: a template, or a method and a template"},
		},
	}, p.rates)
	rates.Subcommands = []*cli.Command{
		p.asking(given, cli.Command{
			Name:        "set",
			Usage:       "put a rate in the place of the default and of the rates of all rules, at once",
			ArgsUsage:   "RATE",
			Description: "RATE is from 0, which keeps nothing, to 1. It holds until \"ambit rates clear\", or until the daemon ends.",
		}, p.setRates, "the RATE"),
		p.asking(given, cli.Command{
			Name:  "clear",
			Usage: "let the default and the rates of rules hold again",
		}, show(p, func(a *admin.Client, c *cli.Context) (admin.Rates, error) { return a.ClearRates(c.Context) }, admin.WriteRates)),
	}
	return rates
}

func (p *program) rates(c *cli.Context, dial dialer, _ []string) error {
	q := admin.RatesQuery{Limit: c.Int("limit"), Service: c.String("service"), Route: c.String("explain")}
	if q.Limit < 0 || q.Limit > admin.MaxRates {
		return fmt.Errorf("flag --limit: %d is out of range; allowed: a whole number from 0 to %d", q.Limit, admin.MaxRates)
	}
	write := admin.WriteRates
	switch {
	case q.Route != "":
		write = admin.WriteExplanation
	case c.Bool("history"):
		write = admin.WriteHistory
	}
	return show(p, func(a *admin.Client, c *cli.Context) (admin.Rates, error) {
		rates, err := a.Rates(c.Context, q)
		if err == nil && q.Route != "" && len(rates.Routes) == 0 {
			err = fmt.Errorf("no route %q has a rate that is moved: \"ambit rates\" lists them", q.Route)
			if rates.Control == nil {
				err = errors.New("no rates are moved: sampling.control is off, or auto without a budget")
			}
		}
		return rates, err
	}, write)(c, dial, nil)
}

func (p *program) setRates(c *cli.Context, dial dialer, args []string) error {
	if len(args) == 0 {
		return errors.New(`no rate is given: "ambit rates set 0.1" keeps a tenth of the traces`)
	}
	share, err := strconv.ParseFloat(args[0], 64)
	if err != nil || !(share >= 0 && share <= 1) {
		return fmt.Errorf("%q is no rate: want a number from 0 to 1", args[0])
	}
	return show(p, func(a *admin.Client, c *cli.Context) (admin.Rates, error) {
		return a.SetRates(c.Context, share)
	}, admin.WriteRates)(c, dial, nil)
}

func (p *program) rulesCommand() *cli.Command {
	return p.asking(texts{}, cli.Command{
		Name:        "rules",
		Usage:       "show the sampling rules in force, in the order in which they are asked",
		Description: "docs/sampling.md says how rules are written and how one is chosen.",
	}, show(p, func(a *admin.Client, c *cli.Context) (admin.RuleSet, error) { return a.Rules(c.Context) }, admin.WriteRules))
}

func (p *program) reloadCommand() *cli.Command {
	return p.asking(texts{}, cli.Command{
		Name:        "reload",
		Usage:       "let the daemon read its configuration anew, as SIGHUP does, and show the rules in force then",
		Description: "Rules, rates and budgets are put in force; other settings need a restart. A wrong configuration changes nothing.",
	}, show(p, func(a *admin.Client, c *cli.Context) (admin.RuleSet, error) { return a.Reload(c.Context) }, admin.WriteRules))
}

func (p *program) traceCommand() *cli.Command {
	return p.asking(texts{}, cli.Command{
		Name:  "trace",
		Usage: "keep the spans of some requests for a while, whatever the rules say",
		Description: "They carry no sampling threshold and enter no estimate. At most sampling.forced.budget spans per second " +
			"are kept so. ^C ends it early.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "service", Usage: "of this `SERVICE`, or of all that begin so: cart*"},
			&cli.StringFlag{Name: "path", Usage: "of this `PATH`: whole, or /users/{id}, or all below: /api/*"},
			&cli.StringSliceFlag{Name: "method", Usage: "with this `METHOD`; may be given several times"},
			&cli.DurationFlag{Name: "for", Value: 30 * time.Second, Usage: "for this `TIME`, 1s to 1h"},
		},
	}, p.trace)
}

func (p *program) trace(c *cli.Context, dial dialer, _ []string) error {
	request := admin.ForceRequest{
		Service: c.String("service"), Path: c.String("path"), Methods: c.StringSlice("method"), Seconds: c.Duration("for").Seconds(),
	}
	if request.Service == "" && request.Path == "" {
		return errors.New(`neither --service nor --path is given: "ambit trace --path /checkout" keeps the spans of one path`)
	}
	if d := c.Duration("for"); d < time.Second || d > admin.MaxForceFor {
		return fmt.Errorf("flag --for: %s is out of range; allowed: a duration from 1s to 1h", d)
	}
	client, err := dial()
	if err != nil {
		return err
	}
	begun, err := client.Force(c.Context, request)
	if err != nil {
		return err
	}
	if !wantsJSON(c) {
		fmt.Fprintln(p.out, admin.Printable(describeForcing(&request, begun)))
	}
	over, err := waitForcing(c.Context, client, begun)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(p.out, over)
	}
	return admin.WriteForcing(p.out, over)
}

func describeForcing(request *admin.ForceRequest, f admin.Forcing) string {
	var of []string
	if request.Service != "" {
		of = append(of, "service "+request.Service)
	}
	if len(request.Methods) > 0 {
		of = append(of, "method "+strings.Join(slices.Clone(request.Methods), " or "))
	}
	if request.Path != "" {
		of = append(of, "path "+request.Path)
	}
	limit := "without a limit"
	if f.Limit > 0 {
		limit = fmt.Sprintf("at most %v per second", f.Limit)
	}
	return fmt.Sprintf("%s: spans of %s are kept for %v, %s; ^C ends it", f.Rule, strings.Join(of, ", "),
		time.Duration(request.Seconds*float64(time.Second)), limit)
}

// waitForcing waits until it is over, and ends it where ctx ends first.
func waitForcing(ctx context.Context, client *admin.Client, f admin.Forcing) (admin.Forcing, error) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for !f.Over {
		select {
		case <-ctx.Done():
			return client.Unforce(context.WithoutCancel(ctx), f.ID)
		case <-tick.C:
		}
		now, err := client.Forcing(ctx, f.ID)
		if err != nil && ctx.Err() == nil {
			return f, err
		}
		if err == nil {
			f = now
		}
	}
	return f, nil
}
