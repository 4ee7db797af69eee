package host

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The preamble of a Raft stream never changes its bytes, nor does its answer:
// replicas of two versions must know each other.
func TestGoldenPreamble(t *testing.T) {
	p := preamble{kind: kindQuestion, config: 3, term: 4, acknowledged: 5, target: "a.01", source: "b.02", address: "h:1"}
	p.cluster[0], p.incarnation[15], p.process[1] = 1, 2, 6
	const want = "f55352470302" + "01000000000000000000000000000000" + "00000000000000000000000000000002" + "00060000000000000000000000000000" +
		"0000000000000003" + "0000000000000004" + "0000000000000005" + "04612e3031" + "04622e3032" + "03683a31"
	b := p.append(nil)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("the preamble is %s, want %s", got, want)
	}
	if got, err := readPreamble(bytes.NewReader(b[len(preambleMagic):])); err != nil || got != p {
		t.Errorf("the preamble is read back as %+v, %v", got, err)
	}
	for want, a := range map[string]answer{"f5535247" + "00": {}, "f5535247" + "03" + "03683a31": {answerCopy, "h:1"}} {
		b := a.append(nil)
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("the answer is %s, want %s", got, want)
		}
		if got, err := readAnswer(bytes.NewReader(b)); err != nil || got != a {
			t.Errorf("the answer is read back as %+v, %v", got, err)
		}
	}
}
