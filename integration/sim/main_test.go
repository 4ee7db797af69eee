package sim

import (
	"os"
	"runtime/debug"
	"testing"
)

// Worlds are small and live for a moment: rare collections cost little memory
// and save a quarter of the time.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}
