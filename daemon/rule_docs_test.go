package daemon

import (
	"os"
	"strings"
	"testing"

	"ambit/l7"
)

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every key of a rule has its row.
func TestRuleKeysAreDocumented(t *testing.T) {
	_, chapter, found := strings.Cut(document(t, "configuration.md"), "\n## Rules\n")
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	if !found {
		t.Fatal("docs/configuration.md has no chapter on rules")
	}
	for prefix, keys := range map[string]ruleKeys{
		"": ruleTop(), "errors.": ruleErrors(), " ": ruleMatch(), "path.": rulePath(), "headers.": ruleHeaders(), "grpc.": ruleGRPC(),
	} {
		for _, key := range keys.names() {
			switch key {
			case "match", "path", "headers": // sections
				continue
			}
			if row := "\n| `" + strings.TrimSpace(prefix) + key + "` |"; !strings.Contains(chapter, row) {
				t.Errorf("docs/configuration.md does not define %s", strings.TrimSpace(row))
			}
		}
	}
}

// What the documents show as a file is one.
func TestExamplesOfFiles(t *testing.T) {
	for _, name := range []string{"configuration.md", "sampling.md"} {
		blocks := strings.Split(document(t, name), "```yaml\n")
		if len(blocks) < 2 {
			t.Errorf("docs/%s has no example", name)
		}
		for _, block := range blocks[1:] {
			text, _, _ := strings.Cut(block, "```")
			if _, _, err := Load(Sources{File: writeFile(t, text)}); err != nil {
				t.Errorf("docs/%s: %v\n%s", name, err, text)
			}
		}
	}
}

// What the shipped rules drop is told in full.
func TestShippedRulesAreDocumented(t *testing.T) {
	text := document(t, "sampling.md")
	for _, r := range l7.DefaultRules() {
		_, row, found := strings.Cut(text, "\n| `"+r.Name+"` | ")
		row, _, _ = strings.Cut(row, "\n")
		if !found {
			t.Errorf("docs/sampling.md does not tell of %s", r.Name)
		}
		told := append(append(append([]string{}, r.Match.Path.Exact...), r.Match.Headers.UserAgent.Values...), r.Match.Extensions...)
		for _, a := range r.Match.Clients {
			told = append(told, a.String())
		}
		if r.Match.GRPC != nil {
			told = append(told, r.Match.GRPC.Services...)
		}
		for _, value := range told {
			if short := strings.TrimPrefix(value, "/actuator/health"); !strings.Contains(row, value) && !strings.Contains(row, "`"+short+"`") {
				t.Errorf("docs/sampling.md does not say that %s drops %s", r.Name, value)
			}
		}
	}
}
