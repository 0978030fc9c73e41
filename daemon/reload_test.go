package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// logLines collects what is logged, and tells of each line.
type logLines struct {
	mu    sync.Mutex
	text  strings.Builder
	lines chan string
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	select {
	case l.lines <- string(b):
	default:
	}
	return len(b), nil
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newReloading is as much of a daemon as reads its configuration anew, and the file that it reads.
func newReloading(t *testing.T, file string) (*Daemon, *kernelStage, *logLines, string) {
	t.Helper()
	path := writeFile(t, file)
	from := From{Sources: Sources{File: path}}
	cfg, origins, err := Load(from.Sources)
	if err != nil {
		t.Fatal(err)
	}
	k, r := newStage(t, file)
	from.Origins = origins
	log := &logLines{lines: make(chan string, 100)}
	d := &Daemon{cfg: cfg, rules: r, reloader: reloader{from: from}, log: slog.New(slog.NewTextHandler(log, nil))}
	d.rates.setBase(cfg.SampleRate, "configuration")
	return d, k, log, path
}

func rewrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReload(t *testing.T) {
	const good = "sampling:\n  defaults: off\n  rules:\n    - {name: one, rate: 1}\n"
	d, k, log, path := newReloading(t, good)
	rewrite(t, path, good+"    - {name: two, rate: 2}\n")
	err := d.reload("a test")
	if want := path + `:5: sampling.rules[1].rate: 2 is out of range; allowed: a number from 0 to 1`; err == nil || err.Error() != want {
		t.Fatalf("a broken file: %v, want %s", err, want)
	}
	if k.generation != 1 || len(ruleNamesOf(t, d.rules)) != 2 {
		t.Errorf("a broken file changed something: generation %d", k.generation)
	}
	if s := d.rules.status(); s.LastError != err.Error() || s.LastErrorTime.IsZero() || s.Generation != 1 {
		t.Errorf("%+v", s)
	}
	if text := log.String(); !strings.Contains(text, "ambit.yaml:5:") || !strings.Contains(text, "the rules in force stay") {
		t.Errorf("it is logged as %s", text)
	}

	rewrite(t, path, good+"    - {name: two, rate: 0.5}\nsample_rate: 0.125\n")
	if err := d.reload("a test"); err != nil {
		t.Fatal(err)
	}
	if k.generation != 2 || len(ruleNamesOf(t, d.rules)) != 3 || k.base != 0.125 || d.rates.base() != 0.125 {
		t.Errorf("generation %d, rules %v, base %v", k.generation, ruleNamesOf(t, d.rules), k.base)
	}
	if s := d.rules.status(); s.LastError != "" || !s.LastErrorTime.IsZero() {
		t.Errorf("the error is still there: %+v", s)
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.reload("a test"); err == nil || !strings.Contains(log.String(), "the configuration file is gone") || k.generation != 2 {
		t.Errorf("without a file: %v, generation %d", err, k.generation)
	}
}

func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	d, k, log, path := newReloading(t, "sample_rate: 1\n")
	rewrite(t, path, "sample_rate: 0.5\nring_size: 1MiB\nsampling: {forced: {from: [10.0.0.0/8]}, budget: 9, control: off}\n")
	if err := d.reload("a test"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), `keys="sampling.forced.from, ring_size"`) || k.base != 0.5 {
		t.Errorf("base %v, logged %s", k.base, log.String())
	}
}

func TestFileThatChanges(t *testing.T) {
	first, second := fileMark{exists: true, size: 1}, fileMark{exists: true, size: 2}
	w := fileWatch{first, first}
	for i, look := range []struct {
		now  fileMark
		want bool
	}{
		{first, false}, {second, false}, {second, true}, {second, false}, // written at once
		{fileMark{}, false}, {first, false}, {first, true}, // by way of another file
		{second, false}, {first, false}, {first, false}, // and back
		{fileMark{}, false}, {fileMark{}, true}, {fileMark{}, false}, // removed
	} {
		if got := w.changed(look.now); got != look.want {
			t.Errorf("look %d: %v", i, got)
		}
	}
}

// A file is another one where a link on its way leads elsewhere, as a ConfigMap's do.
func TestMarkOfALinkedFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		rewrite(t, filepath.Join(dir, name, "ambit.yaml"), "live: on")
	}
	link := filepath.Join(dir, "data")
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(link, "ambit.yaml")
	before := markOf(path)
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if gone := markOf(path); gone.exists || gone == before {
		t.Errorf("%+v", gone)
	}
	if err := os.Symlink("two", link); err != nil {
		t.Fatal(err)
	}
	if after := markOf(path); !after.exists || after == before {
		t.Errorf("%+v is as it was", after)
	}
}

func TestWatchTakesSignalsAndChanges(t *testing.T) {
	d, _, log, path := newReloading(t, "sampling: {defaults: off}\n")
	d.reloader.listen()
	defer d.reloader.close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		d.watch(ctx)
		close(done)
	}()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if line := <-log.lines; !strings.Contains(line, `"asked by"=SIGHUP rules=1 generation=2`) {
		t.Errorf("after SIGHUP: %s", line)
	}
	rewrite(t, path, "sampling: {defaults: [favicon]}\n")
	if line := <-log.lines; !strings.Contains(line, "a change of "+path) || !strings.Contains(line, "rules=2 generation=3") {
		t.Errorf("after a change: %s", line)
	}
	cancel()
	<-done
}
