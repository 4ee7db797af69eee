package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// exampleCluster stands in for a running cluster; an application has addresses
// instead: clerk.Config{Controllers: []string{"127.0.0.1:7400"}}.
func exampleCluster() (cluster *fakeCluster, c *clerk.Clerk, end func()) {
	cluster = newFakeCluster(2, 3, 16)
	c, err := clerk.Open(context.Background(), clerk.Config{Controllers: cluster.controllerAddresses(), Dialer: cluster.dial})
	if err != nil {
		panic(err)
	}
	return cluster, c, func() {
		_ = c.Close()
		cluster.close()
	}
}

func Example() {
	_, c, end := exampleCluster()
	defer end()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	if _, err := c.Put(ctx, []byte("greeting"), []byte("hello")); err != nil {
		fmt.Println(err)
	}
	if _, err := c.Append(ctx, []byte("greeting"), []byte(", world")); err != nil {
		fmt.Println(err)
	}
	value, err := c.Get(ctx, []byte("greeting"))
	fmt.Printf("%s %v\n", value.Bytes, err)

	_, err = c.Get(ctx, []byte("nothing"))
	fmt.Println(err)
	// Output:
	// hello, world <nil>
	// get "nothing": not found
}

// A read-modify-write that loses no update: the version says whether anyone was
// faster.
func ExampleIfVersion() {
	_, c, end := exampleCluster()
	defer end()
	ctx := context.Background()

	add := func(n int) error {
		for {
			old, err := c.Get(ctx, []byte("counter"))
			if err != nil && !errors.Is(err, clerk.ErrNotFound) {
				return err
			}
			count := 0
			_, _ = fmt.Sscan(string(old.Bytes), &count)
			// A missing key has version 0, which IfVersion takes for "absent".
			_, err = c.Put(ctx, []byte("counter"), fmt.Append(nil, count+n), clerk.IfVersion(old.Version))
			if !errors.Is(err, clerk.ErrVersionMismatch) {
				return err
			}
		}
	}
	for range 3 {
		if err := add(7); err != nil {
			fmt.Println(err)
		}
	}
	value, err := c.Get(ctx, []byte("counter"))
	fmt.Printf("%s %v\n", value.Bytes, err)
	// Output: 21 <nil>
}

// A write whose outcome is unknown is settled by its identity: executed now, or
// answered from the first time; never twice.
func ExampleAs() {
	cluster, c, end := exampleCluster()
	defer end()
	cluster.setFault(func(string, *kvpb.Operation) fault { return faultLoseReply }) // every reply is lost

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Append(ctx, []byte("log"), []byte("entry;"))
	fmt.Println(clerk.FamilyOf(err))

	cluster.setFault(nil)
	var unknown *clerk.Error
	if errors.As(err, &unknown) {
		_, err = c.Append(context.Background(), []byte("log"), []byte("entry;"), clerk.As(unknown.Identity))
	}
	value, _ := c.Get(context.Background(), []byte("log"))
	fmt.Printf("%s %v\n", value.Bytes, err)
	// Output:
	// outcome unknown
	// entry; <nil>
}

// Keys with a common {hash tag} share a shard, so that a scan of the tag is in
// order, and one request a page.
func ExampleClerk_Scan() {
	_, c, end := exampleCluster()
	defer end()
	ctx := context.Background()

	var pairs []clerk.Pair
	for _, item := range []string{"pear", "apple", "plum"} {
		pairs = append(pairs, clerk.Pair{Key: []byte("{cart:7}" + item), Value: []byte("1")})
	}
	for _, result := range c.PutMulti(ctx, pairs) {
		if result.Err != nil {
			fmt.Println(result.Err)
		}
	}
	for entry, err := range c.Scan(ctx, []byte("{cart:7}")) {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Printf("%s = %s\n", entry.Key, entry.Value)
	}
	// Output:
	// {cart:7}apple = 1
	// {cart:7}pear = 1
	// {cart:7}plum = 1
}

// Waiting for a change of configuration to be carried out, with progress.
func ExampleAdmin_WaitSettled() {
	cluster, c, end := exampleCluster()
	defer end()
	ctx := context.Background()

	change, err := c.Admin().Move(ctx, 3, cluster.groups[0].gid)
	fmt.Println(change.Num, len(change.Moves), err)
	err = c.Admin().WaitSettled(ctx, change.Num, func(p clerk.Progress) {
		fmt.Printf("%d of %d shards settled\n", p.Settled, p.Total)
	})
	fmt.Println(err)
	// Output:
	// 2 1 <nil>
	// 16 of 16 shards settled
	// <nil>
}
