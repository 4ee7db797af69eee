package explore

import (
	"fmt"
	"strings"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// describe says an action in words that tell it from the others of its state.
func (x *explorer) describe(a action, st *state) string {
	inc := st.inc(a.seat)
	switch a.kind {
	case actDestroy, actAnswer, actRepair:
		return x.describeDisaster(a, st)
	case actConfig:
		c := x.configs[a.arg]
		return fmt.Sprintf("controllers: config %d, owners %v", c.config.Num, c.owners[:x.bound.Shards])
	case actClaim:
		return fmt.Sprintf("controllers: %v is granted the claim to shard %d", inc, a.arg)
	case actEmpty:
		return fmt.Sprintf("%v is emptied; the group on its seat joins anew", inc)
	case actFault:
		return fmt.Sprintf("%v: a fault of its staging, as if it applied: %s", inc, describeCommand(x.commands[a.arg].cmd))
	}
	return fmt.Sprintf("%v applies %s", inc, describeCommand(x.commands[a.arg].cmd))
}

// kindsMax bounds the kinds of steps: those of commands, then those of actions.
const kindsMax = 32

// kindOf returns a small number for what an action does; kindNames names it.
func (x *explorer) kindOf(a action) int {
	if a.kind != actApply {
		return 16 + int(a.kind)
	}
	return int(x.commands[a.arg].cmd.Kind() - entry.KindMachineMin)
}

var kindNames = [kindsMax]string{"Write", "RaiseFloor", "Prune", "Adopt", "Create", "Start", "Stage", "Chunk", "Install",
	"Freeze", "Drop", "Discard", "Thaw", 16 + int(actFault): "fault", 16 + int(actConfig): "config", 16 + int(actClaim): "claim",
	16 + int(actEmpty): "emptied", 16 + int(actDestroy): "destroyed", 16 + int(actAnswer): "answer", 16 + int(actRepair): "repair"}

func describeCommand(c kvfsm.Command) string {
	switch c := c.(type) {
	case *kvfsm.Adopt:
		return fmt.Sprintf("Adopt config %d, owners %v", c.Config.Num, c.Config.Shards)
	case *kvfsm.Write:
		verb := map[kvfsm.Op]string{kvfsm.OpAppend: "append to", kvfsm.OpPut: "put", kvfsm.OpDelete: "delete"}[c.Op]
		return fmt.Sprintf("operation %d: %s %q, session %d, acknowledged below %d",
			c.Stamp.Sequence, verb, c.Key, c.Stamp.Key.ID[0], c.Stamp.AckedBelow)
	case *kvfsm.RaiseFloor:
		return fmt.Sprintf("RaiseFloor of shard %d to %d", c.Shard, c.Floor)
	case *kvfsm.Prune:
		return fmt.Sprintf("Prune of shard %d", c.Shard)
	case *kvfsm.Create:
		return fmt.Sprintf("Create of shard %d, generation %d", c.Shard, c.Gen)
	case *kvfsm.Thaw:
		return fmt.Sprintf("Thaw of shard %d, epoch %v, generation %d", c.Shard, c.Epoch, c.Gen)
	case *kvfsm.Start:
		return fmt.Sprintf("Start of shard %d, h %d", c.Shard, c.Handoff)
	case *kvfsm.Stage:
		frozen := ""
		if c.Frozen {
			frozen = ", which is frozen"
		}
		return fmt.Sprintf("Stage of shard %d, epoch %v, h %d, from %v%s", c.Shard, c.Epoch, c.Handoff, incOf(c.From.Incarnation), frozen)
	case *kvfsm.Chunk:
		return fmt.Sprintf("Chunk of shard %d, epoch %v, h %d, %s to %s: %s", c.Shard, c.Epoch, c.Handoff,
			describeCursor(c.From), describeCursor(c.Next), describeItems(c.Items))
	case *kvfsm.Install:
		return fmt.Sprintf("Install of shard %d, epoch %v, h %d, %s: %s", c.Shard, c.Epoch, c.Handoff,
			describeCursor(c.From), describeItems(c.Items))
	case *kvfsm.Freeze:
		return fmt.Sprintf("Freeze of shard %d, epoch %v, h %d", c.Shard, c.Epoch, c.Handoff)
	case *kvfsm.Drop:
		return fmt.Sprintf("Drop of shard %d, epoch %v", c.Shard, c.Epoch)
	case *kvfsm.Discard:
		return fmt.Sprintf("Discard of shard %d, epoch %v, h %d", c.Shard, c.Epoch, c.Handoff)
	}
	return fmt.Sprintf("%T", c)
}

func describeCursor(c kvfsm.Cursor) string {
	if c.Tail {
		return fmt.Sprintf("Tail(%d)", c.Revision)
	}
	return fmt.Sprintf("Copy(%s)", describeKey(c.Key))
}

func describeKey(key []byte) string {
	switch {
	case len(key) == 0:
		return ""
	case key[0] == kindRecord:
		return fmt.Sprintf("%q", key[1:])
	case len(key) > 9:
		return fmt.Sprintf("session %d", key[9])
	}
	return "floor"
}

func describeItems(items []kvfsm.Item) string {
	if len(items) == 0 {
		return "nothing"
	}
	var parts []string
	for _, it := range items {
		value := fmt.Sprintf("%x", it.Value)
		switch {
		case it.Deleted:
			value = "deleted"
		case it.Key[0] == kindRecord && len(it.Value) >= valueHeaderBytes:
			value = fmt.Sprintf("%q", it.Value[valueHeaderBytes:])
		}
		parts = append(parts, describeKey(it.Key)+" "+value)
	}
	return strings.Join(parts, ", ")
}

// describeState says where every group stands.
func (x *explorer) describeState(st *state) string {
	var b strings.Builder
	for seat := range x.bound.Groups {
		l := x.locals[st.locals[seat]]
		fmt.Fprintf(&b, "  %v config %d", l.inc, l.view.Adopted())
		for s := range l.shards {
			sh := &l.shards[s]
			fmt.Fprintf(&b, " | shard %d %v", s, sh.phase)
			if sh.phase != kvfsm.PhaseAbsent {
				fmt.Fprintf(&b, " (%v,%d) revision %d", sh.own.Epoch, sh.own.Handoff, sh.rev)
			}
			if sh.to != noInc {
				fmt.Fprintf(&b, " to %v", sh.to)
			}
			if sh.phase.Serves() || sh.phase == kvfsm.PhaseFrozen {
				fmt.Fprintf(&b, " %q", sh.served)
			}
			if sh.staging {
				fmt.Fprintf(&b, ", staging (%v,%d) from %v at %s", sh.st.mark.Epoch, sh.st.mark.Handoff, sh.st.from, describeCursor(sh.st.cursor))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
