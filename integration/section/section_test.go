package section

import "testing"

func TestReplace(t *testing.T) {
	doc := "words\n<!-- a: make a -->\nold\n<!-- end of a -->\nmore\n"
	got, err := replace(doc, "a", "new\n")
	if want := "words\n<!-- a: make a -->\n\nnew\n\n<!-- end of a -->\nmore\n"; got != want || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if again, err := replace(got, "a", "new"); again != got || err != nil {
		t.Errorf("a second time: %q, %v", again, err)
	}
	for _, bad := range []string{"", "<!-- a: x -->\n", "<!-- end of a -->\n<!-- a: x -->\n", "<!-- ab: x -->\n<!-- end of ab -->\n"} {
		if got, err := replace(bad, "a", "new"); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}
