package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// The stream of a checkpoint, integers big-endian:
//
//	header  magic "SHOALPBL" | version u32 | files u32 | bytes u64 | CRC32C of these u32
//	file    name length u16 | name | size u64 | CRC32C of these u32
//	        | data | CRC32C of the data u32
//
// bytes is the sum of the files' sizes. Names are bare file names; every name
// appears once.
const (
	streamMagic      = "SHOALPBL"
	streamVersion    = 1
	streamHeaderSize = len(streamMagic) + 4 + 4 + 8 + 4
	fileFrameSize    = 2 + 8 + 4 + 4 // without name and data

	// streamFilesMax and fileNameMax bound what a receiver takes on.
	streamFilesMax = 1 << 20
	fileNameMax    = 100
	// streamBytesMax keeps sums of sizes far from overflow.
	streamBytesMax = 1 << 50

	copyBufferSize = 256 << 10
	// receiveBytesPerSync is how much of a file is received before the disk is told
	// to begin to write it.
	receiveBytesPerSync = 1 << 20
)

// streamFile is one file of a checkpoint.
type streamFile struct {
	name string
	size int64
}

// listFiles returns the files of a checkpoint's directory, by name.
func listFiles(fsys vfs.FS, dir string) ([]streamFile, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	files := make([]streamFile, 0, len(names))
	for _, name := range names {
		if name == lockName { // of whoever opens the checkpoint
			continue
		}
		if !validName(name) {
			return nil, fmt.Errorf("unexpected file %q", name)
		}
		info, err := fsys.Stat(fsys.PathJoin(dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, streamFile{name: name, size: info.Size()})
	}
	return files, nil
}

// validName accepts the names that Pebble gives to its files, and nothing that
// could lead out of a directory or be taken for our own.
func validName(name string) bool {
	if name == "" || len(name) > fileNameMax || name[0] == '.' || name == lockName {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

func streamSize(files []streamFile) int64 {
	size := int64(streamHeaderSize)
	for _, f := range files {
		size += int64(fileFrameSize+len(f.name)) + f.size
	}
	return size
}

// A streamWriter writes a stream.
type streamWriter struct {
	w       io.Writer
	n       int64 // bytes that w took
	refused bool  // w did not take all
	fs      vfs.FS
	buf     []byte
	// verify checks a file, if it is a table, before it is sent.
	verify func(name string) error
}

func (out *streamWriter) stream(dir string, files []streamFile) error {
	var total int64
	for _, f := range files {
		total += f.size
	}
	header := append(make([]byte, 0, streamHeaderSize), streamMagic...)
	header = binary.BigEndian.AppendUint32(header, streamVersion)
	header = binary.BigEndian.AppendUint32(header, uint32(len(files)))
	header = binary.BigEndian.AppendUint64(header, uint64(total))
	if err := out.write(appendCRC(header)); err != nil {
		return err
	}
	for _, f := range files {
		err := out.verify(f.name)
		if err == nil {
			err = out.file(dir, f)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func (out *streamWriter) write(p []byte) error {
	n, err := out.w.Write(p)
	out.n += int64(n)
	out.refused = out.refused || err != nil
	return err
}

func (out *streamWriter) file(dir string, f streamFile) error {
	in, err := out.fs.Open(out.fs.PathJoin(dir, f.name), vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	defer in.Close()
	frame := binary.BigEndian.AppendUint16(nil, uint16(len(f.name)))
	frame = append(frame, f.name...)
	frame = binary.BigEndian.AppendUint64(frame, uint64(f.size))
	if err := out.write(appendCRC(frame)); err != nil {
		return err
	}
	var crc uint32
	for left := f.size; left > 0; {
		piece := out.buf[:min(left, int64(len(out.buf)))]
		if _, err := io.ReadFull(in, piece); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		crc = crc32.Update(crc, castagnoli, piece)
		if err := out.write(piece); err != nil {
			return err
		}
		left -= int64(len(piece))
	}
	return out.write(binary.BigEndian.AppendUint32(nil, crc))
}

// errStream is wrapped by what reading the stream itself returned.
var errStream = errors.New("read the stream")

// A streamReader reads a stream.
type streamReader struct {
	r    io.Reader
	fs   vfs.FS
	buf  []byte
	left uint64 // bytes of file data still to come
	// verify checks a file, if it is a table, once it is stored.
	verify func(name string) error
}

// stream stores the files of a stream in dir, each durable but for its name. It
// reads nothing beyond the stream's end. The errors wrap store.ErrBadStream if the
// stream is at fault, errStream if it ended with an error, and are else of the disk.
func (in *streamReader) stream(dir string) error {
	header, err := in.checked(streamHeaderSize)
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	rest := header[len(streamMagic):]
	version, files := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])
	total := binary.BigEndian.Uint64(rest[8:])
	switch {
	case string(header[:len(streamMagic)]) != streamMagic:
		return fmt.Errorf("%w: not a stream of this store", store.ErrBadStream)
	case version != streamVersion:
		return fmt.Errorf("%w: unknown version %d", store.ErrBadStream, version)
	case files > streamFilesMax || total > streamBytesMax:
		return fmt.Errorf("%w: %d files of %d bytes", store.ErrBadStream, files, total)
	}
	in.left = total
	names := make(map[string]bool)
	for range files {
		name, err := in.file(dir, names)
		if err != nil {
			return fmt.Errorf("file %q: %w", name, err)
		}
		names[name] = true
	}
	if in.left != 0 {
		return fmt.Errorf("%w: %d bytes missing", store.ErrBadStream, in.left)
	}
	return nil
}

// fill reads n bytes, at most copyBufferSize. They are valid until the next call.
func (in *streamReader) fill(n int) ([]byte, error) {
	p := in.buf[:n]
	_, err := io.ReadFull(in.r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return p, fmt.Errorf("%w: truncated", store.ErrBadStream)
	}
	if err != nil {
		return p, fmt.Errorf("%w: %w", errStream, err)
	}
	return p, nil
}

// checked reads n bytes of which the last four are the checksum of the others.
func (in *streamReader) checked(n int) ([]byte, error) {
	p, err := in.fill(n)
	if err != nil {
		return nil, err
	}
	return p, checkCRC(p[:n-4], p[n-4:])
}

// file reads one file. The name that it returns with an error is for the
// message only.
func (in *streamReader) file(dir string, seen map[string]bool) (string, error) {
	p, err := in.fill(2)
	if err != nil {
		return "", err
	}
	nameLen := int(binary.BigEndian.Uint16(p))
	if nameLen > fileNameMax {
		return "", fmt.Errorf("%w: name of %d bytes", store.ErrBadStream, nameLen)
	}
	frame := append([]byte(nil), p...)
	if p, err = in.fill(nameLen + 8 + 4); err != nil {
		return "", err
	}
	frame = append(frame, p...)
	if err := checkCRC(frame[:len(frame)-4], frame[len(frame)-4:]); err != nil {
		return "", err
	}
	name := string(frame[2 : 2+nameLen])
	size := binary.BigEndian.Uint64(frame[2+nameLen:])
	switch {
	case !validName(name):
		return name, fmt.Errorf("%w: name not allowed", store.ErrBadStream)
	case seen[name]:
		return name, fmt.Errorf("%w: appears twice", store.ErrBadStream)
	case size > in.left:
		return name, fmt.Errorf("%w: longer than the stream", store.ErrBadStream)
	}
	in.left -= size
	file, err := in.fs.Create(in.fs.PathJoin(dir, name), writeCategory)
	if err != nil {
		return name, err
	}
	// Synced as it grows: the sender waits while the rest is.
	out := vfs.NewSyncingFile(file, vfs.SyncingFileOptions{BytesPerSync: receiveBytesPerSync})
	crc, err := in.data(out, size)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return name, err
	}
	return name, in.verified(dir, name, crc)
}

// verified checks what was stored. Damage in it came with the stream if the file
// still has the checksum that the stream had for it; else it is the disk's.
func (in *streamReader) verified(dir, name string, want uint32) error {
	err := in.verify(name)
	if err == nil {
		return nil
	}
	file, openErr := in.fs.Open(in.fs.PathJoin(dir, name))
	if openErr != nil {
		return openErr
	}
	defer file.Close()
	sum := crc32.New(castagnoli)
	if _, err := io.CopyBuffer(sum, file, in.buf); err != nil {
		return err
	}
	if got := sum.Sum32(); got != want {
		return fmt.Errorf("checksum %08x was written and %08x is read back", want, got)
	}
	return fmt.Errorf("%w: %w", store.ErrBadStream, err)
}

// data copies size bytes to out, checks the checksum behind them, and returns it.
func (in *streamReader) data(out io.Writer, size uint64) (crc uint32, err error) {
	for left := size; left > 0; {
		p, err := in.fill(int(min(left, copyBufferSize)))
		if err != nil {
			return crc, err
		}
		crc = crc32.Update(crc, castagnoli, p)
		if _, err := out.Write(p); err != nil {
			return crc, err
		}
		left -= uint64(len(p))
	}
	p, err := in.fill(4)
	if err != nil {
		return crc, err
	}
	if binary.BigEndian.Uint32(p) != crc {
		return crc, fmt.Errorf("%w: checksum of the data", store.ErrBadStream)
	}
	return crc, nil
}

func appendCRC(p []byte) []byte {
	return binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

func checkCRC(p, crc []byte) error {
	if crc32.Checksum(p, castagnoli) != binary.BigEndian.Uint32(crc) {
		return fmt.Errorf("%w: checksum", store.ErrBadStream)
	}
	return nil
}
