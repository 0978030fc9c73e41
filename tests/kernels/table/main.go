// Command table writes the table of docs/kernels.md anew, from what the guests of the last runs reported.
package main

import (
	"fmt"
	"os"

	"ambit/tests/kernels"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: table REPORTS PAGE")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func write(reports, page string) error {
	findings, err := kernels.ReadFindings(reports)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	replaced, err := kernels.Replace(string(text), kernels.Table(findings))
	if err != nil {
		return err
	}
	if err := os.WriteFile(page, []byte(replaced), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}
