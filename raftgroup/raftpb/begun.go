// Package raftpb is the protocol by which the replicas of one group form it and
// change its members, and the mark by which their errors say that nothing was
// begun.
//
// Row 3 of the layers: it may use gRPC, and imports nothing of this module. It
// starts no goroutine.
package raftpb

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// What the error of a change of membership says that had no effect and never will
// have, whatever its code: nothing of it was begun.
const (
	notBegunDomain = "shoal"
	notBegunReason = "NOT_BEGUN"
)

// NotBegun marks the error of a change of which no step was begun; nil stays nil.
func NotBegun(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	if marked, err := s.WithDetails(&errdetails.ErrorInfo{Reason: notBegunReason, Domain: notBegunDomain}); err == nil {
		s = marked
	}
	return s.Err()
}

// IsNotBegun reports whether an error, as the client gets it, is so marked.
func IsNotBegun(err error) bool {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == notBegunDomain && info.GetReason() == notBegunReason {
			return true
		}
	}
	return false
}
