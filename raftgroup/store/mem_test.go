package store_test

import (
	"testing"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/raftgroup/store/storetest"
)

// Mem keeps the contract.
func TestMemContract(t *testing.T) {
	storetest.Run(t, func(testing.TB) store.Store { return store.NewMem() })
}
