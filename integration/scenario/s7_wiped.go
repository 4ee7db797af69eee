package scenario

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// wipedDisk is S7.
func wipedDisk(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 1)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := e.load(ctx, config(c), "s7/")
	if err != nil {
		return err
	}
	victim := c.Groups[1][1]
	if err := victim.Kill(); err != nil {
		return err
	}
	if err := os.RemoveAll(victim.Dir); err != nil {
		return err
	}
	if err := victim.Start(); err != nil {
		return err
	}
	code, err := victim.Wait(30 * time.Second)
	if err != nil {
		return fmt.Errorf("a wiped replica under its old label: %w", err)
	}
	repair := "shoal replicas 1 replace " + victim.ID
	named := strings.Contains(victim.Log(), repair)
	e.Observe("wiped replica under its old label", "exit %d, names %q: %v", code, repair+" ...", named)
	if code != 5 || !named {
		return fmt.Errorf("a wiped replica exits %d (want 5), names the repair: %v", code, named)
	}

	// The repair: the same label and address, but a member that is added anew.
	if err := e.repair(ctx, c, victim); err != nil {
		return err
	}
	if err := l.judge(ctx); err != nil {
		return err
	}
	return e.equalReplicas(ctx, c)
}
