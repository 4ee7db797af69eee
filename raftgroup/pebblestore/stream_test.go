package pebblestore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// unverified checks no table: the files of these tests are none.
func unverified(string) error { return nil }

// writeStream returns how many bytes w took.
func writeStream(w io.Writer, fs vfs.FS, dir string, files []streamFile) (int64, error) {
	out := &streamWriter{w: w, fs: fs, buf: make([]byte, copyBufferSize), verify: unverified}
	err := out.stream(dir, files)
	return out.n, err
}

func readStream(r io.Reader, fs vfs.FS, dir string) error {
	in := &streamReader{r: r, fs: fs, buf: make([]byte, copyBufferSize), verify: unverified}
	return in.stream(dir)
}

// sampleStream is the stream of three small files.
func sampleStream(t *testing.T) []byte {
	t.Helper()
	fs := vfs.NewMem()
	must(t, fs.MkdirAll("from", 0o755))
	for name, data := range map[string]string{"000001.log": "log", "MANIFEST-000002": "", "000003.sst": "table"} {
		must(t, writeFile(fs, "from/"+name, []byte(data)))
	}
	files, err := listFiles(fs, "from")
	must(t, err)
	var stream bytes.Buffer
	n, err := writeStream(&stream, fs, "from", files)
	must(t, err)
	if n != streamSize(files) || n != int64(stream.Len()) {
		t.Fatalf("wrote %d bytes, counted %d, size %d", stream.Len(), n, streamSize(files))
	}
	return stream.Bytes()
}

func readSample(stream []byte) ([]string, error) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("to", 0o755); err != nil {
		return nil, err
	}
	if err := readStream(bytes.NewReader(stream), fs, "to"); err != nil {
		return nil, err
	}
	return fs.List("to")
}

// Any flipped bit and any missing end make a stream bad.
func TestStreamEveryBit(t *testing.T) {
	stream := sampleStream(t)
	if _, err := readSample(stream); err != nil {
		t.Fatal(err)
	}
	for at := range stream {
		for bit := range 8 {
			stream[at] ^= 1 << bit
			if _, err := readSample(stream); !errors.Is(err, store.ErrBadStream) {
				t.Fatalf("byte %d, bit %d: got error %v", at, bit, err)
			}
			stream[at] ^= 1 << bit
		}
		if _, err := readSample(stream[:at]); !errors.Is(err, store.ErrBadStream) {
			t.Fatalf("%d of %d bytes: got error %v", at, len(stream), err)
		}
	}
}

// forged returns a stream that is sound but for what it says: its files, and a
// header that announces size bytes in all.
func forged(size uint64, files ...streamFile) []byte {
	s := binary.BigEndian.AppendUint32([]byte(streamMagic), streamVersion)
	s = binary.BigEndian.AppendUint32(s, uint32(len(files)))
	s = appendCRC(binary.BigEndian.AppendUint64(s, size))
	for _, f := range files {
		frame := binary.BigEndian.AppendUint16(nil, uint16(len(f.name)))
		frame = binary.BigEndian.AppendUint64(append(frame, f.name...), uint64(f.size))
		s = append(s, appendCRC(frame)...)
		s = append(s, appendCRC(make([]byte, f.size))[:f.size]...)
		s = append(s, appendCRC(make([]byte, f.size))[f.size:]...)
	}
	return s
}

// A sender can't write outside the receiving directory, nor over a file twice,
// nor more than it announced.
func TestStreamForged(t *testing.T) {
	if names, err := readSample(forged(3, streamFile{"000001.sst", 1}, streamFile{"b", 2})); err != nil || len(names) != 2 {
		t.Fatalf("a sound stream: got %v, %v", names, err)
	}
	cases := map[string][]byte{
		"no name":       forged(1, streamFile{"", 1}),
		"parent":        forged(1, streamFile{"..", 1}),
		"escape":        forged(1, streamFile{"../CURRENT", 1}),
		"absolute":      forged(1, streamFile{"/etc/passwd", 1}),
		"sub-directory": forged(1, streamFile{"a/b", 1}),
		"backslash":     forged(1, streamFile{`a\b`, 1}),
		"NUL":           forged(1, streamFile{"a\x00b", 1}),
		"hidden":        forged(1, streamFile{".a", 1}),
		"lock":          forged(1, streamFile{lockName, 1}),
		"long name":     forged(1, streamFile{string(bytes.Repeat([]byte("a"), fileNameMax+1)), 1}),
		"twice":         forged(2, streamFile{"a", 1}, streamFile{"a", 1}),
		"too much":      forged(1, streamFile{"a", 1}, streamFile{"b", 1}),
		"too little":    forged(3, streamFile{"a", 1}, streamFile{"b", 1}),
		"huge":          forged(1<<60, streamFile{"a", 1}),
	}
	for name, stream := range cases {
		if _, err := readSample(stream); !errors.Is(err, store.ErrBadStream) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

// Receive finds a table block that was damaged before it was sent, where the
// stream itself is sound; a refused stream leaves nothing behind.
func TestReceiveChecksTables(t *testing.T) {
	stream := streamAt(t, 60)
	fs := vfs.NewMem()
	must(t, fs.MkdirAll("copy", 0o755))
	must(t, readStream(bytes.NewReader(stream), fs, "copy"))
	files, err := listFiles(fs, "copy")
	must(t, err)
	tables := 0
	for _, f := range files {
		if !bytes.HasSuffix([]byte(f.name), []byte(".sst")) {
			continue
		}
		tables++
		for _, at := range []int{3, int(f.size) / 2, int(f.size) - 10} {
			path := fs.PathJoin("copy", f.name)
			damage(t, fs, path, at)
			var bad bytes.Buffer
			_, err := writeStream(&bad, fs, "copy", files)
			must(t, err)
			damage(t, fs, path, at) // back again

			told := newFatals()
			s := openTest(t, Options{OnFatal: told.on})
			if _, err := s.Receive(&bad); !errors.Is(err, store.ErrBadStream) {
				t.Fatalf("%s, byte %d: got error %v", f.name, at, err)
			}
			wantTidy(t, s)
			commit(t, s, func(b store.Batch) error { return b.Set([]byte("still"), []byte("works")) })
			must(t, s.Close())
			if len(told.told) > 0 {
				t.Fatalf("a bad stream counts as a bad disk: %v", told.wait())
			}
		}
	}
	if tables == 0 {
		t.Fatal("no table: the test shows nothing")
	}
}

// A sender does not pass a damaged table on: it stops, as it would if somebody
// read the block. Else it would send the same bytes again for ever, and nobody
// would take them.
func TestSenderOfDamagedTableStops(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, Options{FS: fs})
	commit(t, s, func(b store.Batch) error { return b.Set([]byte("k"), bytes.Repeat([]byte("v"), 100)) })
	must(t, s.Close())
	must(t, openTest(t, Options{FS: fs}).Close()) // flushes what the log held
	dir := "store/" + stateName(1)
	files, err := listFiles(fs, dir)
	must(t, err)
	for _, f := range files {
		if strings.HasSuffix(f.name, ".sst") {
			damage(t, fs, fs.PathJoin(dir, f.name), 10)
		}
	}
	told := newFatals()
	s = openTest(t, Options{FS: fs, OnFatal: told.on})
	cp, err := s.Checkpoint()
	must(t, err)
	_, err = cp.WriteTo(io.Discard)
	wantFatal(t, "WriteTo", err)
	wantFailed(t, s, told)
}

// A disk that fails while a checkpoint is read for sending, or while a state is
// received, stops the store whose disk it is. A connection that ends does not.
func TestDiskFailsDuringTransfer(t *testing.T) {
	stream := streamAt(t, 60)
	for name, match := range map[string]func(op errorfs.Op) bool{
		"send read": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileRead && strings.Contains(op.Path, checkpointPrefix)
		},
		"receive create": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpCreate && strings.Contains(op.Path, stateName(3))
		},
		"receive write": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, stateName(3))
		},
		"receive sync": func(op errorfs.Op) bool {
			syncs := []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}
			return slices.Contains(syncs, op.Kind) && strings.Contains(op.Path, stateName(3)+"/")
		},
		"receive readback": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileReadAt && strings.Contains(op.Path, stateName(3))
		},
		"receive dir": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpMkdirAll && strings.Contains(op.Path, stateName(3))
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs, on := faultyFS(match)
			told := newFatals()
			s := openTest(t, Options{FS: fs, OnFatal: told.on})
			commit(t, s, func(b store.Batch) error { return b.Set([]byte("k"), []byte("v")) })
			cp, err := s.Checkpoint() // number 2
			must(t, err)
			on.Store(true)
			if strings.HasPrefix(name, "send") {
				_, err = cp.WriteTo(io.Discard)
			} else {
				_, err = s.Receive(bytes.NewReader(stream))
			}
			wantFatal(t, name, err)
			if !errors.Is(err, errDisk) {
				t.Errorf("got %v, want the disk's error in it", err)
			}
			wantFailed(t, s, told)
		})
	}

	s := openTest(t, Options{})
	cp, err := s.Checkpoint()
	must(t, err)
	if _, err := cp.WriteTo(brokenPipe{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("sending to a connection that ends: %v", err)
	}
	must(t, cp.Close())
	if _, err := s.Receive(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("receiving from a connection that ends: %v", err)
	}
	must(t, s.Close())
}

// brokenPipe takes nothing.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A table that reads back otherwise than it was received stops the receiver: its
// disk did that, and no sender could help.
func TestReceivedTableChangesOnDisk(t *testing.T) {
	stream := streamAt(t, 60)
	fs := &flipFS{FS: vfs.NewMem()}
	told := newFatals()
	s := openTest(t, Options{FS: fs, OnFatal: told.on})
	fs.on.Store(true)
	_, err := s.Receive(bytes.NewReader(stream))
	wantFatal(t, "Receive", err)
	wantFailed(t, s, told)
}

// flipFS flips a bit of what is written to tables.
type flipFS struct {
	vfs.FS
	on atomic.Bool
}

func (fs *flipFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err == nil && fs.on.Load() && strings.HasSuffix(name, ".sst") {
		f = flipFile{f}
	}
	return f, err
}

type flipFile struct{ vfs.File }

func (f flipFile) Write(p []byte) (int, error) {
	p = bytes.Clone(p)
	p[len(p)/2] ^= 1
	return f.File.Write(p)
}

// A pointer is accepted only as it was written.
func TestPointerGolden(t *testing.T) {
	p := pointer{number: 7, status: statusActive}
	want := "shoal-store 1\nactive state-000007\ncrc32c b09cc026\n"
	if got := p.encode(); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	for at := range want {
		text := []byte(want)
		text[at] ^= 1
		if got, err := decodePointer(string(text)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d changed: got %v, %v", at, got, err)
		}
	}
}

// Open deletes what a crash can leave, keeps what it does not know, and refuses
// what no crash leaves.
func TestOpenDirectory(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, Options{FS: fs})
	commit(t, s, func(b store.Batch) error { return b.Set([]byte("k"), []byte("v")) })
	if _, err := Open(Options{Dir: "store", FS: fs}); err == nil {
		t.Fatal("opened twice")
	}
	must(t, s.Close())
	for _, dir := range []string{"state-000009", "checkpoint-000004", "notes"} {
		must(t, fs.MkdirAll("store/"+dir, 0o755))
		must(t, writeFile(fs, "store/"+dir+"/file", nil))
	}
	s = openTest(t, Options{FS: fs})
	for dir, kept := range map[string]bool{"state-000009": false, "checkpoint-000004": false, "notes": true} {
		if _, err := fs.Stat("store/" + dir); (err == nil) != kept {
			t.Errorf("%s: kept %v, want %v", dir, err == nil, kept)
		}
	}
	if n := s.nextNumber(); n != 10 {
		t.Errorf("next number %d, want 10", n)
	}
	if v, ok, err := s.Get([]byte("k")); string(v) != "v" || !ok || err != nil {
		t.Fatalf("got %q, %v, %v", v, ok, err)
	}
	must(t, s.Close())

	pointer := readFile(t, fs, "store/"+pointerName)
	// A memory file system may scribble over what it was given to write.
	must(t, writeFile(fs, "store/"+pointerName, bytes.Clone(pointer[:len(pointer)-1])))
	_, err := Open(Options{Dir: "store", FS: fs})
	wantDamaged(t, "short pointer", err)
	must(t, fs.Remove("store/"+pointerName))
	_, err = Open(Options{Dir: "store", FS: fs})
	wantDamaged(t, "lost pointer", err)
	must(t, writeFile(fs, "store/"+pointerName, pointer))
	must(t, openTest(t, Options{FS: fs}).Close()) // nothing was deleted on the way

	must(t, fs.RemoveAll("store/"+stateName(1)))
	if _, err := Open(Options{Dir: "store", FS: fs}); err == nil {
		t.Fatal("a lost state was replaced by an empty one")
	}
}

func wantDamaged(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrDamaged) {
		t.Fatalf("%s: got error %v, want ErrDamaged", what, err)
	}
}

// Closing the store ends checkpoints and received states that are still open,
// and the pinned format is the newest one this library knows.
func TestCloseEndsAsides(t *testing.T) {
	if formatVersion.String() != fmt.Sprintf("%03d", 24) {
		t.Fatalf("the on-disk format became %s: raising it needs a decision", formatVersion)
	}
	fs := vfs.NewMem()
	s := openTest(t, Options{FS: fs})
	commit(t, s, func(b store.Batch) error { return b.Set([]byte("k"), []byte("v")) })
	c, err := s.Checkpoint()
	must(t, err)
	var stream bytes.Buffer
	_, err = c.WriteTo(&stream)
	must(t, err)
	in, err := s.Receive(&stream)
	must(t, err)
	must(t, s.Close())
	for _, r := range []store.Reader{c.Reader(), in.Reader()} {
		if _, _, err := r.Get([]byte("k")); !errors.Is(err, store.ErrClosed) {
			t.Fatalf("got error %v, want ErrClosed", err)
		}
	}
	if err := in.Adopt(); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("Adopt: got error %v, want ErrClosed", err)
	}
	must(t, c.Close())
	s = openTest(t, Options{FS: fs})
	wantTidy(t, s)
	must(t, s.Close())
}
