package clerk

import (
	"context"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Get returns the value of key, or ErrNotFound. It reflects every write that
// was acknowledged, to anyone, before it began. Its errors are never of the
// family "outcome unknown".
func (c *Clerk) Get(ctx context.Context, key []byte) (Value, error) {
	op := &kvpb.Operation{Key: slices.Clone(key), Kind: &kvpb.Operation_Get{Get: &kvpb.Get{}}}
	out, err := c.do(ctx, "get", op, writeOptions{})
	if err != nil {
		return Value{}, err
	}
	return valueOf(out), nil
}

func valueOf(out *kvpb.Outcome) Value {
	v := Value{Bytes: out.GetValue(), Version: Version(out.GetVersion())}
	if v.Bytes == nil {
		v.Bytes = []byte{}
	}
	return v
}

// Put sets the value of key and returns the key's new version. With IfVersion
// or IfAbsent it returns ErrVersionMismatch where the condition does not hold.
func (c *Clerk) Put(ctx context.Context, key, value []byte, options ...WriteOption) (Version, error) {
	o := collect(options)
	op := &kvpb.Operation{
		Key:  slices.Clone(key),
		Kind: &kvpb.Operation_Put{Put: &kvpb.Put{Value: slices.Clone(value), Condition: o.condition()}},
	}
	out, err := c.do(ctx, "put", op, o)
	return Version(out.GetVersion()), err
}

// Append adds value at the end of the key's value, which it creates if there is
// none, and returns the new version and length. Of the options, it takes As
// only.
func (c *Clerk) Append(ctx context.Context, key, value []byte, options ...WriteOption) (Appended, error) {
	o := collect(options)
	o.conflict = o.conflict || o.conditional
	op := &kvpb.Operation{
		Key:  slices.Clone(key),
		Kind: &kvpb.Operation_Append{Append: &kvpb.Append{Value: slices.Clone(value)}},
	}
	out, err := c.do(ctx, "append", op, o)
	return Appended{Version: Version(out.GetVersion()), Length: out.GetLength()}, err
}

// Delete removes key, or returns ErrNotFound if there is none. With IfVersion it
// returns ErrVersionMismatch where the condition does not hold.
func (c *Clerk) Delete(ctx context.Context, key []byte, options ...WriteOption) error {
	o := collect(options)
	op := &kvpb.Operation{
		Key:  slices.Clone(key),
		Kind: &kvpb.Operation_Delete{Delete: &kvpb.Delete{Condition: o.condition()}},
	}
	_, err := c.do(ctx, "delete", op, o)
	return err
}

func collect(options []WriteOption) writeOptions {
	var o writeOptions
	for _, set := range options {
		set(&o)
	}
	return o
}

func (o writeOptions) condition() *kvpb.Condition {
	if !o.conditional {
		return nil
	}
	return &kvpb.Condition{Version: uint64(o.version)}
}

// check returns what is wrong with an operation that no server needs to see.
func check(op *kvpb.Operation, o writeOptions) string {
	if err := shardcfg.CheckKey(op.GetKey()); err != nil {
		return err.Error()
	}
	if err := shardcfg.CheckValue(operand(op)); err != nil {
		return err.Error()
	}
	if o.conflict {
		return "more conditions than this operation can have"
	}
	if !o.identity.IsZero() && (o.identity.Sequence == 0 || o.identity.BirthMS == 0) {
		return "the explicit identity lacks its sequence or birth time"
	}
	return ""
}

// operand is the value of a put or an append, else nil.
func operand(op *kvpb.Operation) []byte {
	switch kind := op.GetKind().(type) {
	case *kvpb.Operation_Put:
		return kind.Put.GetValue()
	case *kvpb.Operation_Append:
		return kind.Append.GetValue()
	}
	return nil
}
