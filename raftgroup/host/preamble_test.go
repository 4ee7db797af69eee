package host

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The preamble of a Raft stream never changes its bytes: replicas of two versions
// must know each other.
func TestGoldenPreamble(t *testing.T) {
	p := preamble{target: "a.01", source: "b.02"}
	p.cluster[0], p.incarnation[15] = 1, 2
	const want = "f553524701010000000000000000000000000000000000000000000000000000000000000204612e303104622e3032"
	b := p.append(nil)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("the preamble is %s, want %s", got, want)
	}
	if got, err := readPreamble(bytes.NewReader(b[len(preambleMagic):])); err != nil || got != p {
		t.Errorf("the preamble is read back as %+v, %v", got, err)
	}
}
