// Package peers tests Shoal beside programs that are not written in Go, and that
// a clone does not bring with it. It is a module of its own, so that "go test
// ./..." needs nothing but Go; .ci/run installs what it needs and runs it.
package peers
