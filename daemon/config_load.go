package daemon

import (
	"fmt"
	"sort"
)

// Sources is what a configuration is read from, besides the defaults.
type Sources struct {
	// File is the path of the YAML file; empty takes the one that AMBIT_CONFIG names, if any.
	File string
	// Flags are the texts given on the command line, by Setting.Flag.
	Flags map[string]string
	// Env is the environment, as os.Environ returns it.
	Env []string
}

// Source is a kind of place that a value comes from. A greater one wins.
type Source int

// The sources, the weakest first.
const (
	FromDefault Source = iota
	FromFile
	FromEnv
	FromFlag
)

func (s Source) String() string {
	return [...]string{"default", "file", "env", "flag"}[s]
}

// Origin says where a value came from.
type Origin struct {
	Source Source
	// Name is the path of the file, the name of the variable, or the flag without dashes.
	Name string
	// Line is the line in the file, from 1.
	Line int
	// Note explains a default that depends on another key.
	Note string
}

func (o Origin) String() string {
	switch o.Source {
	case FromFile:
		return fmt.Sprintf("%s:%d", o.Name, o.Line)
	case FromEnv:
		return "env " + o.Name
	case FromFlag:
		return "flag --" + o.Name
	}
	if o.Note != "" {
		return "default, as " + o.Note
	}
	return "default"
}

// Origins tells of every key where its value came from.
type Origins map[string]Origin

// Load reads the configuration. Flags win over variables, these over the file, and that over the defaults;
// a wrong value is refused even where a stronger source overrides it. Errors are one line that names the
// flag, the variable, or the file and line, and what is allowed.
func Load(src Sources) (Config, Origins, error) {
	cfg, origins := Defaults(), Origins{}
	for _, s := range table {
		origins[s.Key] = Origin{}
	}
	env := environment(src.Env)
	if path := src.path(env); path != "" {
		if err := loadFile(path, &cfg, origins); err != nil {
			return Config{}, nil, err
		}
	}
	if err := loadEnv(env, &cfg, origins); err != nil {
		return Config{}, nil, err
	}
	if err := loadFlags(src.Flags, &cfg, origins); err != nil {
		return Config{}, nil, err
	}
	if origins[keySampleRate].Source == FromDefault {
		note := storedRateNote
		if cfg.OTLP.Endpoint != "" {
			note = exportedRateNote
			cfg.SampleRate = exportedRate
		}
		origins[keySampleRate] = Origin{Note: note}
	}
	tailBudgetOf(&cfg, origins)
	stateFileOf(&cfg, origins, env)
	if err := cfg.Validate(); err != nil {
		return Config{}, nil, rulesAt(origins, err)
	}
	if _, err := cfg.Standard(src.Env); err != nil {
		return Config{}, nil, err
	}
	return cfg, origins, nil
}

// LoadSocket finds the path of the local API's socket as Load would, but reads no more than it must: a
// fault elsewhere in the configuration must not keep anybody from stopping a daemon.
func LoadSocket(src Sources) (string, error) {
	s := settingOf(keySocket)
	env := environment(src.Env)
	var cfg Config
	if v, given := src.Flags[s.Flag]; given {
		err := loadFlags(map[string]string{s.Flag: v}, &cfg, Origins{})
		return cfg.Admin.Socket, err
	}
	if name, v := s.variable(env); name != "" {
		err := loadEnv(map[string]string{name: v}, &cfg, Origins{})
		return cfg.Admin.Socket, err
	}
	cfg = Defaults()
	if path := src.path(env); path != "" {
		if err := loadFile(path, &cfg, Origins{}); err != nil {
			return "", fmt.Errorf("%w (--%s names the socket without the file)", err, s.Flag)
		}
	}
	return cfg.Admin.Socket, nil
}

// path is that of the file to read, "" for none.
func (src Sources) path(env map[string]string) string {
	if src.File != "" {
		return src.File
	}
	return env[configVariable]
}

func loadFlags(flags map[string]string, cfg *Config, origins Origins) error {
	names := make([]string, 0, len(flags))
	for name := range flags {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		s := settingOfFlag(name)
		if s == nil {
			return fmt.Errorf("flag --%s: unknown", name)
		}
		if err := s.set(cfg, s.split(flags[name])); err != nil {
			return fmt.Errorf("flag --%s: %w", name, err)
		}
		origins[s.Key] = Origin{Source: FromFlag, Name: name}
		if s.Key == keyEndpoint {
			cfg.OTLP.EndpointVariable = ""
		}
	}
	return nil
}

func settingOf(key string) *Setting {
	for i := range table {
		if table[i].Key == key {
			return &table[i]
		}
	}
	return nil
}

func settingOfFlag(flag string) *Setting {
	for i := range table {
		if table[i].Flag == flag {
			return &table[i]
		}
	}
	return nil
}
