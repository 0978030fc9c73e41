package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"ambit/sampling"
)

const (
	// stateEvery is how often the state is written, stateMost how large a file is read.
	stateEvery = time.Minute
	stateMost  = 4 * mib
	// stateOld is when a state tells nothing any more of the load that there is.
	stateOld = time.Hour
	// stateFor is how long new routes are looked up in it.
	stateFor = 5 * time.Minute
)

// savedState is what a file said of the rates before a restart, by the names of routes. nil says nothing.
type savedState struct {
	state sampling.State
	rates map[sampling.RouteName]float64
	until time.Time
}

// readState reads the state of an earlier daemon. What can't be used is one line of the log: rates then begin anew.
func readState(path string, now time.Time, log *slog.Logger) *savedState {
	if path == "" {
		return nil
	}
	state, err := decodeState(path, now)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		log.Warn("the rates before the restart are not used: rates begin anew", "file", path, "error", err)
		return nil
	}
	s := &savedState{state: state, rates: make(map[sampling.RouteName]float64, len(state.Routes)), until: now.Add(stateFor)}
	for _, r := range state.Routes {
		s.rates[r.RouteName] = r.Rate
	}
	log.Info("rates begin as they were before the restart", "file", path, "routes", len(s.rates))
	return s
}

func decodeState(path string, now time.Time) (sampling.State, error) {
	file, err := os.Open(path)
	if err != nil {
		return sampling.State{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return sampling.State{}, err
	}
	if age := now.Sub(info.ModTime()); age > stateOld {
		return sampling.State{}, fmt.Errorf("it is %s old, and after %s the load is another one", age.Round(time.Second), stateOld)
	}
	content, err := io.ReadAll(io.LimitReader(file, stateMost+1))
	if err != nil {
		return sampling.State{}, err
	}
	if len(content) > stateMost {
		return sampling.State{}, fmt.Errorf("it has more than %s", showSize(stateMost))
	}
	return sampling.DecodeState(content)
}

// writeState replaces the file as a whole.
func writeState(path string, state sampling.State) (err error) {
	content, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode the state of the rates: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write the state of the rates: %w", err)
	}
	_, err = temporary.Write(content)
	err = errors.Join(err, temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the state of the rates: %w", err), os.Remove(temporary.Name()))
	}
	return nil
}
