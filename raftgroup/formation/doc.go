// Package formation makes a replica group out of empty replicas, exactly once,
// and keeps each replica's identity file.
//
// # Names
//
// An --id is a label that people choose. Raft only sees ServerIDs, and every
// disk draws its own, at its first start, before it answers anybody. So a wiped
// disk never has the name under which the old one voted, whatever anyone tells
// it.
//
// # Forming a group
//
// Every empty replica that was started with --peers asks all of them who they
// are, again and again. Only if every one answers, none is formed, and all were
// started with the same peers, and are where the proposer has them, does the
// one with the lowest label, the proposer, go on, in two steps:
//
//	prepare  It draws an incarnation, and makes an identity out of it and the
//	         ServerIDs that the peers answered with. It writes the identity to
//	         its own file as prepared, then has every peer do so.
//	commit   Once all have, it writes its own as formed. That is the moment at
//	         which the group exists. A peer that has prepared this identity, and
//	         hears a founder say that it is formed, does the same.
//
// A replica bootstraps Raft only when its file says formed. Every arrow that
// can be cut is made by asking again: a proposer that comes back with what it
// prepared goes on with it, as long as all the ServerIDs are still those; else,
// or if it comes back empty, it begins anew with a higher ballot. What the empty
// disk's predecessor sent may arrive late, and be prepared in the very ballot that
// the new one has just chosen: peers say which incarnation they have prepared, and
// the proposer goes above a ballot in which one has prepared another.
//
// # Why there is never a second incarnation
//
// Rules, each enforced where the file is written (found, commit in this
// package):
//
//	FORM-1  A formed replica never changes its identity.
//	FORM-2  A replica prepares an identity only if that lists its own ServerID,
//	        and only with a ballot above the one it has prepared last.
//	FORM-3  The proposer commits X only if every founder has acknowledged X and
//	        its own file still has X.
//	FORM-4  Another replica commits X only if its own file has X, prepared, and
//	        a founder of X says that it is formed with X.
//
// Let Q, not a proposer, be formed with X, prepared in ballot b. For Y to be
// committed anywhere, a proposer needs Q to acknowledge Y (FORM-3). After Q was
// formed it does not (FORM-1). Before, it may have done so in a ballot below b
// (FORM-2), but then Q's file no longer had Y, and neither had any other
// founder's, because the proposer of X needed them all for X: the only replica
// that can be formed with Y is the proposer of Y, with nobody else. It has no
// quorum, and never had. So only one incarnation ever commits an entry. A group
// of one is its own quorum; a second life of it needs its disk to be wiped, and
// the controllers, who bind a gid to the first incarnation, refuse that.
//
// A crash of the proposer, by where it happens:
//
//	before its own file is prepared     nobody knows the identity; begin anew
//	some or all have prepared, none     go on with the same; with another disk,
//	  is formed                         begin anew with a higher ballot
//	its own file is formed              the others hear so when it is back, and
//	                                    follow (FORM-4)
//	... and its disk is lost            no other is formed: begin anew; another
//	                                    is formed: it is refused as wiped
//
// A peer whose disk is wiped after it has prepared has a new ServerID. If the
// group was not formed, the proposer begins anew with that one; if it was, the
// newcomer is refused (*WipedError) and has to be added as a new replica.
//
// # Being added
//
// A replica that was started without peers waits. Membership.Add sends it an
// identity without founders, which it takes up in one step: it does not
// bootstrap, but waits for the leader to send it the log.
//
// Row 3 of the layers: it may use gRPC, the file system and the clock. It runs
// no goroutine of its own except calls to peers, which end before Form returns;
// the file is written by Form and by the goroutines of the gRPC server, one at a
// time.
package formation
