package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"ambit/exporter"

	"go.yaml.in/yaml/v3"
)

// WriteYAML prints c as a configuration file whose comments say where each value came from, and what Standard
// told. A secret that is not the published default is masked.
func (c Config) WriteYAML(w io.Writer, origins Origins, standard []exporter.Setting) error {
	var lines []shownLine
	width := 0
	var open []string // sections
	for i, s := range table {
		path := strings.Split(s.Key, ".")
		sections, name := path[:len(path)-1], path[len(path)-1]
		for depth, section := range sections {
			if depth < len(open) && open[depth] == section {
				continue
			}
			open = open[:min(depth, len(open))]
			lines = append(lines, shownLine{text: strings.Repeat("  ", depth) + section + ":"})
			open = append(open, section)
		}
		open = sections
		value, err := s.yaml(&c)
		if err != nil {
			return fmt.Errorf("write %s: %w", s.Key, err)
		}
		text := strings.Repeat("  ", len(sections)) + name + ": " + value
		lines = append(lines, shownLine{text, origins[s.Key].String()})
		if len(text) <= 60 {
			width = max(width, len(text))
		}
		if last := i == len(table)-1 || !strings.HasPrefix(table[i+1].Key, "sampling."); last && strings.HasPrefix(s.Key, "sampling.") {
			rules, err := c.Sampling.yamlLines(origins)
			if err != nil {
				return fmt.Errorf("write %s: %w", keyRules, err)
			}
			lines = append(lines, rules...)
		}
	}
	for _, l := range lines {
		text := l.text
		if l.origin != "" {
			text = fmt.Sprintf("%-*s  # %s", width, l.text, printable(l.origin))
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return c.writeStandard(w, standard)
}

// shownLine is a line of the configuration, and where its value came from.
type shownLine struct{ text, origin string }

// yaml spells the value so that it fits on one line.
func (s Setting) yaml(c *Config) (string, error) {
	texts := s.get(c)
	if s.masked(c) {
		texts = []string{mask}
	}
	node := yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, t := range texts {
		n := yaml.Node{Kind: yaml.ScalarNode, Value: t}
		if !s.numeric && !s.literal {
			n.SetString(t)
		}
		node.Content = append(node.Content, &n)
	}
	if !s.list {
		node = *node.Content[0]
	}
	encoded, err := yaml.Marshal(&node)
	return strings.TrimSpace(string(encoded)), err
}

func (s Setting) masked(c *Config) bool { return s.Secret && s.get(c)[0] != s.Default }

// printable keeps a path with a line break or an escape sequence out of the terminal.
func printable(s string) string {
	quoted := fmt.Sprintf("%q", s)
	if bare := quoted[1 : len(quoted)-1]; bare != s {
		return quoted
	}
	return s
}

// shown is one setting as `ambit config --json` prints it.
type shown struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Source string `json:"source"`         // default, file, env or flag
	Name   string `json:"name,omitempty"` // of the file, variable or flag
	Line   int    `json:"line,omitempty"`
	Note   string `json:"note,omitempty"`
	Flag   string `json:"flag,omitempty"`
	Env    string `json:"env,omitempty"`
}

// WriteJSON prints c as an array of objects, one for each setting, in the table's order: numbers as
// numbers, sizes in bytes, durations as texts; then the rules, and those that Standard told. It masks as WriteYAML does.
func (c Config) WriteJSON(w io.Writer, origins Origins, standard []exporter.Setting) error {
	settings := make([]shown, 0, len(table)+1+len(standard))
	for _, s := range table {
		o := origins[s.Key]
		row := shown{
			Key: s.Key, Value: s.plain(&c), Source: o.Source.String(), Name: o.Name, Line: o.Line, Note: o.Note,
			Flag: "--" + s.Flag, Env: s.Env(),
		}
		if s.masked(&c) {
			row.Value = mask
		}
		settings = append(settings, row)
	}
	rules, err := c.Sampling.row(origins[keyRules])
	if err != nil {
		return fmt.Errorf("write %s: %w", keyRules, err)
	}
	settings = append(settings, rules)
	for _, s := range standard {
		settings = append(settings, standardRow(s))
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(settings)
}
