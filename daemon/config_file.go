package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the configuration file: 1 MiB.
const maxFile = mib

// configFile reads one YAML file into cfg. Its errors name the file and the line.
type configFile struct {
	path    string
	cfg     *Config
	origins Origins
}

func loadFile(path string, cfg *Config, origins Origins) error {
	f := configFile{path: path, cfg: cfg, origins: origins}
	content, err := f.read()
	if err != nil {
		return err
	}
	root, err := f.parse(content)
	if err != nil || root == nil {
		return err
	}
	return f.section("", root)
}

func (f configFile) read() ([]byte, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("read the configuration: %s has more than %s", f.path, showSize(maxFile))
	}
	return content, nil
}

// parse returns the root of the only document, nil where the file says nothing.
func (f configFile) parse(content []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, more yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, f.syntax(content, err)
	}
	if err := decoder.Decode(&more); err == nil {
		return nil, f.at(&more, "a second document; allowed: one")
	} else if !errors.Is(err, io.EOF) {
		return nil, f.syntax(content, err)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	return root, nil
}

func (f configFile) at(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", f.path, n.Line, fmt.Errorf(format, args...))
}

// section reads the keys below prefix, which is "" or ends with a dot.
func (f configFile) section(prefix string, n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return f.at(n, "%swant keys and values, got %s", label(prefix), kindOf(n))
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Kind != yaml.ScalarNode {
			return f.at(name, "%sa key must be a word, got %s", label(prefix), kindOf(name))
		}
		key := prefix + name.Value
		if first := lines[key]; first != 0 {
			return f.at(name, "%s: given twice, first in line %d", key, first)
		}
		lines[key] = name.Line
		if err := f.entry(prefix, key, name, value); err != nil {
			return err
		}
	}
	return nil
}

func (f configFile) entry(prefix, key string, name, value *yaml.Node) error {
	if s := settingOf(key); s != nil && !strings.Contains(name.Value, ".") {
		return f.value(s, value)
	}
	if key == keyRules {
		return f.rules(value)
	}
	siblings := keysBelow(prefix)
	if !slices.Contains(siblings, name.Value) {
		return f.at(name, "unknown key %q%s", key, meant(prefix, name.Value, siblings))
	}
	if value.Tag == "!!null" { // a section whose keys are all commented out
		return nil
	}
	return f.section(key+".", value)
}

func (f configFile) value(s *Setting, n *yaml.Node) error {
	texts, err := f.texts(s, n)
	if err != nil {
		return err
	}
	if err := s.set(f.cfg, texts); err != nil {
		var item *itemError
		if errors.As(err, &item) && n.Kind == yaml.SequenceNode {
			n = n.Content[item.index]
		}
		return f.at(n, "%s: %w", s.Key, err)
	}
	f.origins[s.Key] = Origin{Source: FromFile, Name: f.path, Line: n.Line}
	return nil
}

// texts checks the YAML type of a value and returns what Setting.set takes.
func (f configFile) texts(s *Setting, n *yaml.Node) ([]string, error) {
	wrong := func(n *yaml.Node, want string) error {
		return f.at(n, "%s: want a %s, got %s; allowed: %s", s.Key, want, kindOf(n), s.allowed)
	}
	if s.list && n.Kind == yaml.SequenceNode {
		var texts []string
		for _, item := range n.Content {
			if !fits(s, item) {
				return nil, wrong(item, strings.TrimSuffix(strings.TrimPrefix(s.noun, "list of "), "s"))
			}
			texts = append(texts, item.Value)
		}
		return texts, nil
	}
	// A list may be one text, comma separated, as in flags.
	if !fits(s, n) && !(s.list && n.Tag == "!!str") {
		return nil, wrong(n, s.noun)
	}
	return s.split(n.Value), nil
}

// fits reports whether n has the YAML type of one value of s. Words and texts may look like numbers.
func fits(s *Setting, n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return false
	}
	if s.literal {
		return n.Tag == "!!bool"
	}
	return !s.numeric || n.Tag == "!!int" || n.Tag == "!!float"
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	}
	return "text"
}

// label names a section in an error, "" for the top.
func label(prefix string) string {
	if prefix == "" {
		return ""
	}
	return strings.TrimSuffix(prefix, ".") + ": "
}

func lastPart(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// keysBelow lists the names of the settings and sections directly below prefix.
func keysBelow(prefix string) []string {
	var names []string
	for _, s := range table {
		rest, found := strings.CutPrefix(s.Key, prefix)
		if !found {
			continue
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if rest, found := strings.CutPrefix(keyRules, prefix); found && prefix != "" {
		names = append(names, rest)
	}
	return names
}

// meant guesses the key behind an unknown one: a sibling, or one of another section; else it lists what
// is allowed.
func meant(prefix, name string, siblings []string) string {
	if near := Closest(name, siblings); near != "" {
		return fmt.Sprintf(", did you mean %q?", prefix+near)
	}
	// A flag's spelling, or the dotted one, or one in the wrong section.
	spelling := strings.NewReplacer("-", "_").Replace(name)
	for _, s := range table {
		if s.Flag == name || s.Key == name || lastPart(s.Key) == spelling {
			return fmt.Sprintf(", did you mean %s?", nested(s.Key))
		}
	}
	return "; allowed: " + strings.Join(siblings, ", ")
}

// nested spells a key as the file has it.
func nested(key string) string {
	if at := strings.LastIndexByte(key, '.'); at >= 0 {
		return fmt.Sprintf("%q in the section %q", key[at+1:], key[:at])
	}
	return fmt.Sprintf("%q", key)
}
