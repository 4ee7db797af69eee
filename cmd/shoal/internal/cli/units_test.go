package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The units of deploy/systemd start a replica again that panicked in the
// background, and leave one down whose settings or directory an operator must mend:
// each of these ends a real process, whose exit code decides.
func TestUnitsRestartWhatMayPass(t *testing.T) {
	units, err := filepath.Glob("../../../../deploy/systemd/*.service")
	if err != nil || len(units) != 2 {
		t.Fatalf("the units are %v, %v", units, err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	replica := []string{"controller", "--id", "c1", "--listen", "127.0.0.1:0", "--data"}
	for _, c := range []struct {
		what    string
		args    []string
		env     string
		code    int
		restart bool
	}{
		{"a panic in the background", append(replica, t.TempDir()), panicSoon + "=1", 2, true},
		{"a damaged directory", append(replica, dir), "", ExitRefused, false},
		{"a flag that is not there", append(replica, t.TempDir(), "--nonsense"), "", ExitServerUsage, false},
		{"a setting that is missing", []string{"server", "--group", "1"}, "", ExitServerUsage, false},
		{"a setting that can't be", []string{"server", "--group", "one"}, "", ExitServerUsage, false},
		{"a variable that can't be", append(replica, t.TempDir()), "SHOAL_SHARDS=many", ExitServerUsage, false},
		{"an address that nobody can reach", []string{"controller", "--id", "c1", "--listen", "0.0.0.0:0", "--insecure", "--data", t.TempDir()}, "", ExitServerUsage, false},
		{"an address for strangers", []string{"controller", "--id", "c1", "--listen", "0.0.0.0:0", "--advertise", "h:1", "--data", t.TempDir()}, "", ExitServerUsage, false},
		{"a directory that is not there for the moment", append(replica, "/proc/none"), "", ExitFailed, true},
	} {
		cmd := exec.Command(os.Args[0], c.args...)
		cmd.Env = append(os.Environ(), beProgram+"=1", c.env)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.code {
			t.Errorf("%s: %v, want exit code %d\n%s", c.what, err, c.code, out)
			continue
		}
		for _, unit := range units {
			if got := restarts(t, unit, exit.ExitCode()); got != c.restart {
				t.Errorf("%s (exit code %d): %s starts it again: %v", c.what, exit.ExitCode(), unit, got)
			}
		}
	}
}

// restarts reports whether systemd starts a unit again whose process ended with a
// code other than 0 (systemd.service(5)).
func restarts(t *testing.T, unit string, code int) bool {
	t.Helper()
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			settings[name] = value
		}
	}
	if settings["Restart"] != "on-failure" || settings["StartLimitIntervalSec"] != "0" {
		t.Fatalf("%s: Restart is %q, StartLimitIntervalSec %q", unit, settings["Restart"], settings["StartLimitIntervalSec"])
	}
	return !slices.Contains(strings.Fields(settings["RestartPreventExitStatus"]), strconv.Itoa(code))
}
