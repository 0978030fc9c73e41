package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"ambit/admin"

	"github.com/charmbracelet/bubbles/table"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"
)

const (
	topRefresh = time.Second
	// maxFilter bounds what may be typed, in characters.
	maxFilter = 64
	// minRoute is how narrow the column of routes gets at the most, the only one that gives way.
	minRoute = 12
)

// topModel is the live table of `ambit top`, as bubbletea has it: Update takes what happens, View shows it. What comes
// from the daemon or is typed passes admin.Printable, so that only the terminal library steers the terminal.
type topModel struct {
	fetch func() (admin.Top, error)

	top   admin.Top
	asked bool // an answer came
	err   error

	column     int // of admin.TopColumns
	descending bool
	filter     string
	typing     bool // the filter

	table         table.Model
	width, height int
}

type topAnswer struct {
	top admin.Top
	err error
}

type topTick struct{}

func newTopModel(fetch func() (admin.Top, error)) *topModel {
	styles := table.DefaultStyles()
	styles.Header = styles.Header.Bold(true).Padding(0, 1, 0, 0)
	styles.Cell = lipgloss.NewStyle().Padding(0, 1, 0, 0)
	styles.Selected = lipgloss.NewStyle().Reverse(true)
	m := &topModel{
		fetch: fetch, column: admin.RateColumn, descending: true, width: 80, height: 24,
		table: table.New(table.WithFocused(true), table.WithStyles(styles)),
	}
	m.lay()
	return m
}

func (m *topModel) Init() tea.Cmd { return m.ask }

func (m *topModel) ask() tea.Msg {
	top, err := m.fetch()
	return topAnswer{top, err}
}

func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case topAnswer:
		if m.err = msg.err; m.err == nil {
			m.top, m.asked = msg.top, true
		}
		m.lay()
		return m, tea.Tick(topRefresh, func(time.Time) tea.Msg { return topTick{} })
	case topTick:
		return m, m.ask
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.lay()
	case tea.KeyMsg:
		// What is typed quickly comes at once.
		if msg.Type == tea.KeyRunes && len(msg.Runes) > 1 {
			var commands []tea.Cmd
			for _, r := range msg.Runes {
				commands = append(commands, m.press(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune{r}}))
			}
			return m, tea.Batch(commands...)
		}
		return m, m.press(msg)
	}
	return m, nil
}

func (m *topModel) press(key tea.KeyMsg) tea.Cmd {
	if key.Type == tea.KeyCtrlC {
		return tea.Quit
	}
	if m.typing {
		m.edit(key)
		m.lay()
		return nil
	}
	switch name := key.String(); name {
	case "q":
		return tea.Quit
	case "/":
		m.typing = true
	case "esc":
		m.filter = ""
	case "s":
		m.sortBy((m.column + 1) % len(admin.TopColumns))
	case "r":
		m.descending = !m.descending
	case "1", "2", "3", "4", "5", "6", "7", "8", "9", "0":
		// 0 is the tenth, as on the keyboard.
		if column := (int(name[0]-'0') + 9) % 10; column < len(admin.TopColumns) {
			m.sortBy(column)
		}
	default:
		var cmd tea.Cmd
		m.table, cmd = m.table.Update(key)
		return cmd
	}
	m.lay()
	return nil
}

// sortBy sorts by a column: by numbers from the largest down, by text from A on.
func (m *topModel) sortBy(column int) {
	m.column, m.descending = column, admin.TopColumns[column].Number
}

// edit takes a key while the filter is typed.
func (m *topModel) edit(key tea.KeyMsg) {
	switch key.Type {
	case tea.KeyEnter:
		m.typing = false
	case tea.KeyEsc:
		m.typing, m.filter = false, ""
	case tea.KeyBackspace:
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	case tea.KeyRunes, tea.KeySpace:
		for _, r := range key.Runes {
			if unicode.IsPrint(r) && len([]rune(m.filter)) < maxFilter {
				m.filter += string(r)
			}
		}
	}
}

// lay puts the rows that the filter lets through into the table, as wide as they need.
func (m *topModel) lay() {
	rows := slices.Clone(m.top.Rows)
	admin.SortTop(rows, m.column, m.descending)
	var cells []table.Row
	filter := strings.ToLower(m.filter)
	for i := range rows {
		row := make(table.Row, len(admin.TopColumns))
		for c := range admin.TopColumns {
			row[c] = admin.Printable(admin.TopColumns[c].Show(&rows[i]))
		}
		if filter == "" || slices.ContainsFunc(row, func(s string) bool { return strings.Contains(strings.ToLower(s), filter) }) {
			cells = append(cells, row)
		}
	}
	columns := m.columns(cells)
	for c, column := range admin.TopColumns {
		if !column.Number {
			continue
		}
		for _, row := range cells {
			row[c] = strings.Repeat(" ", max(columns[c].Width-ansi.StringWidth(row[c]), 0)) + row[c]
		}
		columns[c].Title = strings.Repeat(" ", max(columns[c].Width-ansi.StringWidth(columns[c].Title), 0)) + columns[c].Title
	}
	cursor := m.table.Cursor()
	m.table.SetRows(nil) // rows and columns have to fit each other at every moment
	m.table.SetColumns(columns)
	m.table.SetRows(cells)
	m.table.SetWidth(m.width)
	m.table.SetHeight(max(m.height-2, 3)) // a line above, one below
	m.table.SetCursor(max(min(cursor, len(cells)-1), 0))
}

// columns are as wide as their cells; that of routes takes what is left where that is less.
func (m *topModel) columns(cells []table.Row) []table.Column {
	columns := make([]table.Column, len(admin.TopColumns))
	total, route := 0, 0
	for c, column := range admin.TopColumns {
		title := column.Title
		if c == m.column {
			title += map[bool]string{true: "▼", false: "▲"}[m.descending]
		}
		width := ansi.StringWidth(title)
		for _, row := range cells {
			width = max(width, ansi.StringWidth(row[c]))
		}
		columns[c] = table.Column{Title: title, Width: width}
		total += width + 1
		if column.Title == "ROUTE" {
			route = c
		}
	}
	if total > m.width {
		columns[route].Width = max(columns[route].Width-(total-m.width), min(minRoute, columns[route].Width))
	}
	return columns
}

func (m *topModel) View() string {
	head := fmt.Sprintf("ambit top  %d of %d routes", len(m.table.Rows()), len(m.top.Rows))
	switch {
	case m.err != nil:
		head = "no answer: " + admin.Printable(m.err.Error())
	case !m.asked:
		head = "ambit top  counting"
	default:
		head += fmt.Sprintf(", over the last %.0f s", m.top.SinceSeconds)
		if m.top.Unnamed > 0 {
			head += fmt.Sprintf(", %d without a name yet", m.top.Unnamed)
		}
	}
	foot := "s column  r direction  / filter  q end"
	if m.typing || m.filter != "" {
		foot = "/" + admin.Printable(m.filter)
		if m.typing {
			foot += "_"
		} else {
			foot += "  (esc: all)"
		}
	}
	cut := func(s string) string { return ansi.Truncate(s, m.width, "…") }
	return cut(head) + "\n" + m.table.View() + "\n" + cut(foot)
}
