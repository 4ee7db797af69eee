//go:build !unix

package output

func ownsTerminal(int) bool { return true }
