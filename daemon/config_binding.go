package daemon

import (
	"errors"
	"fmt"
	"strings"
)

// maxItems bounds every list, so that a configuration is bounded too.
const maxItems = 256

// binding joins a setting to its field of Config. Values pass as texts: one for a scalar, any number
// for a list.
type binding struct {
	noun    string
	allowed string
	list    bool
	numeric bool // of each value: the file must not quote it
	literal bool // true or false: the same
	// set checks the texts and stores them; on an error nothing is stored.
	set func(*Config, []string) error
	get func(*Config) []string
	// plain is the value for an encoder of JSON.
	plain func(*Config) any
}

// split cuts the text of a flag or variable into what set takes.
func (b binding) split(text string) []string {
	if !b.list {
		return []string{text}
	}
	if strings.TrimSpace(text) == "" {
		return nil
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// one binds a field of one value.
func one[T any](field func(*Config) *T, c codec[T]) binding {
	return binding{
		noun: c.noun, allowed: c.allowed, numeric: c.numeric, literal: c.literal,
		set: func(cfg *Config, texts []string) error {
			v, err := c.parse(texts[0])
			if err != nil {
				return refused(err, c.allowed)
			}
			*field(cfg) = v
			return nil
		},
		get:   func(cfg *Config) []string { return []string{c.show(*field(cfg))} },
		plain: func(cfg *Config) any { return c.plainValue(*field(cfg)) },
	}
}

// several binds a list; check, if any, judges it as a whole.
func several[T any](field func(*Config) *[]T, c codec[T], check func([]T) error) binding {
	return binding{
		noun: "list of " + c.noun + "s", allowed: c.allowed, list: true, numeric: c.numeric,
		set: func(cfg *Config, texts []string) error {
			if len(texts) > maxItems {
				return fmt.Errorf("%d items are too many; allowed: at most %d", len(texts), maxItems)
			}
			values := make([]T, 0, len(texts))
			for i, text := range texts {
				v, err := c.parse(text)
				if err != nil {
					return &itemError{index: i, err: refused(err, c.allowed)}
				}
				values = append(values, v)
			}
			if check != nil {
				if err := check(values); err != nil {
					return refused(err, c.allowed)
				}
			}
			*field(cfg) = values
			return nil
		},
		get: func(cfg *Config) []string {
			var texts []string
			for _, v := range *field(cfg) {
				texts = append(texts, c.show(v))
			}
			return texts
		},
		plain: func(cfg *Config) any {
			values := make([]any, 0, len(*field(cfg)))
			for _, v := range *field(cfg) {
				values = append(values, c.plainValue(v))
			}
			return values
		},
	}
}

func refused(err error, allowed string) error { return fmt.Errorf("%w; allowed: %s", err, allowed) }

// itemError tells which item of a list was refused, so that the file's reader can name its line.
type itemError struct {
	index int
	err   error
}

func (e *itemError) Error() string { return e.err.Error() }
func (e *itemError) Unwrap() error { return e.err }

func checkNamespaces(names []string) error {
	if len(names) == 0 {
		return errors.New("an empty list taps nothing")
	}
	for _, n := range names {
		if n == "all" && len(names) > 1 {
			return errors.New(`"all" stands alone`)
		}
	}
	return nil
}
