package host

import (
	"context"
	"strings"
	"testing"
)

// A replica that stops in order alarms nobody: its log has no error of the
// streams that it closes itself.
func TestStoppingIsQuiet(t *testing.T) {
	hosts, _, _ := startGroup(t)
	propose(t, "a", hosts...)
	for _, h := range hosts {
		expectLog(t, h, "a")
	}
	for _, h := range hosts {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(h.logs.String()) {
			if strings.Contains(line, "[ERROR]") && strings.Contains(line, "failed to decode incoming command") {
				t.Errorf("replica %s: %s", h.label, line)
			}
		}
	}
}
