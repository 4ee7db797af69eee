//go:build !failpoints

package failpoint

// Enabled reports whether this build honours failpoints.
const Enabled = false

// Hit does nothing in this build.
func Hit(string) error { return nil }
