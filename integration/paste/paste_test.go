package paste

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// Every Go block of the documents is a program that compiles.
func TestGoBlocksCompile(t *testing.T) {
	found := 0
	for _, b := range allBlocks(t) {
		if b.Language != "go" {
			continue
		}
		found++
		file := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(file, []byte(b.Text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "vet", file)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s:%d: %v\n%s", b.Doc, b.Line, err, out)
		}
	}
	if found == 0 {
		t.Error("there is no Go block")
	}
}

// Who pastes the README into bash, block by block, sees what it promises: a
// cluster that grows under load, loses the leader of the group that holds a key,
// shrinks, and is proved to have lost nothing.
func TestReadmeInBash(t *testing.T) {
	clone, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	base, err := FreePorts(12)
	if err != nil {
		t.Fatal(err)
	}
	play := Play{Root: clone, Shell: []string{"bash", "--norc", "-s"}, Base: base, Data: t.TempDir()}
	transcript, err := play.Run(t.Context())
	if err == nil {
		err = Told(transcript)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, transcript)
	}
}

// The README's way to the library works in an empty directory, without a published
// module.
func TestReadmeFromAnEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	clone, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	var setup, program string
	for _, b := range allBlocks(t) {
		switch {
		case b.Doc != "README.md":
		case b.Language == "sh" && strings.Contains(b.Text, "go mod init"):
			setup = b.Text
		case b.Language == "go":
			program = b.Text
		}
	}
	if setup == "" || program == "" {
		t.Fatal("the README does not say how")
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	// What "go mod tidy" would fetch is what this module was tested with; the
	// network plays no part.
	setup = strings.ReplaceAll(setup, "$HOME/shoal", clone) + "cp '" + clone + "/go.sum' .\ngo build -mod=mod -o app .\n"
	cmd := exec.Command("bash", "-e", "-c", setup)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func allBlocks(t *testing.T) []Block {
	t.Helper()
	blocks, err := Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}
