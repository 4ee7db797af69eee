package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// The stream of a Mem, integers big-endian:
//
//	header   magic "SHOALMEM" | version u32 | keys u64 | bytes u64 | CRC32C of these u32
//	record   key length u32 | value length u32 | key | value     (keys ascending)
//	trailer  CRC32C of all records u32
const (
	streamMagic       = "SHOALMEM"
	streamVersion     = 1
	streamHeaderSize  = len(streamMagic) + 4 + 8 + 8 + 4
	recordHeaderSize  = 8
	streamTrailerSize = 4
	// streamBytesMax keeps sums of sizes far from overflow.
	streamBytesMax = 1 << 50
	// pieceMax bounds what one announced length makes the reader allocate
	// before that many bytes arrived.
	pieceMax = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (t tree) streamSize() int64 {
	return int64(streamHeaderSize+streamTrailerSize) + t.count*recordHeaderSize + t.bytes
}

// WriteTo implements Checkpoint.
func (c *memCheckpoint) WriteTo(w io.Writer) (int64, error) {
	if err := c.view.check(OpGet); err != nil {
		return 0, err
	}
	t := c.view.tree
	count := &countingWriter{w: w}
	out := bufio.NewWriterSize(count, 64<<10)
	header := append(make([]byte, 0, streamHeaderSize), streamMagic...)
	header = binary.BigEndian.AppendUint32(header, streamVersion)
	header = binary.BigEndian.AppendUint64(header, uint64(t.count))
	header = binary.BigEndian.AppendUint64(header, uint64(t.bytes))
	header = binary.BigEndian.AppendUint32(header, crc32.Checksum(header, castagnoli))
	out.Write(header) // a bufio.Writer keeps its first error until Flush

	sum := crc32.New(castagnoli)
	var record []byte
	var at cursor
	for at.seek(t.root, nil); at.valid(); at.next() {
		it := at.item()
		record = binary.BigEndian.AppendUint32(record[:0], uint32(len(it.key)))
		record = binary.BigEndian.AppendUint32(record, uint32(len(it.value)))
		record = append(append(record, it.key...), it.value...)
		sum.Write(record)
		if _, err := out.Write(record); err != nil {
			break
		}
	}
	out.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	if err := out.Flush(); err != nil {
		return count.n, fmt.Errorf("store: write checkpoint: %w", err)
	}
	return count.n, nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// readStream reads one stream, and nothing beyond its end.
func readStream(r io.Reader) (tree, error) {
	header := make([]byte, streamHeaderSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return tree{}, streamError("header", err)
	}
	rest := header[len(streamMagic):]
	keys := binary.BigEndian.Uint64(rest[4:])
	size := binary.BigEndian.Uint64(rest[12:])
	crc := crc32.Checksum(header[:streamHeaderSize-4], castagnoli)
	switch {
	case string(header[:len(streamMagic)]) != streamMagic:
		return tree{}, fmt.Errorf("%w: not a stream of this store", ErrBadStream)
	case crc != binary.BigEndian.Uint32(rest[20:]):
		return tree{}, fmt.Errorf("%w: header checksum", ErrBadStream)
	case binary.BigEndian.Uint32(rest) != streamVersion:
		return tree{}, fmt.Errorf("%w: unknown version %d", ErrBadStream, binary.BigEndian.Uint32(rest))
	case keys > streamBytesMax || size > streamBytesMax:
		return tree{}, fmt.Errorf("%w: %d keys of %d bytes", ErrBadStream, keys, size)
	}
	t := tree{count: int64(keys), bytes: int64(size)}
	body := io.LimitReader(r, t.streamSize()-int64(streamHeaderSize))
	in := recordReader{r: bufio.NewReaderSize(body, 64<<10), sum: crc32.New(castagnoli), left: size}
	return in.readAll(keys)
}

// recordReader reads the records of a stream.
type recordReader struct {
	r    *bufio.Reader
	sum  hash.Hash32
	left uint64 // bytes of keys and values still to come
	buf  []byte
}

func (in *recordReader) readAll(keys uint64) (tree, error) {
	var t tree
	var last []byte
	o := new(owner)
	for range keys {
		key, value, err := in.read()
		if err != nil {
			return tree{}, err
		}
		if string(key) <= string(last) { // the first one must not be empty
			return tree{}, fmt.Errorf("%w: keys out of order", ErrBadStream)
		}
		t.set(o, key, value)
		last = append(last[:0], key...)
	}
	sum := in.sum.Sum32()
	if err := in.fill(streamTrailerSize); err != nil {
		return tree{}, err
	}
	if in.left != 0 || binary.BigEndian.Uint32(in.buf) != sum {
		return tree{}, fmt.Errorf("%w: checksum", ErrBadStream)
	}
	return t, nil
}

// read returns the next record, valid until the next call.
func (in *recordReader) read() (key, value []byte, err error) {
	if err := in.fill(recordHeaderSize); err != nil {
		return nil, nil, err
	}
	keyLen := uint64(binary.BigEndian.Uint32(in.buf))
	valueLen := uint64(binary.BigEndian.Uint32(in.buf[4:]))
	if keyLen+valueLen > in.left {
		return nil, nil, fmt.Errorf("%w: record longer than the stream", ErrBadStream)
	}
	in.left -= keyLen + valueLen
	if err := in.fill(keyLen + valueLen); err != nil {
		return nil, nil, err
	}
	return in.buf[:keyLen], in.buf[keyLen:], nil
}

// fill reads n bytes to buf.
func (in *recordReader) fill(n uint64) error {
	in.buf = in.buf[:0]
	for n > 0 {
		piece := min(n, pieceMax)
		start := len(in.buf)
		in.buf = append(in.buf, make([]byte, piece)...)
		if _, err := io.ReadFull(in.r, in.buf[start:]); err != nil {
			return streamError("record", err)
		}
		n -= piece
	}
	in.sum.Write(in.buf)
	return nil
}

// streamError tells a stream that ended early from one that could not be read.
func streamError(what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: ends within the %s", ErrBadStream, what)
	}
	return fmt.Errorf("store: read checkpoint: %w", err)
}
