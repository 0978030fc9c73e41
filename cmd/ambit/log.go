package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"ambit/daemon"

	"github.com/coreos/go-systemd/v22/journal"
	slogjournal "github.com/systemd/slog-journal"
)

// logger writes the log as the configuration says. "auto" is text, or, where the standard error is the journal's, entries
// of the journal whose fields can be looked for.
func logger(w io.Writer, cfg daemon.LogConfig) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.Level}
	switch cfg.Format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, options))
	case "auto":
		if is, err := journal.StderrIsJournalStream(); is && err == nil {
			h, err := slogjournal.NewHandler(&slogjournal.Options{Level: cfg.Level, ReplaceAttr: journalField})
			if err == nil {
				return slog.New(journalHandler{h})
			}
		}
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// journalField gives an attribute a name that the journal takes: AMBIT_ASKED_BY of "asked by".
func journalField(_ []string, a slog.Attr) slog.Attr {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, a.Key)
	return slog.Attr{Key: "AMBIT_" + name, Value: a.Value}
}

// journalHandler puts attributes into the message too: "journalctl -u ambit" shows nothing else.
type journalHandler struct{ slog.Handler }

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	message := r.Message
	r.Attrs(func(a slog.Attr) bool {
		value := a.Value.Resolve().String()
		if value == "" || strings.ContainsAny(value, " \"=\n") {
			value = strconv.Quote(value)
		}
		message += fmt.Sprintf(" %s=%s", strings.ReplaceAll(a.Key, " ", "_"), value)
		return true
	})
	r.Message = message
	return h.Handler.Handle(ctx, r)
}

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return journalHandler{h.Handler.WithAttrs(attrs)}
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	return journalHandler{h.Handler.WithGroup(name)}
}
