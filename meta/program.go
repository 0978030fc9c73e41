package meta

import (
	"slices"
	"strings"
)

// interpreter tells how to find the program in a command line: its first argument that is no option.
// Letters are options of one dash, which may be put together; a value may follow its letter at once or
// as the next argument. Words are whole options.
type interpreter struct {
	name string // of the executable; a version may follow, as in python3.11

	// Options whose value is the program.
	moduleLetters string
	moduleWords   []string
	// Options whose value is the program's text. It may hold anything, so nothing is named by it.
	inlineLetters string
	inlineWords   []string
	// Options that have a value.
	valueLetters string
	valueWords   []string
	// Letters whose value, if any, follows at once.
	attachedLetters string
	// First arguments that are commands of the interpreter.
	commands []string
	// What the program's name must end with.
	suffix string
}

var interpreters = []interpreter{
	{name: "python", moduleLetters: "m", inlineLetters: "c", valueLetters: "WX", valueWords: []string{"--check-hash-based-pycs"}},
	{name: "pypy", moduleLetters: "m", inlineLetters: "c", valueLetters: "WX", valueWords: []string{"--jit"}},
	{name: "node", inlineLetters: "ep", valueLetters: "rC",
		inlineWords: []string{"--eval", "--print", "--run"},
		valueWords: []string{"--require", "--import", "--loader", "--experimental-loader", "--conditions", "--title",
			"--env-file", "--env-file-if-exists", "--max-old-space-size", "--stack-size", "--icu-data-dir", "--openssl-config",
			"--inspect-port", "--watch-path", "--input-type", "--unhandled-rejections", "--dns-result-order", "--trace-event-categories"}},
	{name: "java", moduleWords: []string{"-jar", "-m", "--module"},
		valueWords: []string{"-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path", "--add-modules",
			"--add-reads", "--add-exports", "--add-opens", "--limit-modules", "--patch-module", "--source", "--enable-native-access"}},
	{name: "ruby", inlineLetters: "e", valueLetters: "rICE", attachedLetters: "xKWT0Fi"},
	{name: "perl", inlineLetters: "eE", valueLetters: "I", attachedLetters: "MmxDC0iFlV"},
	{name: "php", inlineLetters: "rBRE", valueLetters: "dctSzg", moduleLetters: "f"},
	{name: "dotnet", commands: []string{"exec"}, suffix: ".dll"},
	{name: "deno", inlineWords: []string{"eval", "repl"}, commands: []string{"run", "serve"}},
	{name: "bun", inlineLetters: "e", inlineWords: []string{"--eval"}, commands: []string{"run"}},
}

// interpreterOf returns how the executable with this name is told its program, or nil if it is no
// interpreter. Shells are none: what they run are mostly other executables.
func interpreterOf(executable string) *interpreter {
	name := strings.TrimRight(executable, "0123456789.-")
	if name == "nodejs" {
		name = "node"
	}
	for i := range interpreters {
		if interpreters[i].name == name {
			return &interpreters[i]
		}
	}
	return nil
}

// program returns the last part of the program's path, or the module's or class's name, with its
// suffix: app.py, shop.jar, http.server. It is "" where the command line names none. Nothing else of a
// command line is ever returned: arguments may hold secrets.
func (in *interpreter) program(args []string) string {
	if len(args) > 0 {
		args = args[1:]
	}
	if len(args) > 0 && slices.Contains(in.commands, args[0]) {
		args = args[1:]
	}
	next := func() string {
		if len(args) == 0 {
			return ""
		}
		a := args[0]
		args = args[1:]
		return a
	}
	for len(args) > 0 {
		arg := next()
		switch {
		case arg == "--":
			return in.accept(next())
		case slices.Contains(in.inlineWords, arg) || arg == "-":
			return ""
		case slices.Contains(in.moduleWords, arg):
			return in.accept(next())
		case slices.Contains(in.valueWords, arg):
			next()
		case strings.HasPrefix(arg, "@") && in.name == "java": // a file of arguments
		case strings.HasPrefix(arg, "--"):
		case strings.HasPrefix(arg, "-"):
			module, stop := in.letters(arg[1:], next)
			if stop {
				return in.accept(module)
			}
		case in.suffix != "" && !strings.HasSuffix(arg, in.suffix):
		default:
			return in.accept(arg)
		}
	}
	return ""
}

// letters reads options of one letter. stop is true when no more are to be read, because module names
// the program or because its text is on the command line.
func (in *interpreter) letters(options string, next func() string) (module string, stop bool) {
	for i := range len(options) {
		letter, rest := options[i], options[i+1:]
		switch {
		case strings.IndexByte(in.inlineLetters, letter) >= 0:
			return "", true
		case strings.IndexByte(in.moduleLetters, letter) >= 0:
			if rest == "" {
				rest = next()
			}
			return rest, true
		case strings.IndexByte(in.valueLetters, letter) >= 0:
			if rest == "" {
				next()
			}
			return "", false
		case strings.IndexByte(in.attachedLetters, letter) >= 0:
			return "", false
		}
	}
	return "", false
}

func (in *interpreter) accept(program string) string {
	if !strings.HasSuffix(program, in.suffix) {
		return ""
	}
	return base(program)
}
