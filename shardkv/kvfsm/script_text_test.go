package kvfsm_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// scriptArgs are the arguments of a directive or of a line of an entry.
type scriptArgs struct {
	cmd   string
	plain []string
	named map[string]string
}

func parseArgs(t *testing.T, args []datadriven.CmdArg) scriptArgs {
	a := scriptArgs{named: map[string]string{}}
	for _, arg := range args {
		switch len(arg.Vals) {
		case 0:
			a.plain = append(a.plain, arg.Key)
		case 1:
			a.named[arg.Key] = arg.Vals[0]
		default:
			t.Fatalf("argument %v", arg)
		}
	}
	return a
}

func parseLine(t *testing.T, line string) scriptArgs {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		t.Fatal("an entry has an empty line")
	}
	a := scriptArgs{cmd: fields[0], named: map[string]string{}}
	for _, f := range fields[1:] {
		if key, value, ok := strings.Cut(f, "="); ok {
			a.named[key] = value
		} else {
			a.plain = append(a.plain, f)
		}
	}
	return a
}

func (a scriptArgs) num(key string, absent int) int {
	s, ok := a.named[key]
	if !ok {
		return absent
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(fmt.Sprintf("%s=%s", key, s))
	}
	return n
}

func (a scriptArgs) str(key string) string { return a.named[key] }

func (a scriptArgs) flag(name string) bool {
	for _, p := range a.plain {
		if p == name {
			return true
		}
	}
	return false
}

func (a scriptArgs) plainNum(t *testing.T, i int) uint64 {
	if i >= len(a.plain) {
		t.Fatalf("%s needs %d arguments", a.cmd, i+1)
	}
	n, err := strconv.ParseUint(a.plain[i], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func resultText(res any) string {
	switch r := res.(type) {
	case kvfsm.Verdict:
		text := "no-op"
		if r.Done {
			text = "done"
		}
		if r.Why != kvfsm.ReasonNone {
			text += ", " + r.Why.String()
		}
		if r.Count > 0 {
			text += fmt.Sprintf(", %d", r.Count)
		}
		return text
	case kvfsm.Outcome:
		text := r.Code.String()
		if r.Version != 0 {
			text += fmt.Sprintf(" version %d", r.Version)
		}
		if r.Length != 0 {
			text += fmt.Sprintf(" length %d", r.Length)
		}
		if r.Repeat {
			text += " (repeat)"
		}
		if r.Why != kvfsm.ReasonNone {
			text += ", " + r.Why.String()
		}
		return text + whereText(r.Code, r.Where)
	}
	return fmt.Sprintf("%+v", res)
}

func whereText(c kvfsm.Code, w kvfsm.Where) string {
	if c != kvfsm.CodeWrongGroup {
		return ""
	}
	text := fmt.Sprintf(": %v at epoch %v", w.Phase, w.Epoch)
	if !w.Next.IsZero() {
		text += fmt.Sprintf(", try group %d", w.Next.Group)
	}
	if w.Staging {
		text += ", staging"
	}
	return text
}

func recordText(r kvfsm.Record) string {
	text := fmt.Sprintf("= %v epoch %v h %d", r.Phase, r.Epoch, r.Handoff)
	if !r.To.IsZero() {
		text += fmt.Sprintf(" to group %d", r.To.Group)
	}
	if r.Phase == kvfsm.PhaseLeaving || r.Phase == kvfsm.PhaseFrozen {
		text += fmt.Sprintf(" start %d", r.Start)
	}
	text += fmt.Sprintf(" copy %d revision %d removal %d keys %d bytes %d", r.Copy, r.Revision, r.RemovalRevision, r.Keys, r.Bytes)
	if st := r.Staging; st != nil {
		text += fmt.Sprintf("\n= staging epoch %v h %d from group %d copy %d keys %d, at %s",
			st.Epoch, st.Handoff, st.From.Group, st.Copy, st.Keys, cursorText(st.Cursor))
	}
	return text
}

func cursorText(c kvfsm.Cursor) string {
	switch {
	case c.Tail:
		return fmt.Sprintf("tail %d", c.Revision)
	case len(c.Key) == 0:
		return "start"
	}
	return fmt.Sprintf("copy kind %d %q", c.Key[0], c.Key[1:])
}
