package transfer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// lineBytesMax is the longest line that is read: a record in which every byte is
// escaped (six characters each), and some room.
const lineBytesMax = 6*(shardcfg.ValueBytesMax+shardcfg.KeyBytesMax) + 4<<10

// JSONLines is a Source of one record per line: {"key","value"}, or key_base64
// and value_base64 where they are not UTF-8. Other fields, and empty lines, are
// ignored, so that the output of a scan can be imported. A line is a record only
// if it means one key and one value: see decode.
type JSONLines struct {
	r    *bufio.Reader
	name string
	size uint64
	read uint64
}

// NewJSONLines reads from r, which is called name in messages and has size
// bytes (0: not known).
func NewJSONLines(r io.Reader, name string, size int64) *JSONLines {
	return &JSONLines{r: bufio.NewReaderSize(r, 256<<10), name: name, size: uint64(max(size, 0))}
}

// Each yields the records. Lines that are no records are yielded with their
// problem.
func (j *JSONLines) Each(ctx context.Context, live *Live, yield func(Item) error) error {
	live.total.Store(j.size)
	for number := 1; ; number++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := j.line()
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errLineTooLong) {
			return fmt.Errorf("read %s: %w", j.name, err)
		}
		it := Item{Name: fmt.Sprintf("%s:%d", j.name, number), progress: j.read}
		switch {
		case errors.Is(err, errLineTooLong):
			it.Problem = err
		case len(bytes.TrimSpace(line)) == 0:
			if err != nil {
				return nil
			}
			continue
		default:
			it.decode(line)
		}
		if yieldErr := yield(it); yieldErr != nil {
			return yieldErr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

var errLineTooLong = fmt.Errorf("line is longer than %d bytes: %w", lineBytesMax, shardcfg.ErrValueTooLarge)

// line returns the next line; the memory is the caller's. With the last one, or
// after it, comes io.EOF. Of a line that is too long only errLineTooLong remains.
func (j *JSONLines) line() ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := j.r.ReadSlice('\n')
		j.read += uint64(len(part))
		long = long || len(line)+len(part) > lineBytesMax
		if long {
			line = nil
		} else {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case long && (err == nil || errors.Is(err, io.EOF)):
			return nil, errLineTooLong
		default:
			return line, err
		}
	}
}
