package store

// memIterator walks one tree between bounds.
type memIterator struct {
	m            *Mem
	use          *usage
	root         *node
	lower, upper []byte // copies
	cursor       cursor
	started      bool
	closed       bool
	err          error

	batch       *memBatch // nil unless made from a batch
	batchWrites int       // its writes when the iterator was made

	key, value []byte // what Key and Value return, overwritten by each move
}

func newMemIterator(m *Mem, use *usage, t tree, lower, upper []byte) *memIterator {
	it := &memIterator{m: m, use: use, root: t.root}
	bounds := make([]byte, 0, len(lower)+len(upper))
	bounds = append(append(bounds, lower...), upper...)
	it.lower = bounds[:len(lower):len(lower)]
	if upper != nil {
		it.upper = bounds[len(lower):]
	}
	return it
}

// Next implements Iterator.
func (it *memIterator) Next() bool {
	if !it.usable() {
		return false
	}
	switch {
	case !it.started:
		it.started = true
		it.cursor.seek(it.root, it.lower)
	case it.cursor.valid():
		it.cursor.next()
	}
	return it.settle()
}

// SeekGE implements Iterator.
func (it *memIterator) SeekGE(key []byte) bool {
	if !it.usable() {
		return false
	}
	it.started = true
	if string(key) < string(it.lower) {
		key = it.lower
	}
	it.cursor.seek(it.root, key)
	return it.settle()
}

// settle fills key and value, or ends the walk at the upper bound.
func (it *memIterator) settle() bool {
	if !it.cursor.valid() {
		return false
	}
	at := it.cursor.item()
	if it.upper != nil && at.key >= string(it.upper) {
		it.cursor.stack = nil
		return false
	}
	it.key = append(it.key[:0], at.key...)
	it.value = append(it.value[:0], at.value...)
	return true
}

// usable reports whether the iterator may move, and notes why not.
func (it *memIterator) usable() bool {
	switch {
	case it.err != nil || it.closed:
		return false
	case it.batch != nil && it.batch.writes != it.batchWrites:
		it.err = ErrStaleIterator
	default:
		it.err = it.m.check(OpNext)
	}
	if it.err != nil {
		it.cursor.stack = nil
	}
	return it.err == nil
}

// Key implements Iterator.
func (it *memIterator) Key() []byte {
	if it.closed || !it.cursor.valid() {
		return nil
	}
	return it.key
}

// Value implements Iterator.
func (it *memIterator) Value() []byte {
	if it.closed || !it.cursor.valid() {
		return nil
	}
	return it.value
}

// Close implements Iterator.
func (it *memIterator) Close() error {
	if it.closed {
		return ErrClosed
	}
	it.closed = true
	it.m.leave(it.use)
	return it.err
}
