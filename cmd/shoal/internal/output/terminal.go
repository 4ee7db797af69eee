package output

import (
	"io"
	"os"

	"golang.org/x/term"
)

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// columnsOf is the width of a terminal; 0: not known.
func columnsOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// isForeground reports whether the terminal w is this process's at the moment: a
// command that a shell runs in the background shares it with whoever types.
func isForeground(w io.Writer) bool {
	f, ok := w.(*os.File)
	return !ok || ownsTerminal(int(f.Fd()))
}
