package transport

import (
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// Claim: while a peer's answers are withheld, a message with entries to it does not
// end, though what it shows is known; heartbeats and other peers go on. The release
// ends the wait, also if it comes twice.
func TestWithhold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wrap(t, &fakeTransport{handler: func(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
			resp.Term, resp.Success, resp.LastLog = args.Term, true, 7
			return nil
		}}, Options{})
		ended := map[string]int{}
		send := func(id raft.ServerID, entries ...*raft.Log) {
			go func() {
				if err := w.AppendEntries(id, "", &raft.AppendEntriesRequest{Term: 3, Entries: entries}, &raft.AppendEntriesResponse{}); err != nil {
					t.Error(err)
				}
				ended[string(id)]++
			}()
			synctest.Wait()
		}
		entry := &raft.Log{Index: 1, Term: 3}
		release := w.Withhold("p")
		send("p", entry)
		if ended["p"] != 0 || w.Peer("p").Match != 1 {
			t.Fatalf("while withheld: %v, %+v", ended, w.Peer("p"))
		}
		send("p")
		send("q", entry)
		if ended["p"] != 1 || ended["q"] != 1 {
			t.Fatalf("a heartbeat, and another peer: %v", ended)
		}
		release()
		release()
		synctest.Wait()
		send("p", entry)
		if ended["p"] != 3 {
			t.Fatalf("after the release: %v", ended)
		}
	})
}
