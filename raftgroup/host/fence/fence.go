// Package fence is the metadata that keeps gRPC calls from reaching the wrong
// cluster or the wrong group, when an address was reused or a configuration is
// mistaken.
//
// A caller attaches the cluster that it belongs to and, where it means one
// certain group, that group's incarnation. A server refuses a call that carries
// another name than its own, before any handler sees it; a call that carries
// none is let through.
//
// Row 3 of the layers: it may use gRPC. It starts no goroutine. Clients import
// it too, so it must not import Raft or Pebble.
package fence

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Names of the metadata; the values are the 16 bytes of the name.
const (
	KeyCluster = "shoal-cluster-bin"
	KeyTarget  = "shoal-target-bin"
)

// errorDomain is the domain of the ErrorInfo that a refusal carries.
const errorDomain = "shoal"

// A Reason says why a call was refused.
type Reason string

// Reasons of a refusal. All of them mean: not done.
const (
	// WrongCluster: the server belongs to another cluster.
	WrongCluster Reason = "WRONG_CLUSTER"
	// WrongGroup: the server belongs to another incarnation, or to none yet.
	WrongGroup Reason = "WRONG_GROUP"
	// Malformed: the metadata is no 128-bit name.
	Malformed Reason = "MALFORMED_FENCE"
)

// WithCluster makes the calls under ctx say which cluster they mean, unless
// they already do.
func WithCluster(ctx context.Context, id shardcfg.ClusterID) context.Context {
	return with(ctx, KeyCluster, [16]byte(id))
}

// WithTarget makes the calls under ctx say which group they mean, unless they
// already do.
func WithTarget(ctx context.Context, id shardcfg.Incarnation) context.Context {
	return with(ctx, KeyTarget, [16]byte(id))
}

func with(ctx context.Context, key string, id [16]byte) context.Context {
	if id == [16]byte{} {
		return ctx
	}
	if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md.Get(key)) > 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, key, string(id[:]))
}

// Refused returns the reason if err is a server's refusal by the fence.
func Refused(err error) (Reason, bool) {
	var grpcErr interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &grpcErr) {
		return "", false
	}
	for _, detail := range grpcErr.GRPCStatus().Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			switch r := Reason(info.GetReason()); r {
			case WrongCluster, WrongGroup, Malformed:
				return r, true
			}
		}
	}
	return "", false
}

// Self is what a server knows of itself: the zero names as long as it is not
// formed. It is called for each call and must be cheap.
type Self func() (shardcfg.ClusterID, shardcfg.Incarnation)

// exempt are the services that must answer whoever asks: who a replica is, and
// whether it is well.
var exempt = []string{"/shoal.raft.v1.Formation/", "/grpc.health.v1.Health/", "/grpc.reflection."}

// Check returns a FailedPrecondition error if the incoming call of ctx carries
// another cluster or group than self.
func Check(ctx context.Context, method string, self Self) error {
	for _, prefix := range exempt {
		if strings.HasPrefix(method, prefix) {
			return nil
		}
	}
	cluster, err := incoming[shardcfg.ClusterID](ctx, KeyCluster)
	if err != nil {
		return err
	}
	target, err := incoming[shardcfg.Incarnation](ctx, KeyTarget)
	if err != nil {
		return err
	}
	if cluster.IsZero() && target.IsZero() {
		return nil
	}
	ownCluster, ownGroup := self()
	if !cluster.IsZero() && !ownCluster.IsZero() && cluster != ownCluster {
		return refuse(WrongCluster, fmt.Sprintf("this replica belongs to cluster %s, the call means cluster %s", ownCluster, cluster))
	}
	if !target.IsZero() && target != ownGroup {
		what := "is not formed yet"
		if !ownGroup.IsZero() {
			what = "belongs to incarnation " + ownGroup.String()
		}
		return refuse(WrongGroup, fmt.Sprintf("this replica %s, the call means incarnation %s", what, target))
	}
	return nil
}

func incoming[T ~[16]byte](ctx context.Context, key string) (T, error) {
	values := metadata.ValueFromIncomingContext(ctx, key)
	if len(values) == 0 {
		return T{}, nil
	}
	id, ok := shardcfg.To128[T]([]byte(values[0]))
	if !ok || len(values) > 1 {
		return T{}, refuse(Malformed, fmt.Sprintf("metadata %s is no 128-bit name", key))
	}
	return id, nil
}

func refuse(reason Reason, message string) error {
	st := status.New(codes.FailedPrecondition, message)
	if detailed, err := st.WithDetails(&errdetails.ErrorInfo{Reason: string(reason), Domain: errorDomain}); err == nil {
		st = detailed
	}
	return st.Err()
}

// UnaryServer is the interceptor that checks unary calls.
func UnaryServer(self Self) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if err := Check(ctx, info.FullMethod, self); err != nil {
			return nil, err
		}
		return handle(ctx, req)
	}
}

// StreamServer is the interceptor that checks streams, when they open.
func StreamServer(self Self) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if err := Check(stream.Context(), info.FullMethod, self); err != nil {
			return err
		}
		return handle(srv, stream)
	}
}

// UnaryClient is the interceptor that attaches the caller's own cluster to
// unary calls, once it is known.
func UnaryClient(self Self) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		cluster, _ := self()
		return invoke(WithCluster(ctx, cluster), method, req, reply, conn, opts...)
	}
}

// StreamClient is the interceptor that attaches the caller's own cluster to
// streams, once it is known.
func StreamClient(self Self) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		cluster, _ := self()
		return stream(WithCluster(ctx, cluster), desc, conn, method, opts...)
	}
}
