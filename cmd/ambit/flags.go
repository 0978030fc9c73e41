package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ambit/daemon"

	"github.com/urfave/cli/v2"
)

// texts collects what flags were given, as text: daemon.Load reads it, so that flags, environment and file
// are judged alike.
type texts map[string]string

// flagText is one flag of texts. A list may be given in pieces; of other flags the last one counts.
type flagText struct {
	into texts
	name string
	list bool
}

func (f *flagText) Set(value string) error {
	if before, given := f.into[f.name]; given && f.list {
		value = before + "," + value
	}
	f.into[f.name] = value
	return nil
}

func (*flagText) String() string { return "" }

const configFlag = "config"

func (t texts) configFlag() cli.Flag {
	return &cli.GenericFlag{
		Name:  configFlag,
		Usage: "`FILE` with the configuration, YAML [$AMBIT_CONFIG]",
		Value: &flagText{into: t, name: configFlag},
	}
}

// settingFlags makes a flag of each setting whose flag's name is among only; none means all.
func (t texts) settingFlags(only ...string) (flags []cli.Flag) {
	for _, s := range daemon.Settings() {
		if len(only) > 0 && !slices.Contains(only, s.Flag) {
			continue
		}
		flags = append(flags, &cli.GenericFlag{
			Name:        s.Flag,
			Usage:       fmt.Sprintf("%s: %s [$%s]", s.Usage, s.Allowed(), strings.Join(append([]string{s.Env()}, s.Standard...), ", $")),
			DefaultText: s.Default,
			Value:       &flagText{into: t, name: s.Flag, list: s.List()},
		})
	}
	return flags
}

// sources is where the configuration is read from, these flags included.
func (t texts) sources(env []string) (daemon.Sources, error) {
	src := daemon.Sources{Flags: map[string]string{}, Env: env}
	for name, text := range t {
		if name != configFlag {
			src.Flags[name] = text
			continue
		}
		if text == "" {
			return src, errors.New("flag --config: the path is empty")
		}
		src.File = text
	}
	return src, nil
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON", DisableDefaultText: true}
}

// wantsJSON looks at the commands above, too: "rates --json set 1".
func wantsJSON(c *cli.Context) bool {
	return slices.ContainsFunc(c.Lineage(), func(c *cli.Context) bool { return c.Bool("json") })
}

// arguments returns what is no flag, which may be at most as many as names. Flags may follow it, as in
// "traces ID --json", where the library stops looking for them.
func arguments(c *cli.Context, names ...string) (args []string, err error) {
	for rest := c.Args().Slice(); len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		if word == "--" {
			args = append(args, rest...)
			break
		}
		if len(word) < 2 || word[0] != '-' {
			args = append(args, word)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(word, "-"), "=")
		flag := flagOf(c, name)
		switch {
		case flag == nil:
			return nil, unknownFlag(c, name)
		case given:
		case !flag.TakesValue():
			value = "true"
		case len(rest) == 0:
			return nil, needsValue(name)
		default:
			value, rest = rest[0], rest[1:]
		}
		if err := c.Set(name, value); err != nil {
			return nil, fmt.Errorf("flag --%s: %w", name, err)
		}
	}
	if len(args) > len(names) {
		if len(names) == 0 {
			return nil, fmt.Errorf("unexpected argument %q: %q takes none", args[0], c.Command.HelpName)
		}
		return nil, fmt.Errorf("unexpected argument %q: %q takes %s", args[len(names)], c.Command.HelpName, strings.Join(names, " and "))
	}
	return args, nil
}

func flagOf(c *cli.Context, name string) cli.DocGenerationFlag {
	for _, f := range c.Command.Flags {
		if slices.Contains(f.Names(), name) {
			return f.(cli.DocGenerationFlag)
		}
	}
	return nil
}

// usageError words the library's complaints as ambit's.
func usageError(c *cli.Context, err error, _ bool) error {
	if name, found := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); found {
		return unknownFlag(c, name)
	}
	if name, found := strings.CutPrefix(err.Error(), "flag needs an argument: -"); found {
		return needsValue(strings.TrimPrefix(name, "-"))
	}
	return err
}

func unknownFlag(c *cli.Context, name string) error {
	var known []string
	for _, f := range c.Command.Flags {
		known = append(known, f.Names()...)
	}
	return fmt.Errorf(`unknown flag --%s%s: "%s --help" lists them`, name, didYouMean(name, known, "--"), c.Command.HelpName)
}

func needsValue(name string) error { return fmt.Errorf("flag --%s: a value must follow", name) }
