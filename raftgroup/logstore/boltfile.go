package logstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"syscall"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"
)

// boltLockPause is how often a lock is tried.
const boltLockPause = 50 * time.Millisecond

// The parts of bbolt's file format, in the byte order of the machine. A page is
//
//	id u64 | flags u16 | count u16 | overflow u32 | elements
//
// An element of a branch is {pos u32, ksize u32, page u64}, one of a leaf {flags
// u32, pos u32, ksize u32, vsize u32}, where pos counts from the element. A bucket
// is a leaf's value {root u64, sequence u64}; with root 0 its only page follows.
const (
	boltMagic        = 0xED0CDAED
	boltVersion      = 2
	boltPageHeader   = 16
	boltElement      = 16
	boltBucketHeader = 16
	boltMetaBytes    = 64
	boltMetaChecked  = 56
	boltPageSizeMin  = 1 << 10
	boltPageSizeMax  = 64 << 10

	boltBranch = 0x01
	boltLeaf   = 0x02
	boltMeta   = 0x04

	boltNoFreelist = ^uint64(0)
)

// The buckets of raft-boltdb.
const (
	boltLogs = "logs"
	boltConf = "conf"
)

// A boltFile reads a file of bbolt as bbolt would, and believes nothing. It finds
// every change of one byte in a page that is in use, except in keys and values;
// keys are compared with their order and with the hard state, and values have
// checksums of their own.
type boltFile struct {
	file     io.ReaderAt
	size     int64
	pageSize int64
	pages    uint64 // all page ids are below it
	seen     map[uint64]bool
}

// readBoltFile checks the whole file and returns the indexes of its log. It waits
// for a process that has the file open, up to a limit.
func readBoltFile(path string, wait time.Duration) (indexes []uint64, err error) {
	_, indexes, err = walkBoltFile(path, wait)
	return indexes, err
}

func walkBoltFile(path string, wait time.Duration) (b *boltFile, indexes []uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // gives the lock back
	for began := time.Now(); syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil; {
		if time.Since(began) > wait {
			return nil, nil, fmt.Errorf("%s: %w", path, bolterrors.ErrTimeout)
		}
		time.Sleep(boltLockPause)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	b = &boltFile{file: f, size: info.Size(), seen: map[uint64]bool{}}
	root, err := b.metas()
	if err == nil {
		indexes, err = b.log(root)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, indexes, nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// metas reads both meta pages, and returns the newer one's root. Both must be
// whole: each transaction writes one of them, within one sector, which no loss of
// power tears apart.
func (b *boltFile) metas() (root uint64, err error) {
	var metas [2][]byte
	b.pageSize = boltPageSizeMin // until it is known
	for i := range metas {
		page := make([]byte, boltPageHeader+boltMetaBytes)
		if _, err := b.file.ReadAt(page, int64(i)*b.pageSize); err != nil {
			return 0, damaged("meta page %d: %v", i, err)
		}
		if id, flags := binary.NativeEndian.Uint64(page), binary.NativeEndian.Uint16(page[8:]); id != uint64(i) || flags != boltMeta {
			return 0, damaged("meta page %d says that it is page %d of kind %#x", i, id, flags)
		}
		meta := page[boltPageHeader:]
		hash := fnv.New64a()
		hash.Write(meta[:boltMetaChecked])
		if sum := binary.NativeEndian.Uint64(meta[boltMetaChecked:]); hash.Sum64() != sum {
			return 0, damaged("meta page %d has checksum %x, want %x", i, hash.Sum64(), sum)
		}
		if magic, version := binary.NativeEndian.Uint32(meta), binary.NativeEndian.Uint32(meta[4:]); magic != boltMagic || version != boltVersion {
			return 0, damaged("meta page %d is of format %#x, %d", i, magic, version)
		}
		size := int64(binary.NativeEndian.Uint32(meta[8:]))
		if size < boltPageSizeMin || size > boltPageSizeMax || i == 1 && size != b.pageSize {
			return 0, damaged("meta page %d says that pages have %d bytes", i, size)
		}
		b.pageSize, metas[i] = size, meta
	}
	older, newer := metas[0], metas[1]
	if boltTransaction(older) > boltTransaction(newer) {
		older, newer = newer, older
	}
	if boltTransaction(older)+1 != boltTransaction(newer) {
		return 0, damaged("the meta pages are of transactions %d and %d: a write was lost", boltTransaction(older), boltTransaction(newer))
	}
	if binary.NativeEndian.Uint64(newer[32:]) != boltNoFreelist {
		return 0, damaged("the file has a list of free pages")
	}
	b.pages = binary.NativeEndian.Uint64(newer[40:])
	if b.pages > uint64(b.size/b.pageSize) {
		return 0, damaged("the file ends at page %d of %d", b.size/b.pageSize, b.pages)
	}
	return binary.NativeEndian.Uint64(newer[16:]), nil
}

func boltTransaction(meta []byte) uint64 { return binary.NativeEndian.Uint64(meta[48:]) }

// log walks through the tree of buckets, and returns the indexes in the bucket of
// the log.
func (b *boltFile) log(root uint64) (indexes []uint64, err error) {
	found := map[string]bool{}
	err = b.tree(root, span{}, func(flags uint32, name, value []byte) error {
		if flags != 1 || string(name) != boltLogs && string(name) != boltConf || len(value) < boltBucketHeader {
			return damaged("%q is no bucket of a log store", name)
		}
		found[string(name)] = true
		return b.bucket(value, func(flags uint32, key, _ []byte) error {
			if string(name) != boltLogs || flags != 0 || len(key) != 8 {
				return damaged("bucket %q has the key %x", name, key)
			}
			indexes = append(indexes, binary.BigEndian.Uint64(key))
			return nil
		})
	})
	if err == nil && (!found[boltLogs] || !found[boltConf]) {
		err = damaged("a bucket is missing")
	}
	return indexes, err
}

// visit is called with each element of the leaves of a tree, in their order.
type visit func(flags uint32, key, value []byte) error

// A span bounds the keys of a page.
type span struct{ from, to []byte } // to nil: no bound

func (b *boltFile) bucket(value []byte, each visit) error {
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return b.tree(root, span{}, each)
	}
	page := value[boltBucketHeader:]
	if len(page) < boltPageHeader || binary.NativeEndian.Uint16(page[8:]) != boltLeaf {
		return damaged("a bucket has neither a page nor content")
	}
	return b.leaf(page, span{}, each)
}

// tree visits a page and those below it.
func (b *boltFile) tree(id uint64, keys span, each visit) error {
	page, err := b.page(id)
	if err != nil {
		return err
	}
	switch flags := binary.NativeEndian.Uint16(page[8:]); flags {
	case boltLeaf:
		return b.leaf(page, keys, each)
	case boltBranch:
		return b.branch(page, keys, each)
	default:
		return damaged("page %d is of kind %#x", id, flags)
	}
}

// page reads a page with its overflow.
func (b *boltFile) page(id uint64) ([]byte, error) {
	if id < 2 || id >= b.pages {
		return nil, damaged("page %d of %d", id, b.pages)
	}
	header := make([]byte, boltPageHeader)
	if _, err := b.file.ReadAt(header, int64(id)*b.pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	if says := binary.NativeEndian.Uint64(header); says != id {
		return nil, damaged("page %d says that it is page %d", id, says)
	}
	more := uint64(binary.NativeEndian.Uint32(header[12:]))
	if id+more >= b.pages {
		return nil, damaged("page %d has %d more, of %d", id, more, b.pages)
	}
	for i := id; i <= id+more; i++ {
		if b.seen[i] {
			return nil, damaged("page %d is used twice", i)
		}
		b.seen[i] = true
	}
	page := make([]byte, int64(more+1)*b.pageSize)
	if _, err := b.file.ReadAt(page, int64(id)*b.pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return page, nil
}

func (b *boltFile) branch(page []byte, keys span, each visit) error {
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if count == 0 {
		return damaged("a branch without a page")
	}
	from, err := key(page, 0, 4)
	for i := 0; i < count && err == nil; i++ {
		below := span{from: from, to: keys.to}
		if i+1 < count {
			if below.to, err = key(page, i+1, 4); err != nil {
				return err
			}
		}
		if !keys.hold(from) || below.to != nil && bytes.Compare(from, below.to) >= 0 {
			return damaged("the keys of a branch are not in order")
		}
		at := boltPageHeader + i*boltElement
		err = b.tree(binary.NativeEndian.Uint64(page[at+8:]), below, each)
		from = below.to
	}
	return err
}

func (b *boltFile) leaf(page []byte, keys span, each visit) error {
	var last []byte
	for i := range int(binary.NativeEndian.Uint16(page[10:])) {
		k, err := key(page, i, 8)
		if err != nil {
			return err
		}
		if !keys.hold(k) || i > 0 && bytes.Compare(last, k) >= 0 {
			return damaged("the keys of a leaf are not in order")
		}
		last = k
		at := boltPageHeader + i*boltElement
		start := at + int(binary.NativeEndian.Uint32(page[at+4:])) + len(k)
		n := int(binary.NativeEndian.Uint32(page[at+12:]))
		if start+n > len(page) {
			return damaged("a value reaches beyond its page")
		}
		if err := each(binary.NativeEndian.Uint32(page[at:]), k, page[start:start+n]); err != nil {
			return err
		}
	}
	return nil
}

// key returns the key of element i of a page; its size stands at the given place
// within the element, behind its position.
func key(page []byte, i, size int) ([]byte, error) {
	at := boltPageHeader + i*boltElement
	if at+boltElement > len(page) {
		return nil, damaged("an element reaches beyond its page")
	}
	start := at + int(binary.NativeEndian.Uint32(page[at+size-4:]))
	n := int(binary.NativeEndian.Uint32(page[at+size:]))
	if start < boltPageHeader || start+n > len(page) {
		return nil, damaged("a key reaches beyond its page")
	}
	return page[start : start+n], nil
}

func (s span) hold(key []byte) bool {
	return bytes.Compare(key, s.from) >= 0 && (s.to == nil || bytes.Compare(key, s.to) < 0)
}
