package main

import (
	"ambit/daemon"

	"github.com/urfave/cli/v2"
)

func (p *program) runCommand() *cli.Command {
	given := texts{}
	return &cli.Command{
		Name:  "run",
		Usage: "run the daemon in the foreground",
		Description: "Needs root. Ends in good order on SIGINT and SIGTERM: what is queued is delivered, and everything " +
			"that was attached is detached. A second signal ends it at once. SIGHUP " +
			"reads the configuration anew: rules, rates and budgets.",
		Flags: append([]cli.Flag{given.configFlag()}, given.settingFlags()...),
		Action: func(c *cli.Context) error {
			cfg, from, err := p.load(c, given)
			if err != nil {
				return err
			}
			return p.run(c.Context, cfg, from, logger(p.err, cfg.Log))
		},
	}
}

func (p *program) configCommand() *cli.Command {
	given := texts{}
	return &cli.Command{
		Name:        "config",
		Usage:       "print the configuration that run would have, and where each value came from",
		Description: "Takes the flags of run. What it prints is a configuration file; a secret is masked.",
		Flags:       append([]cli.Flag{jsonFlag(), given.configFlag()}, given.settingFlags()...),
		Action: func(c *cli.Context) error {
			cfg, from, err := p.load(c, given)
			if err != nil {
				return err
			}
			standard, err := cfg.Standard(p.env)
			if err != nil {
				return err
			}
			if wantsJSON(c) {
				return cfg.WriteJSON(p.out, from.Origins, standard)
			}
			return cfg.WriteYAML(p.out, from.Origins, standard)
		},
	}
}

func (p *program) load(c *cli.Context, given texts) (daemon.Config, daemon.From, error) {
	if _, err := arguments(c); err != nil {
		return daemon.Config{}, daemon.From{}, err
	}
	src, err := given.sources(p.env)
	if err != nil {
		return daemon.Config{}, daemon.From{}, err
	}
	cfg, origins, err := daemon.Load(src)
	return cfg, daemon.From{Sources: src, Origins: origins}, err
}
