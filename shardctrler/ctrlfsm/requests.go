package ctrlfsm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// once applies an admin command unless it was applied before; then it answers
// as it did then. Refusals are kept as well: a caller that was told "refused"
// must not see a late copy of the request succeed.
func (s *step) once(id RequestID, c Command) (Result, error) {
	switch {
	case id.ID == shardcfg.ID128{}:
		return Result{Num: s.latest.Num, Refusal: refuse(BadRequest, "the request has no id")}, nil
	case id.BirthMS < s.meta.floorMS:
		return Result{Num: s.latest.Num, Refusal: refuse(RequestExpired,
			"the request was made %d ms before the oldest that is remembered", s.meta.floorMS-id.BirthMS)}, nil
	case id.BirthMS > s.meta.clockMS && id.BirthMS-s.meta.clockMS > RequestAheadMS:
		return Result{Num: s.latest.Num, Refusal: refuse(BadRequest,
			"the request's clock is %d ms ahead of the cluster's", id.BirthMS-s.meta.clockMS)}, nil
	}
	key := requestKey(id)
	b, repeated, err := s.b.Get(key)
	if err != nil {
		return Result{}, err
	}
	if repeated {
		return decodeResult(b)
	}
	res, err := s.change(c)
	if err != nil {
		return Result{}, err
	}
	s.meta.requests++
	if err := s.b.Set(key, encodeResult(res)); err != nil {
		return Result{}, err
	}
	return res, s.boundRequests()
}

// raiseFloor forgets the requests that are older than RequestLifeMS by the
// log's clock.
func (s *step) raiseFloor() error {
	if s.meta.clockMS < RequestLifeMS {
		return nil
	}
	return s.floorAt(s.meta.clockMS - RequestLifeMS)
}

// boundRequests forgets the oldest requests while there are too many.
func (s *step) boundRequests() error {
	for s.meta.requests > s.bounds.Requests {
		birth, err := s.oldestRequest()
		if err != nil {
			return err
		}
		if err := s.floorAt(birth + 1); err != nil {
			return err
		}
	}
	return nil
}

// floorAt raises the floor, if it is lower, and drops the results below: those
// requests are refused from now on.
func (s *step) floorAt(floor uint64) error {
	if floor <= s.meta.floorMS {
		return nil
	}
	s.meta.floorMS = floor
	if s.meta.requests == 0 {
		return nil
	}
	lower, upper := []byte{prefixRequest}, numberKey(prefixRequest, floor)
	n, err := s.count(lower, upper)
	if err != nil || n == 0 {
		return err
	}
	if n > s.meta.requests {
		return fmt.Errorf("%w: %d requests expire of %d", ErrState, n, s.meta.requests)
	}
	s.meta.requests -= n
	return s.b.DeleteRange(lower, upper)
}

func (s *step) count(lower, upper []byte) (n uint64, err error) {
	it, err := s.b.Iterate(lower, upper)
	if err != nil {
		return 0, err
	}
	for it.Next() {
		n++
	}
	return n, it.Close()
}

func (s *step) oldestRequest() (birth uint64, err error) {
	it, err := s.b.Iterate([]byte{prefixRequest}, []byte{prefixRequest + 1})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Next() || len(it.Key()) != 1+8+16 {
		return 0, fmt.Errorf("%w: no request among %d", ErrState, s.meta.requests)
	}
	return binary.BigEndian.Uint64(it.Key()[1:]), nil
}

func requestKey(id RequestID) []byte {
	return append(numberKey(prefixRequest, id.BirthMS), id.ID[:]...)
}

// A kept result is: format u8 (1), num u64, changed u8, reason u8 (0: not
// refused). A refusal's message is not kept: replicas of two versions may word
// it differently, and their states must stay equal.
const (
	resultFormat = 1
	resultBytes  = 1 + 8 + 1 + 1
)

func encodeResult(r Result) []byte {
	b := binary.BigEndian.AppendUint64([]byte{resultFormat}, uint64(r.Num))
	if r.Changed {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	if r.Refusal == nil {
		return append(b, 0)
	}
	return append(b, byte(r.Refusal.Reason))
}

func decodeResult(b []byte) (Result, error) {
	if len(b) != resultBytes || b[0] != resultFormat || b[9] > 1 {
		return Result{}, fmt.Errorf("%w: kept result %x", ErrState, b)
	}
	r := Result{Num: shardcfg.ConfigNum(binary.BigEndian.Uint64(b[1:])), Changed: b[9] == 1}
	if b[10] != 0 {
		r.Refusal = refuse(Reason(b[10]), "refused when it was first asked: %v", Reason(b[10]))
	}
	return r, nil
}

func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
