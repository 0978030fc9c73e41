package bpf

import (
	"errors"
	"os"
	"testing"
	"time"
)

func TestReaderWaitsAndEnds(t *testing.T) {
	r, err := load(t, Config{}).Reader()
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	next := func(what string, least, most time.Duration) {
		t.Helper()
		start := time.Now()
		ok, err := r.Next(&rec)
		if took := time.Since(start); ok || err != nil || took < least || took > most {
			t.Errorf("%s: %v, %v after %v", what, ok, err, took)
		}
	}
	next("the first look does not wait", 0, pollInterval/2)
	next("the second one does", pollInterval, 20*pollInterval)

	closed := make(chan error)
	go func() {
		time.Sleep(pollInterval / 5)
		closed <- r.Close()
	}()
	for start := time.Now(); ; {
		if _, err = r.Next(&rec); err != nil || time.Since(start) > 20*pollInterval {
			break
		}
	}
	if !errors.Is(err, os.ErrClosed) {
		t.Errorf("behind Close it says %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err = r.Next(&rec); !errors.Is(err, os.ErrClosed) {
		t.Errorf("long behind Close it says %v", err)
	}
}
