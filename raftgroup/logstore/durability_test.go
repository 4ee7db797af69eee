package logstore_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const bboltModule = "go.etcd.io/bbolt"

// syncHook makes bbolt tell of its syncs. bbolt has no seam for that: it takes a
// file of the operating system, and syncs it by its descriptor.
var syncHook = [2]string{`package bbolt

import (
	"syscall"
)

// fdatasync flushes written data to a file descriptor.
func fdatasync(db *DB) error {
	return syscall.Fdatasync(int(db.file.Fd()))
}
`, `package bbolt

import (
	"syscall"
)

var SyncHook func(path string)

func fdatasync(db *DB) error {
	err := syscall.Fdatasync(int(db.file.Fd()))
	if err == nil && SyncHook != nil {
		SyncHook(db.file.Name())
	}
	return err
}
`}

// buildLossy builds this package's tests with what runs on a lossy disk, on a copy
// of bbolt that has the hook.
func buildLossy(t *testing.T) string {
	t.Helper()
	run := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	dir := t.TempDir()
	hooked := filepath.Join(dir, "bbolt")
	if err := os.CopyFS(hooked, os.DirFS(run("go", "list", "-m", "-f", "{{.Dir}}", bboltModule))); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(hooked, "bolt_linux.go")
	if text, err := os.ReadFile(source); err != nil || string(text) != syncHook[0] {
		t.Fatalf("bolt_linux.go is not as it was: update the hook (%v)\n%s", err, text)
	}
	if err := errors.Join(os.Remove(source), os.WriteFile(source, []byte(syncHook[1]), 0o600)); err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(dir, "go.mod")
	original := strings.TrimSuffix(run("go", "env", "GOMOD"), "go.mod")
	for _, name := range []string{"go.mod", "go.sum"} {
		copyFile(t, original+name, filepath.Join(dir, name))
	}
	run("go", "mod", "edit", "-replace", bboltModule+"="+hooked, module)
	binary := filepath.Join(dir, "lossy.test")
	run("go", "test", "-c", "-tags", "lossydisk", "-modfile", module, "-o", binary, ".")
	return binary
}

// TestDurability: the store keeps its contract on a disk that loses what was not
// synced, wherever power is lost; and if any of its syncs is left out, the contract
// fails: it can tell.
func TestDurability(t *testing.T) {
	binary := buildLossy(t)
	run := func(tests, ignored string) (string, error) {
		cmd := exec.Command(binary, "-test.run", tests, "-test.failfast")
		cmd.Env = append(os.Environ(), "LOSSY_IGNORED="+ignored)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("^TestLossy", ""); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, ignored := range []string{"all", "raft.db", "hardstate", "names"} {
		if out, err := run("^TestLossyContract$", ignored); err == nil || !strings.Contains(out, "--- FAIL: TestLossyContract") {
			t.Errorf("without syncs of %s, the contract does not fail: %v\n%s", ignored, err, out)
		}
	}
}
