package daemon

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of settings into docs/configuration.md")

const (
	docs       = "../docs/configuration.md"
	tableBegin = "<!-- settings: begin; made by go test ./daemon -run TestDocs -update -->\n"
	tableEnd   = "<!-- settings: end -->\n"
)

// The documentation has the table that the code has.
func TestDocs(t *testing.T) {
	content, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(content), tableBegin)
	got, after, ended := strings.Cut(rest, tableEnd)
	if !found || !ended {
		t.Fatalf("%s has no place for the settings", docs)
	}
	want := reference()
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the code says; go test ./daemon -run TestDocs -update", docs)
	}
	if err := os.WriteFile(docs, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func reference() string {
	var b strings.Builder
	for _, s := range Settings() {
		fmt.Fprintf(&b, "\n### `%s`\n\n%s.\n\n", s.Key, strings.ToUpper(s.Usage[:1])+s.Usage[1:])
		fmt.Fprintf(&b, "- type: %s\n- default: %s\n- allowed: %s\n", s.Type(), quoted(s.Default), escaped(s.Allowed()))
		fmt.Fprintf(&b, "- flag `--%s`, variable `%s`", s.Flag, s.Env())
		for _, name := range s.Standard {
			fmt.Fprintf(&b, ", else `%s`", name)
		}
		b.WriteByte('\n')
		if s.Memory != "" {
			fmt.Fprintf(&b, "- memory: %s\n", s.Memory)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

func quoted(text string) string {
	if text == "" {
		return "empty"
	}
	return "`" + text + "`"
}

func escaped(text string) string {
	return strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(text)
}
