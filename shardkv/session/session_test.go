package session_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

// A window answers exactly as a table that never forgets would, except that it
// calls stale what was acknowledged; and it stays within its bound.
func TestRecordAgainstTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const resultsMax = 4
		var (
			rec   session.Record
			table = map[uint64]session.Result{}
			acked uint64
		)
		for range rapid.IntRange(1, 60).Draw(t, "ops") {
			s := session.Stamp{
				Sequence:   rapid.Uint64Range(1, 12).Draw(t, "sequence"),
				AckedBelow: rapid.Uint64Range(0, 12).Draw(t, "acked"),
			}
			before := append([]session.Result(nil), rec.Results...)
			res, standing := rec.Judge(s, resultsMax)
			old, executed := table[s.Sequence]
			kept := 0
			for seq := range table {
				if seq >= max(acked, s.AckedBelow) {
					kept++
				}
			}
			switch {
			case s.Sequence < acked || s.Sequence < s.AckedBelow:
				want(t, standing, session.Stale)
			case executed:
				want(t, standing, session.Repeat)
				want(t, res, old)
			case kept >= resultsMax:
				want(t, standing, session.Full)
			default:
				want(t, standing, session.Fresh)
				r := session.Result{Sequence: s.Sequence, Code: uint8(len(table) % 3),
					Version: shardcfg.Revision(len(table)), Length: uint64(len(table)) << 20}
				rec.Remember(r, s.AckedBelow)
				table[s.Sequence] = r
				acked = max(acked, s.AckedBelow)
				before = rec.Results
			}
			if len(before) != len(rec.Results) {
				t.Fatalf("%v changed the record", standing)
			}
			if len(rec.Results) > resultsMax {
				t.Fatalf("%d results are kept", len(rec.Results))
			}
			back, err := session.Decode(rec.Append(nil))
			if err != nil || !bytes.Equal(back.Append(nil), rec.Append(nil)) {
				t.Fatalf("%+v came back as %+v: %v", rec, back, err)
			}
		}
	})
}

func want[T comparable](t *rapid.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

// A session older than the floor is expired whatever else holds; one born
// within the tolerance of a clock that lags is not.
func TestAdmit(t *testing.T) {
	for _, c := range []struct {
		birth, floor, clock uint64
		want                session.Standing
	}{
		{birth: 99, floor: 100, clock: 50, want: session.Expired},
		{birth: 100, floor: 100, clock: 1000, want: session.Fresh},
		{birth: 60, floor: 0, clock: 50, want: session.Fresh},
		{birth: 61, floor: 0, clock: 50, want: session.Ahead},
		{birth: 1<<64 - 1, floor: 0, clock: 0, want: session.Ahead},
		{birth: 110, floor: 100, clock: 50, want: session.Fresh}, // the shard came from a clock ahead
		{birth: 111, floor: 100, clock: 50, want: session.Ahead},
		{birth: 0, floor: 0, clock: 0, want: session.Fresh},
	} {
		if got := session.Admit(c.birth, c.floor, c.clock, 10); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

// The encoding never changes, and keys sort by birth.
func TestGolden(t *testing.T) {
	rec := session.Record{AckedBelow: 7, Results: []session.Result{
		{Sequence: 7, Version: 300, Length: 5}, {Sequence: 9, Code: 2, Version: 1},
	}}
	if got, want := hex.EncodeToString(rec.Append(nil)), "0107020000ac020502020100"; got != want {
		t.Errorf("record: got %s, want %s", got, want)
	}
	old := session.Key{Birth: 255, ID: shardcfg.SessionID{0xFF}}.Append(nil)
	young := session.Key{Birth: 256}.Append(nil)
	if bytes.Compare(old, young) >= 0 || len(old) != session.KeyBytes {
		t.Errorf("keys % x and % x", old, young)
	}
}

// The decoder never panics, accepts only what the encoder writes, and says
// which kind of error it is.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x01\x07\x02\x00\x00\xac\x02\x05\x02\x02\x01\x00"))
	f.Add([]byte("\x01\x00\x00"))
	f.Add([]byte("\x01\x80\x00\x00"))
	f.Add([]byte("\x02"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := session.Decode(b)
		if err != nil {
			if !errors.Is(err, session.ErrCorrupt) && !errors.Is(err, session.ErrFormat) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if got := rec.Append(nil); !bytes.Equal(got, b) {
			t.Fatalf("% x came back as % x", b, got)
		}
	})
}
