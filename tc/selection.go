package tc

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Words of a selection that stand for more than one name.
const (
	selectAll     = "all"
	selectAmbient = "ambient"
	selectHost    = "host"
)

// selection says which namespaces are wanted.
type selection struct {
	all, ambient       bool
	names, paths       []string
	notNames, notPaths []string
}

func parseSelection(wanted, unwanted []string) (selection, error) {
	var s selection
	if len(wanted) == 0 {
		s.all = true
	}
	for _, word := range wanted {
		switch {
		case word == selectAll:
			s.all = true
		case word == selectAmbient:
			s.ambient = true
		default:
			if err := addWord(word, &s.names, &s.paths); err != nil {
				return selection{}, fmt.Errorf("select network namespaces: %w", err)
			}
		}
	}
	for _, word := range unwanted {
		if word == selectAll || word == selectAmbient {
			return selection{}, fmt.Errorf("exclude network namespaces: %q is neither a name nor a path", word)
		}
		if err := addWord(word, &s.notNames, &s.notPaths); err != nil {
			return selection{}, fmt.Errorf("exclude network namespaces: %w", err)
		}
	}
	return s, nil
}

// addWord appends word to the names or, if it has a slash, to the paths.
func addWord(word string, names, paths *[]string) error {
	switch {
	case word == "" || strings.TrimSpace(word) != word:
		return fmt.Errorf("%q is no name: give one without spaces around it, or a path", word)
	case !strings.Contains(word, "/"):
		*names = append(*names, word)
	case !filepath.IsAbs(word):
		return fmt.Errorf("%q is no absolute path", word)
	default:
		*paths = append(*paths, filepath.Clean(word))
	}
	return nil
}

// everyPath lists the paths that a finder has to resolve.
func (s *selection) everyPath() []string { return slices.Concat(s.paths, s.notPaths) }

func (s *selection) excludes(seen *sighting) bool {
	return overlap(s.notNames, seen.names) || overlap(s.notPaths, seen.paths)
}

// picks tells whether the selection has the namespace by name, by path or by "all"; being ambient is
// another matter.
func (s *selection) picks(seen *sighting) bool {
	return s.all || overlap(s.names, seen.names) || overlap(s.paths, seen.paths)
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
