package background

import (
	"testing"

	"github.com/charmbracelet/lipgloss"
)

func TestTheTerminalIsNotAsked(t *testing.T) {
	if !lipgloss.HasDarkBackground() {
		t.Error("the background is not said beforehand")
	}
}
