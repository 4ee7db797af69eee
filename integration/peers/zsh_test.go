package peers

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/shoalkv/shoal/integration/paste"
)

// Who pastes the README into an interactive zsh sees what who pastes it into bash
// does: zsh takes comments for arguments there, and unmatched patterns for errors.
func TestReadmeInZsh(t *testing.T) {
	if path, err := exec.LookPath("zsh"); err != nil {
		t.Fatalf("zsh is needed, in %q: %v", path, err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	base, err := paste.FreePorts(12)
	if err != nil {
		t.Fatal(err)
	}
	play := paste.Play{Root: root, Shell: []string{"zsh", "-f", "-i", "-s"}, Base: base, Data: t.TempDir()}
	transcript, err := play.Run(t.Context())
	if err == nil {
		err = paste.Told(transcript)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, transcript)
	}
}
