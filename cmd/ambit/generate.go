package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// Completions ask ambit itself, so that they know what it knows.
const (
	bashCompletion = `# Completion of ambit for bash.
_ambit() {
	local cur="${COMP_WORDS[COMP_CWORD]}" words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	[[ $cur == -* ]] && words+=("$cur")
	mapfile -t COMPREPLY < <(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur")
}
complete -o default -F _ambit ambit
`
	zshCompletion = `#compdef ambit
# Completion of ambit for zsh.
_ambit() {
	local -a asked answers
	asked=("${words[@]:0:$((CURRENT - 1))}")
	[[ ${words[CURRENT]} == -* ]] && asked+=("${words[CURRENT]}")
	answers=("${(@f)$("${asked[@]}" --generate-bash-completion 2>/dev/null)}")
	if [[ -n "${answers[1]}" ]]; then
		_describe ambit answers
	else
		_files
	fi
}
_ambit "$@"
`
)

// generateCommand prints what packages hold beside the program; it is of no use on a node.
func (p *program) generateCommand() *cli.Command {
	kinds := map[string]func(*cli.App) (string, error){
		"man":  manual,
		"bash": func(*cli.App) (string, error) { return bashCompletion, nil },
		"zsh":  func(*cli.App) (string, error) { return zshCompletion, nil },
		"fish": (*cli.App).ToFishCompletion,
	}
	return &cli.Command{
		Name: "generate", Hidden: true, ArgsUsage: "man|bash|zsh|fish",
		Usage: "print the manual page or the completion of a shell",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "man, bash, zsh or fish")
			if err != nil {
				return err
			}
			if len(args) == 0 || kinds[args[0]] == nil {
				return fmt.Errorf("say what is to be printed: man, bash, zsh or fish")
			}
			text, err := kinds[args[0]](c.App)
			if err != nil {
				return fmt.Errorf("make the text: %w", err)
			}
			_, err = fmt.Fprint(p.out, text)
			return err
		},
	}
}

func manual(app *cli.App) (string, error) {
	page := *app
	page.Description = "ambit traces the HTTP and gRPC traffic of a node, and of an Istio ambient mesh in particular, with eBPF programs that parse requests in the kernel " +
		"and decide there which are worth a span. The daemon is \"ambit run\", as a service ambit.service; the other commands ask it over its socket, as root."
	text, err := page.ToManWithSection(1)
	if err != nil {
		return "", err
	}
	// The library's title has neither section nor source.
	_, rest, found := strings.Cut(text, ".SH NAME")
	if !found {
		return "", fmt.Errorf("the manual page has no NAME")
	}
	return ".TH AMBIT 1 \"\" \"ambit\" \"System Administration\"\n.nh\n.SH NAME" + rest, nil
}
