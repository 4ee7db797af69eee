package entry

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"testing"
)

// The bytes of an entry are a disk format: they must never change.
func TestGoldenBytes(t *testing.T) {
	e := Entry{Clock: 1_700_000_000_123, Feature: 1, Commands: []Command{
		{Kind: KindNoop},
		{Kind: KindMachineMin, Body: []byte("hello")},
	}}
	const want = "5348" + "01" + "01" + "0000018bcfe5687b" + "00000002" +
		"00000001" + "00" +
		"00000006" + "10" + "68656c6c6f" +
		"fd253023"
	got := hex.EncodeToString(e.Append(nil))
	if got != want {
		t.Fatalf("encoding changed:\n got %s\nwant %s", got, want)
	}
	if len(got)/2 != e.Size() {
		t.Fatalf("Size is %d, the encoding has %d bytes", e.Size(), len(got)/2)
	}
}

// Every single flipped bit and every truncation is noticed.
func TestDamageIsNoticed(t *testing.T) {
	e := Entry{Clock: 7, Feature: 1, Commands: []Command{{Kind: 20, Body: []byte("abc")}, {Kind: 21}}}
	good := e.Append(nil)
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := Decode(bad); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
			}
		}
		if _, err := Decode(good[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
}

// An entry of a later format is refused as such, not as damage.
func TestLaterFormat(t *testing.T) {
	later := Entry{Feature: 1}
	b := later.Append(nil)
	b[2] = format + 1
	b = resum(b)
	if _, err := Decode(b); !errors.Is(err, ErrFormat) {
		t.Fatalf("got %v, want ErrFormat", err)
	}
}

// Decode never panics, and what it accepts encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add((&Entry{}).Append(nil))
	f.Add((&Entry{Clock: 1, Feature: 3, Commands: []Command{{Kind: 0}, {Kind: 255, Body: make([]byte, 300)}}}).Append(nil))
	f.Add([]byte{0x53, 0x48, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, candidate := range [][]byte{b, resum(bytes.Clone(b))} {
			e, err := Decode(candidate)
			if err != nil {
				continue
			}
			if again := e.Append(nil); !bytes.Equal(again, candidate) {
				t.Fatalf("%x decodes, but encodes to %x", candidate, again)
			}
		}
	})
}

// resum gives b a right checksum, so that the fuzzer gets behind it.
func resum(b []byte) []byte {
	if len(b) < crcBytes {
		return b
	}
	body := b[:len(b)-crcBytes]
	return binary.BigEndian.AppendUint32(body, crc32.Checksum(body, castagnoli))
}
