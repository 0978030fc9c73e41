package daemon

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// syntax puts the position of the YAML package's errors where ours have it.
func (f configFile) syntax(content []byte, err error) error {
	line, problem := problemOf(err)
	return fmt.Errorf("%s:%d: no valid YAML: %s", f.path, trueLine(content, line, problem), problem)
}

var yamlLine = regexp.MustCompile(`^line (\d+): (.*)`)

// problemOf takes the YAML package's error apart. The line is 0 where it gives none, as in the first line.
func problemOf(err error) (line int, problem string) {
	text, _, _ := strings.Cut(err.Error(), "\n")
	text = strings.TrimPrefix(text, "yaml: ")
	m := yamlLine.FindStringSubmatch(text)
	if m == nil {
		return 0, text
	}
	line, _ = strconv.Atoi(m[1]) // of digits
	return line, m[2]
}

// parserProblem matches what the YAML package's parser says, whose lines it counts from 0; those of its scanner it
// counts from 1.
var parserProblem = regexp.MustCompile(`^did not find expected (<|node content|key|'-'|',' or)|^found (duplicate|incompatible|undefined)`)

// trueLine is the line of a problem, from 1. The YAML package gives it in some cases only, and not always right.
func trueLine(content []byte, line int, problem string) int {
	if at := badRune(content); at >= 0 && !parserProblem.MatchString(problem) {
		return 1 + bytes.Count(content[:at], []byte("\n"))
	}
	if anchor, found := strings.CutPrefix(problem, "unknown anchor '"); found {
		alias := []byte("*" + strings.TrimSuffix(anchor, "' referenced"))
		return 1 + bytes.Count(content[:max(bytes.Index(content, alias), 0)], []byte("\n"))
	}
	switch {
	case !parserProblem.MatchString(problem):
		return max(line, 1)
	case line > 0 && !strings.Contains(problem, "',' or"):
		return line + 1
	}
	// What is not closed is best looked for where it was opened, which is told of every line but the first.
	shifted := append([]byte("\n"), content...)
	opened, again := problemOf(firstError(shifted))
	if again != problem {
		return line + 1
	}
	return opened
}

// firstError reads all documents.
func firstError(content []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var document yaml.Node
		if err := decoder.Decode(&document); err != nil {
			return err
		}
	}
}

// badRune is the place of the first byte that a YAML file must not have, -1 if it has none.
func badRune(content []byte) int {
	for at := 0; at < len(content); {
		r, size := utf8.DecodeRune(content[at:])
		if r == utf8.RuneError && size == 1 || r < ' ' && r != '\t' && r != '\n' && r != '\r' ||
			r > '~' && r < 0xa0 && r != 0x85 || r == 0xfffe || r == 0xffff {
			return at
		}
		at += size
	}
	return -1
}
