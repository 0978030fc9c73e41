package sampling

import (
	"fmt"
	"math"
)

// Config is what a controller is to keep to. It may change at any time, by Controller.Configure.
type Config struct {
	// Default is the rate of what nothing else speaks of, from 0 to 1.
	Default float64
	// Budget is how many spans per second the node may send; 0 is no budget, and then the default rate is what shares are
	// with one. Services and Classes bound some of them further, also without one of the node; 0, or none, does not.
	Budget   float64
	Services map[string]float64
	Classes  [Classes]float64
	Load     LoadConfig
	Band     BandConfig
}

// DefaultConfig has no budget, and keeps a share of everything.
func DefaultConfig(rate float64) Config {
	return Config{Default: rate, Load: DefaultLoad(), Band: DefaultBand()}
}

// Validate says what a controller can't keep to.
func (c *Config) Validate() error {
	if !(c.Default >= 0 && c.Default <= 1) {
		return fmt.Errorf("default rate %v: it must be from 0 to 1", c.Default)
	}
	for name, b := range c.Services {
		if !(b >= 0) || math.IsInf(b, 0) {
			return fmt.Errorf("budget of service %q: %v spans per second: it must be 0 or more", name, b)
		}
	}
	for _, b := range append(c.Classes[:], c.Budget) {
		if !(b >= 0) || math.IsInf(b, 0) {
			return fmt.Errorf("budget of %v spans per second: it must be 0 or more", b)
		}
	}
	l := &c.Load
	for name, m := range map[string]Marks{
		"CPU of the node": l.NodeCPU, "memory of the node": l.NodeMemory, "own CPU": l.Self, "buffers": l.Buffers,
		"CPU of workloads": l.CPU, "memory of workloads": l.Memory,
	} {
		if !(m.Low >= 0 && m.Low <= m.High) {
			return fmt.Errorf("marks of the %s: low %v, high %v: they must be at least 0, and the low one not above the high one", name, m.Low, m.High)
		}
	}
	if !(l.Least > 0 && l.Least <= 1) || !(c.Band.Least > 0 && c.Band.Least <= 1) {
		return fmt.Errorf("least factors %v, %v: they must be above 0 and at most 1", l.Least, c.Band.Least)
	}
	if c.Band.Low < 0 || c.Band.Low > c.Band.High {
		return fmt.Errorf("latency band from %v to %v: its low mark must not be above the high one", c.Band.Low, c.Band.High)
	}
	return nil
}
