package history

import (
	"fmt"
	"strings"
)

// Token is a unique text for one append: it names the client and the append's
// number, and can be found in a longer value.
func Token(client, number int) string { return fmt.Sprintf("[%d:%d]", client, number) }

// Tokens is the answer of CheckTokens.
type Tokens struct {
	Acknowledged, Unknown, Refused int
	// Lost are acknowledged tokens that are not in the final values.
	Lost []string
	// Duplicated are tokens that are there more than once.
	Duplicated []string
	// Forbidden are tokens that are there though their append was not done.
	Forbidden []string
	// Disordered are tokens that stand before an earlier one of the same client.
	Disordered []string
}

// OK reports whether every token is where it must be.
func (t Tokens) OK() bool {
	return len(t.Lost)+len(t.Duplicated)+len(t.Forbidden)+len(t.Disordered) == 0
}

// String says the answer in words.
func (t Tokens) String() string {
	return fmt.Sprintf("%d acknowledged, %d unknown, %d refused; lost %v, duplicated %v, forbidden %v, disordered %v",
		t.Acknowledged, t.Unknown, t.Refused, t.Lost, t.Duplicated, t.Forbidden, t.Disordered)
}

// CheckTokens takes the appends of the history, whose values must be Tokens,
// and the final values of the keys that were only ever appended to. Every
// acknowledged token must be there once, an unknown one at most once, a refused
// one never; and each client's tokens in a key must stand in the order of its
// calls, provided that the client makes one call at a time.
//
// It sees what linearizability can't: a lost append that a later put would hide.
func (h History) CheckTokens(final map[string]string) Tokens {
	var t Tokens
	places := map[string]map[string][]int{} // key, token -> offsets
	for key, value := range final {
		places[key] = tokensOf(value)
	}
	type lane struct {
		client int
		key    string
	}
	last := map[lane]int{}
	for i := range h {
		op := &h[i]
		_, appendOnly := final[op.Key]
		if op.Kind != Append || !appendOnly {
			continue
		}
		at := places[op.Key][op.Value]
		if len(at) > 1 {
			t.Duplicated = append(t.Duplicated, op.Value)
		}
		switch op.Outcome {
		case Done:
			t.Acknowledged++
			if len(at) == 0 {
				t.Lost = append(t.Lost, op.Value)
			}
		case Unknown:
			t.Unknown++
		case NotDone:
			t.Refused++
			if len(at) > 0 {
				t.Forbidden = append(t.Forbidden, op.Value)
			}
		}
		if len(at) > 0 && op.Outcome == Done {
			k := lane{op.Client, op.Key}
			if before, ok := last[k]; ok && at[0] < before {
				t.Disordered = append(t.Disordered, op.Value)
			}
			last[k] = at[0]
		}
	}
	return t
}

// tokensOf finds the tokens of a value and their offsets.
func tokensOf(value string) map[string][]int {
	found := map[string][]int{}
	for at := 0; at < len(value); {
		if value[at] != '[' {
			at++
			continue
		}
		n := strings.IndexByte(value[at:], ']')
		if n < 0 {
			break
		}
		token := value[at : at+n+1]
		found[token] = append(found[token], at)
		at += n + 1
	}
	return found
}
