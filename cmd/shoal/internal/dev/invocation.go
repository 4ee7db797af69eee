package dev

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Invocation returns the words that start this program again, in the way that
// it was started: program is its first argument, executable its file.
//
// "go run" builds an executable in the go command's cache or work directory, of
// which people see nothing: they typed "go run PACKAGE". Which package, the
// parent's command line says, where the system shows it.
func Invocation(program, executable string) []string {
	if !isGoRun(executable) {
		return []string{program}
	}
	return goRun(parentArguments())
}

// isGoRun reports whether an executable was built by "go run".
func isGoRun(executable string) bool {
	for dir := filepath.Dir(executable); ; dir = filepath.Dir(dir) {
		// The cache is go-build, a work directory go-build and a number.
		if number, ok := strings.CutPrefix(filepath.Base(dir), "go-build"); ok && strings.Trim(number, "0123456789") == "" {
			return true
		}
		if dir == filepath.Dir(dir) {
			return false
		}
	}
}

// goRun returns the words up to the package of a "go run" command line, or the
// package that this program is if args is none.
func goRun(args []string) []string {
	usual := []string{"go", "run", "./cmd/shoal"}
	if len(args) < 3 || filepath.Base(args[0]) != "go" {
		return usual
	}
	run := slices.Index(args, "run")
	if run < 0 {
		return usual
	}
	for i := run + 1; i < len(args); i++ {
		switch arg := args[i]; {
		case !strings.HasPrefix(arg, "-"):
			return append([]string{"go"}, args[1:i+1]...)
		case slices.Contains(goRunValueFlags, strings.TrimLeft(arg, "-")):
			i++
		}
	}
	return usual
}

// goRunValueFlags are the flags of "go run" that a value may follow.
var goRunValueFlags = []string{"C", "tags", "ldflags", "gcflags", "asmflags", "mod", "modfile", "overlay", "p", "exec", "pgo", "covermode", "coverpkg"}

// parentArguments is the command line of the parent process; nil where the
// system does not show it.
func parentArguments() []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(os.Getppid()) + "/cmdline")
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
}

// quote makes a word safe to paste into a shell.
func quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./,:=@%+"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
