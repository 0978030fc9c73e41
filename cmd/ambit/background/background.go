// Package background says beforehand that terminals are dark. The library of the live table asks the terminal otherwise,
// and waits up to five seconds for an answer, when a process starts: whichever command it is for. It does so in an init
// function; that of this package runs before, as Go initialises packages by their dependencies and then by their
// paths, and this one needs less and sorts first.
package background

import "github.com/charmbracelet/lipgloss"

func init() { lipgloss.SetHasDarkBackground(true) }
