package store

// cursor walks a tree upwards. The top of its stack is the present item; below
// it are the items that follow once the subtrees above them are used up.
type cursor struct {
	stack []position
	room  [4]position // the stack of trees up to some 100,000 keys, without an allocation
}

type position struct {
	node *node
	i    int
}

// seek moves to the first item at or after key.
func (c *cursor) seek(root *node, key []byte) {
	c.stack = c.room[:0]
	for n := root; n != nil; {
		i, found := n.find(key)
		c.stack = append(c.stack, position{n, i})
		if found || n.children == nil {
			break
		}
		n = n.children[i]
	}
	c.climb()
}

// next moves to the following item. The cursor must be valid.
func (c *cursor) next() {
	top := &c.stack[len(c.stack)-1]
	top.i++
	if n := top.node; n.children != nil {
		for n = n.children[top.i]; ; n = n.children[0] {
			c.stack = append(c.stack, position{n, 0})
			if n.children == nil {
				break
			}
		}
	}
	c.climb()
}

// climb leaves the nodes that are used up.
func (c *cursor) climb() {
	for n := len(c.stack); n > 0; n-- {
		if top := c.stack[n-1]; top.i < len(top.node.items) {
			break
		}
		c.stack = c.stack[:n-1]
	}
}

func (c *cursor) valid() bool { return len(c.stack) > 0 }

func (c *cursor) item() item {
	top := c.stack[len(c.stack)-1]
	return top.node.items[top.i]
}
