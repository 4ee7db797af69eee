package scenario

import (
	"context"
	"fmt"
	"os"

	"github.com/shoalkv/shoal/integration/cluster"
)

// repair does what the message of a wiped replica says: it starts an empty
// replica without peers and has it replace the lost member.
func (e *Env) repair(ctx context.Context, c *cluster.Cluster, lost *cluster.Process) error {
	if err := os.RemoveAll(lost.Dir); err != nil {
		return err
	}
	fresh := c.Replace(lost)
	if err := fresh.Start(); err != nil {
		return err
	}
	if err := c.Await(ctx, "the empty replica listens", func() error {
		if refused(fresh.Addr) {
			return fmt.Errorf("nobody listens on %s", fresh.Addr)
		}
		return nil
	}); err != nil {
		return err
	}
	r := c.Shoal(ctx, "replicas", fmt.Sprint(lost.Group), "replace", lost.ID, fresh.Addr, "--wait", "--timeout", "2m")
	if err := r.Err(); err != nil {
		return fmt.Errorf("replicas replace: %w", err)
	}
	return c.Await(ctx, "three healthy replicas", func() error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, g := range s.Groups {
			healthy := 0
			for _, m := range g.Replicas {
				if m.Healthy && m.Role != "learner" {
					healthy++
				}
			}
			if g.GID == lost.Group && healthy == 3 && len(g.Replicas) == 3 {
				e.Observe("after the repair", "%d healthy voters", healthy)
				return nil
			}
		}
		return fmt.Errorf("status: %+v", s.Groups)
	})
}
