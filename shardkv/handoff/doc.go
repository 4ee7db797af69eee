// Package handoff decides what a group does next to pass its shards to the
// groups that should have them, and to fetch those that it should have itself.
//
// Row 2 of the layers: pure step logic. It imports kvfsm, placement, shardcfg and the
// store's interface; it starts no goroutine, reads no clock (now is an
// argument, measured from any fixed origin) and sends nothing: Step returns
// what to send and what to propose. shardkv drives it in real time, a simulator
// in virtual time.
//
// A Driver is the memory of one leader, and only hints: everything that
// matters is in the replicated records, so a Driver may be thrown away at any
// moment (INV-4 and the guards at apply make stale, lost and repeated messages
// harmless). It is not safe for concurrent use: whoever drives it holds a lock
// during the calls, never during an RPC.
//
// # Driving
//
//	on an Invite from a group:     d.Invited(now, invite); answer with Answer(self, &view, invite)
//	on an InviteReply:             d.Answered(now, invite, reply)
//	on pages for a Fetch:          d.Fetched(now, fetch, pages), or d.FetchFailed(now, fetch)
//	on the end of a proposal:      d.Proposed(now, command, verdict, err)
//	on a poll of the controllers:  the turns of a Conversation
//	on wants, at the leader:       d.Wanted(now, from, wants)
//	then, and whenever applied state changed or Actions.Wait has passed:
//	                               actions := d.Step(now, view); carry them out
package handoff
