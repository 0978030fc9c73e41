package daemon

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"ambit/exporter"
	"ambit/l7"
)

// Every reason is there from the start: an alert on an increase sees no first one that comes with its counter.
func TestEveryReasonIsShown(t *testing.T) {
	cfg := Defaults()
	cfg.OTLP.Endpoint = "http://127.0.0.1:1"
	out, err := newOutput(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer out.sink.Close(t.Context())
	d := &Daemon{out: out}
	dropped := d.exporterStatus().Dropped
	for reason := range exporter.DropReasons {
		if n, shown := dropped[exporter.DropReason(reason).String()]; !shown || n != 0 {
			t.Errorf("%s: %d, %v", exporter.DropReason(reason), n, shown)
		}
	}
}

// What a terminal was too slow for is counted.
func TestLinesThatAreNotShown(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close() // every write fails
	defer w.Close()
	o := output{live: exporter.NewPrinter(w, exporter.QueryKeys)}
	o.live.Add(&l7.Span{})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := o.live.Close(ctx); err == nil {
		t.Error("a broken pipe took everything")
	}
	if n := o.notShown(); n != 1 {
		t.Errorf("%d lines were not shown, want 1", n)
	}
	if none := new(output); none.notShown() != 0 {
		t.Error("without a live view there is something that it does not show")
	}
}

func TestMappedMaps(t *testing.T) {
	const smaps = `55d0c0a00000-55d0c0b00000 r-xp 00000000 fe:00 12                     /usr/bin/ambit
Size:               1024 kB
Rss:                 900 kB
7f3c40000000-7f3c40002000 rw-s 00000000 00:0e 1060                       anon_inode:bpf-map
Size:                  8 kB
KernelPageSize:        4 kB
Rss:                   8 kB
Pss:                   4 kB
7f3c40100000-7f3c40900000 r--s 00002000 00:0e 1060                       anon_inode:bpf-map
Rss:                8192 kB
VmFlags: rd sh mr mw me ms sd
c000000000-c004000000 rw-p 00000000 00:00 0 
Rss:                9000 kB
`
	if n, err := mappedMaps(strings.NewReader(smaps)); err != nil || n != 8200<<10 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := mappedMaps(strings.NewReader("1-2 r 0 0 0 anon_inode:bpf-map\nRss: x kB\n")); err == nil {
		t.Error("a number that is none was taken")
	}
	self, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if n, err := mappedMaps(self); err != nil || n != 0 {
		t.Errorf("of this process, which has no maps: %d, %v", n, err)
	}
}
