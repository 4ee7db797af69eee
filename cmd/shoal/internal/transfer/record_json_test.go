package transfer

import (
	"strings"
	"testing"
)

// A line is a record only if it means one key and one value: what encoding/json
// would silently repair, and so make two keys one, is a problem instead.
func TestRecordsAreNotRepaired(t *testing.T) {
	for _, c := range []struct {
		line       string
		key, value string
		problem    string // part of it; empty: it is a record
	}{
		{line: `{"key":"a","value":"1"}`, key: "a", value: "1"},
		{line: ` { "value" : "" , "key" : "a" } ` + "\r", key: "a"},
		{line: `{"key":"\ud83d\ude00","value":"\\ud800 \\\\u"}`, key: "😀", value: `\ud800 \\u`},
		{line: `{"key":"\uFFFD\u00e9\\","value":"\"\ud7ff\ue000"}`, key: "\ufffdé\\", value: "\"\ud7ff\ue000"},
		{line: `{"key_base64":"/w==","value_base64":""}`, key: "\xff"},
		{line: `{"key":"a","value":"1","VALUE":"2","Key":"b","version":7,"more":{"key":["\ud800"]}}`, key: "a", value: "1"},
		{line: `{"\u006bey":"a","value":"1"}`, key: "a", value: "1"},

		{line: `{"key":"b\ud83d","value":"1"}`, problem: `key has the escape \ud83d`},
		{line: `{"key":"b","value":"x\uDE00"}`, problem: `value has the escape \uDE00`},
		{line: `{"key":"\ud83d\ud83d\ude00","value":""}`, problem: `\ud83d`},
		{line: `{"key":"\ud83d\\ude00","value":""}`, problem: `\ud83d`},
		{line: `{"key_base64":"\udc00","value":""}`, problem: `\udc00`},
		{line: "{\"key\":\"\xed\xa0\x80\",\"value\":\"\"}", problem: "not UTF-8"},
		{line: "{\"key\":\"\xff\",\"value\":\"\"}", problem: "not UTF-8"},
		{line: `{"KEY":"a","value":"1"}`, problem: "neither key nor key_base64"},
		{line: `{"key":"a","Value":"1"}`, problem: "neither value nor value_base64"},
		{line: `{"key":"a","key":"b","value":"1"}`, problem: `"key" is there twice`},
		{line: `{"key":"a","value":"1","\u0076alue":"2"}`, problem: `"value" is there twice`},
		{line: `{"key":"a","value":"1","value_base64":""}`, problem: "both value and value_base64"},
		{line: `{"key_base64":"/x==","value":""}`, problem: "key_base64: illegal base64"},
		{line: `{"key":null,"value":""}`, problem: `"key" must be a JSON string`},
		{line: `{"key":"a","value":7}`, problem: `"value" must be a JSON string`},
		{line: "\ufeff" + `{"key":"a","value":"1"}`, problem: "byte order mark"},
		{line: `{"key":"a","value":"1"} {}`, problem: "something follows"},
		{line: `{"key":"a","value":"1"}}`, problem: "something follows"},
		{line: `{"key":"a","value":"1"`, problem: "unexpected EOF"},
		{line: `{"key":"a" "value":"1"}`, problem: "not a record"},
		{line: `["key","a"]`, problem: "must be a JSON object"},
		{line: `"\ud800"`, problem: "must be a JSON object"},
		{line: `{`, problem: "unexpected EOF"},
	} {
		var it Item
		it.decode([]byte(c.line))
		if c.problem != "" {
			if it.Problem == nil || !strings.Contains(it.Problem.Error(), c.problem) {
				t.Errorf("%s: problem %v, key %q; want %q", c.line, it.Problem, it.Key, c.problem)
			}
			continue
		}
		if it.Problem != nil {
			t.Errorf("%s: %v", c.line, it.Problem)
			continue
		}
		if value, err := it.Load(); err != nil || string(it.Key) != c.key || string(value) != c.value {
			t.Errorf("%s: %q = %q, %v; want %q = %q", c.line, it.Key, value, err, c.key, c.value)
		}
	}
}

// No line makes the decoder panic, and a decoded key has a replacement character
// only where the line has one.
func FuzzRecord(f *testing.F) {
	for _, line := range []string{`{"key":"a\ud83d\ude00","value":"1"}`, `{"key":"\\","value":"\u"}`, `{"key`, `{"key_base64":"\"","value":"\ud8"}`} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var it Item
		it.decode(line)
		if it.Problem == nil && strings.Contains(string(it.Key), "\ufffd") &&
			!strings.Contains(string(line), "\ufffd") && !strings.Contains(strings.ToLower(string(line)), "fffd") &&
			!strings.Contains(string(line), "base64") {
			t.Errorf("%q: the key %q has a replacement character that the line has not", line, it.Key)
		}
	})
}
