package jaeger

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
)

// logger has what the SDK's sampler says be the test's.
func logger(t *testing.T) logr.Logger { return testr.New(t) }
