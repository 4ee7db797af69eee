package virtual

import (
	"bytes"
	"fmt"
	"regexp"
	"runtime"
	"testing"
	"testing/synctest"
)

// bubble runs f in a bubble, and fails if goroutines are left in it when f and
// all that f could wait for have ended. There is one exception: whoever waits for
// a future that Raft lost when it was shut down (hashicorp/raft#498) does so
// forever; raftgroup's callers do not, but one goroutine for each lost future
// does. It returns how many of those there are, and what else is left.
func bubble(t *testing.T, f func()) (lost int, left string) {
	var name []byte
	defer func() {
		if p := recover(); p != nil {
			lost, left = leftOvers(name)
			if left != "" {
				left = fmt.Sprintf("%v\n\n%s", p, left)
			}
		}
	}()
	synctest.Test(t, func(*testing.T) {
		name = bubbleName()
		f()
	})
	return 0, ""
}

var (
	bubblePattern = regexp.MustCompile(`synctest bubble \d+\]`)
	lostPattern   = regexp.MustCompile(`^goroutine .*\n.*raft\.\(\*deferError\)\.Error\(.*\n.*\n.*raftgroup\.\(\*(packer\)\.send|Replica\)\.await)\.func1\(`)
)

// bubbleName is how stacks name the bubble of the caller.
func bubbleName() []byte {
	b := make([]byte, 1<<10)
	return bubblePattern.Find(b[:runtime.Stack(b, false)])
}

func leftOvers(name []byte) (lost int, left string) {
	for stack := range bytes.SplitSeq(stacks(), []byte("\n\n")) {
		header, _, _ := bytes.Cut(stack, []byte("\n"))
		switch {
		case len(name) > 0 && !bytes.Contains(header, name):
		case lostPattern.Match(stack):
			lost++
		default:
			left += string(stack) + "\n\n"
		}
	}
	return lost, left
}

// stacks are those of all goroutines.
func stacks() []byte {
	b := make([]byte, 64<<20)
	return b[:runtime.Stack(b, true)]
}
