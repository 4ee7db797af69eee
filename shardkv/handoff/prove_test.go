//go:build prove

package handoff_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// planted are the guards of the protocol, each with what it becomes when it is
// switched off. Left out are those that another guard implies, so that nothing
// observable changes (Install's epoch, Create's epoch).
var planted = []struct{ name, file, guard, without string }{
	{"freeze without handoff", "kvfsm/transfer.go", "case r.Handoff != c.Handoff:", "case false:"},
	{"late start", "kvfsm/transfer.go", "m.adopted.Num != c.Handoff {", "m.adopted.Num < c.Handoff {"},
	{"stage with older config", "kvfsm/transfer.go", "case m.adopted == nil || m.adopted.Num < c.Handoff:", "case m.adopted == nil:"},
	{"refusal while frozen", "kvfsm/transfer.go", "case !c.Frozen && m.owner", "case m.owner"},
	{"cursor unmatched", "kvfsm/transfer.go", "case !st.Cursor.Equal(from):", "case false:"},
	{"staging in a used copy", "kvfsm/transfer.go", "\tsh.rec.CopyLast++\n\tst.Copy = sh.rec.CopyLast", "\tst.Copy = sh.rec.CopyLast + 1"},
	{"digest skipped", "kvfsm/transfer.go", "if st.Content != c.Summary.Content {", "if false {"},
	{"drop without epoch", "kvfsm/transfer.go",
		"case r.Phase != PhaseFrozen:\n\t\treturn refuse(ReasonPhase), nil\n\tcase r.Epoch != c.Epoch:",
		"case r.Phase != PhaseFrozen:\n\t\treturn refuse(ReasonPhase), nil\n\tcase false:"},
	{"cancel keeps the handoff", "kvfsm/adopt.go", "r.Handoff, r.Start = PhaseServing, Peer{}, m.adopted.Num, 0", "r.Start = PhaseServing, Peer{}, 0"},
	{"re-target keeps the handoff", "kvfsm/adopt.go", "r.To, r.Handoff, r.Start = owner, m.adopted.Num, r.Revision", "r.To, r.Start = owner, r.Revision"},
	{"frozen re-targeted", "kvfsm/adopt.go", "if r.Phase == PhaseLeaving {", "if r.Phase == PhaseLeaving || r.Phase == PhaseFrozen {"},
	{"frozen serves", "kvfsm/types.go", "return p == PhaseServing || p == PhaseLeaving }", "return p == PhaseServing || p == PhaseLeaving || p == PhaseFrozen }"},
	{"sessions not in the tail", "kvfsm/machine.go", "return m.logChange(sh, item, len(value), rev)",
		"if item[0] == kindSession {\n\t\treturn nil\n\t}\n\treturn m.logChange(sh, item, len(value), rev)"},
	{"sessions not flushed before the table", "kvfsm/machine.go", "if err := m.flushSessions(); err != nil {\n\t\treturn nil, err\n\t}\n", ""},
	{"page cut within a revision", "kvfsm/page.go", "if rev != last && len(p.Items) > 0", "if len(p.Items) > 0"},
	{"copy moves the index", "kvfsm/page.go", "p.Next = Cursor{Tail: true, Revision: rec.Start}", "p.Next = Cursor{Tail: true, Revision: rec.Revision}"},
	{"lagging replica moves the cursor back", "kvfsm/page.go", "max(from.Revision, rec.Revision)", "rec.Revision"},
	{"refusal remembered", "kvfsm/write.go", "if err != nil || !out.Code.Done() || ses == nil", "if err != nil || ses == nil"},
	{"mismatch forgotten", "kvfsm/write.go", "if err != nil || !out.Code.Done() || ses == nil", "if err != nil || out.Code != CodeOK || ses == nil"},
	{"mismatch without revision", "kvfsm/write.go", "\t\t\tsh.rec.Revision++\n\t\t\tm.touch(sh)", "\t\t\tm.touch(sh)"},
	{"expired session repeated", "kvfsm/write.go", "case session.Expired:\n\t\treturn Outcome{Code: CodeSessionExpired}, nil, nil", "case session.Expired:"},
	{"acknowledged too early", "kvfsm/write.go", "}, w.Stamp.AckedBelow)", "}, w.Stamp.Sequence)"},
	{"start without ready", "handoff/leaving.go", "case !l.standing.Ready:", "case false:"},
	{"another incarnation answers", "handoff/leaving.go", "l.to != reply.From || ", ""},
	{"freeze before the tail", "handoff/leaving.go", "if !l.inTail {", "if false {"},
	{"drop before the proof", "handoff/leaving.go", "if proof.Less(rec.Epoch.Next()) {", "if false {"},
	{"early discard", "handoff/arriving.go", "a.shown.Compare(st.Wanted()) > 0", "a.shown.Compare(st.Wanted()) != 0"},
}

// Every guard is needed: without it, some test of the three packages fails. The
// build's overlay replaces the file, so that the tree is not touched.
func TestPlantedBugs(t *testing.T) {
	t.Cleanup(func() {
		// rapid notes how to repeat the failures that were wanted here.
		os.RemoveAll(filepath.Join("..", "kvfsm", "testdata", "rapid"))
		os.RemoveAll(filepath.Join("..", "session", "testdata", "rapid"))
	})
	for _, bug := range planted {
		t.Run(strings.ReplaceAll(bug.name, " ", "-"), func(t *testing.T) {
			path, err := filepath.Abs(filepath.Join("..", bug.file))
			if err != nil {
				t.Fatal(err)
			}
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(source), bug.guard) {
				t.Fatalf("%s has no %q any more: update the list", bug.file, bug.guard)
			}
			dir := t.TempDir()
			file, overlay := filepath.Join(dir, "planted.go"), filepath.Join(dir, "overlay.json")
			buggy := strings.Replace(string(source), bug.guard, bug.without, 1)
			replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: file}})
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{file: buggy, overlay: string(replace)} {
				if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-timeout", "90s",
				".", "../kvfsm", "../session").CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("no test notices")
			case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "panic:"):
				t.Errorf("it does not build: %s", out)
			}
		})
	}
}
