package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Whatever servers answer, no call panics, outlasts its deadline, or asks without a
// rest.
func TestHostileServers(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			h := &hostile{stubborn: seed%2 == 0, seed: seed, lock: make(chan struct{}, 1),
				random: rand.New(rand.NewPCG(seed, 0)), dice: rand.New(rand.NewPCG(seed, 1))}
			listeners := map[string]*bufconn.Listener{}
			for _, addr := range hostileAddresses[:3] {
				s := grpc.NewServer()
				kvpb.RegisterKVServer(s, h)
				ctrlpb.RegisterControllerServer(s, h)
				l := bufconn.Listen(1 << 20)
				listeners[addr] = l
				go func() { _ = s.Serve(l) }()
				t.Cleanup(s.Stop)
			}
			c, err := clerk.Open(t.Context(), clerk.Config{
				Controllers: hostileAddresses[:1], Seeds: hostileAddresses[1:2],
				Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
					if l := listeners[addr]; l != nil {
						return l.DialContext(ctx)
					}
					return nil, errors.New("connection refused")
				},
			})
			if err != nil {
				if !errors.Is(err, clerk.ErrNotDone) {
					t.Errorf("seed %d: %v", seed, err)
				}
				return // it never told a placement
			}
			t.Cleanup(func() { _ = c.Close() })
			for name, call := range hostileCalls(c) {
				const timeout, asksMax = 3 * time.Second, 3000
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				start, asked := time.Now(), h.asked(0)
				call(ctx)
				cancel()
				if took, asks := time.Since(start), h.asked(0)-asked; took > timeout || asks > asksMax {
					t.Errorf("seed %d: %s took %v, and asked %d times", seed, name, took, asks)
				}
			}
		})
	}
}

// hostileCalls are calls of every kind.
func hostileCalls(c *clerk.Clerk) map[string]func(context.Context) {
	key, a := []byte("key"), c.Admin()
	scan := func(options ...clerk.ScanOption) func(context.Context) {
		return func(ctx context.Context) {
			for range c.Scan(ctx, nil, options...) {
			}
		}
	}
	return map[string]func(context.Context){
		"get":    func(ctx context.Context) { _, _ = c.Get(ctx, key) },
		"put":    func(ctx context.Context) { _, _ = c.Put(ctx, key, key) },
		"append": func(ctx context.Context) { _, _ = c.Append(ctx, key, key) },
		"delete": func(ctx context.Context) { _ = c.Delete(ctx, key) },
		"retry": func(ctx context.Context) {
			_, _ = c.Put(ctx, key, key, clerk.As(clerk.Identity{Session: shardcfg.SessionID{1}, BirthMS: 1, Sequence: 1}))
		},
		"multi":   func(ctx context.Context) { c.GetMulti(ctx, [][]byte{{1}, {2}, {3}, {4}}) },
		"scan":    scan(),
		"ordered": scan(clerk.Ordered()),
		"locate":  func(ctx context.Context) { _, _ = c.Locate(ctx, key) },
		"status": func(ctx context.Context) {
			if s, err := a.Status(ctx); err == nil {
				s.Health()
			}
		},
		"join":    func(ctx context.Context) { _, _ = a.Join(ctx, []clerk.JoinGroup{{GID: 1}}) },
		"settled": func(ctx context.Context) { _ = a.WaitSettled(ctx, 3, nil) },
		"drained": func(ctx context.Context) { _ = a.WaitDrained(ctx, []shardcfg.GroupID{1}, nil) },
		"watch": func(ctx context.Context) {
			for range a.Watch(ctx) {
			}
		},
	}
}

const hostileShards = 16

// hostileAddresses are what servers name: those of three that exist, and others.
var hostileAddresses = []string{"a:1", "b:1", "c:1", "nowhere:1", ""}

// A hostile server answers by chance, with every field filled, some of them so that
// the answer is believed.
type hostile struct {
	kvpb.UnimplementedKVServer
	ctrlpb.UnimplementedControllerServer
	seed     uint64
	stubborn bool          // it answers the same again and again
	lock     chan struct{} // guards what follows; a bubble takes no mutex for idle
	random   *rand.Rand    // of what is filled in
	dice     *rand.Rand
	asks     int
}

// asked counts n questions more, and returns how many there were.
func (h *hostile) asked(n int) int {
	h.lock <- struct{}{}
	defer func() { <-h.lock }()
	h.asks += n
	return h.asks
}

func (h *hostile) chance(oneIn int) bool {
	h.lock <- struct{}{}
	defer func() { <-h.lock }()
	return h.dice.IntN(oneIn) == 0
}

func (h *hostile) fill(m proto.Message) {
	h.lock <- struct{}{}
	defer func() { <-h.lock }()
	if h.asks++; h.stubborn {
		h.random = rand.New(rand.NewPCG(h.seed, 0))
	}
	h.fillMessage(m.ProtoReflect(), 4)
}

func (h *hostile) fillMessage(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		nested := f.Kind() == protoreflect.MessageKind
		switch {
		case f.IsMap(), nested && depth == 0, h.random.IntN(5) == 0:
		case f.IsList():
			list := m.Mutable(f).List()
			for range h.random.IntN(4) {
				if nested {
					h.fillMessage(list.AppendMutable().Message(), depth-1)
				} else {
					list.Append(h.scalar(f))
				}
			}
		case nested:
			h.fillMessage(m.Mutable(f).Message(), depth-1)
		default:
			m.Set(f, h.scalar(f))
		}
	}
}

// scalar is a value of a field: mostly small, now and then out of all bounds.
func (h *hostile) scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	number := [...]uint64{0, ^uint64(0), h.random.Uint64(), h.random.Uint64N(4), h.random.Uint64N(hostileShards), h.random.Uint64N(hostileShards)}[h.random.IntN(6)]
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(number%2 == 0)
	case protoreflect.EnumKind:
		if values := f.Enum().Values(); h.random.IntN(8) > 0 {
			return protoreflect.ValueOfEnum(values.Get(h.random.IntN(values.Len())).Number())
		}
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(number)))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(number)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(hostileAddresses[h.random.IntN(len(hostileAddresses))])
	case protoreflect.BytesKind:
		id := [16]byte{byte(h.random.IntN(3))}
		return protoreflect.ValueOfBytes([][]byte{id[:], id[:], nil, fmt.Append(nil, number)}[h.random.IntN(4)])
	}
	return f.Default()
}

func (h *hostile) Stream(stream kvpb.KV_StreamServer) error {
	for !h.chance(20) {
		q, err := stream.Recv()
		if err != nil {
			return err
		}
		for !h.chance(2) {
			r := &kvpb.StreamResponse{}
			if h.fill(r); h.chance(2) {
				r.Id, r.Indexes = q.GetId(), nil
			}
			for r.Response != nil && len(r.Response.Outcomes) < len(q.GetRequest().GetOperations()) {
				out := &kvpb.Outcome{}
				h.fill(out)
				r.Response.Outcomes = append(r.Response.Outcomes, out)
			}
			if err := stream.Send(r); err != nil {
				return err
			}
		}
	}
	return errBroken
}

func (h *hostile) Scan(_ context.Context, q *kvpb.ScanRequest) (*kvpb.ScanResponse, error) {
	r := &kvpb.ScanResponse{}
	h.fill(r)
	for i, page := range r.Pages {
		if i < len(q.From) && !h.chance(4) {
			page.Shard = q.From[i].Shard
		}
		if h.chance(2) {
			page.Outcome, page.Records = &kvpb.Outcome{}, nil
		}
	}
	return r, nil
}

func (h *hostile) Status(context.Context, *kvpb.StatusRequest) (*kvpb.StatusResponse, error) {
	r := &kvpb.StatusResponse{}
	if h.fill(r); !h.chance(3) {
		r.ShardCount = hostileShards
	}
	r.Cluster = nil
	return r, nil
}

func (h *hostile) Query(context.Context, *ctrlpb.QueryRequest) (*ctrlpb.QueryReply, error) {
	r := &ctrlpb.QueryReply{}
	h.fill(r)
	r.Cluster = nil
	if c := r.GetConfig(); c != nil && !h.chance(4) {
		c.ShardCount, c.Pins, c.Retired = hostileShards, nil, nil
		c.Shards = []*ctrlpb.Run{{Length: hostileShards / 2, Gid: 1}, {Length: hostileShards / 2, Gid: 2}}
		for i, g := range c.Groups {
			g.Gid, g.Incarnation = uint64(i+1), append(make([]byte, 15), byte(i))
		}
	}
	return r, nil
}

func (h *hostile) Watch(_ *ctrlpb.WatchRequest, stream ctrlpb.Controller_WatchServer) error {
	for !h.chance(4) {
		r := &ctrlpb.WatchReply{}
		h.fill(r)
		r.Cluster = nil
		if err := stream.Send(r); err != nil {
			return err
		}
	}
	return errBroken
}

func (h *hostile) Info(context.Context, *ctrlpb.InfoRequest) (*ctrlpb.InfoReply, error) {
	r := &ctrlpb.InfoReply{}
	h.fill(r)
	return r, nil
}

func (h *hostile) Join(context.Context, *ctrlpb.JoinRequest) (*ctrlpb.ChangeReply, error) {
	r := &ctrlpb.ChangeReply{}
	h.fill(r)
	return r, nil
}
