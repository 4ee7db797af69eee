package cli

import "sync"

// shared is a value that one goroutine sets and another reads.
type shared[T any] struct {
	mu struct {
		sync.Mutex
		value T
	}
}

func (s *shared[T]) set(v T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.value = v
}

func (s *shared[T]) get() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.value
}
