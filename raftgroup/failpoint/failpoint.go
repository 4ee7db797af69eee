// Package failpoint makes a process fail at a chosen place: before or after a
// durable step, say, where a crash is hardest to survive.
//
// A call site is a line such as
//
//	if err := failpoint.Hit("handoff/freeze/before"); err != nil { return err }
//
// In an ordinary build Hit is an empty function that the compiler removes.
// Built with the tag "failpoints" it consults a table, filled from the
// environment variable SHOAL_FAILPOINTS at the start and by Set in tests:
//
//	SHOAL_FAILPOINTS="handoff/freeze/before=kill;handoff/drop/after=2*sleep:1s"
//
// An action is "kill" (the process ends at once, as by SIGKILL), "error" (Hit
// returns an error wrapping ErrInjected), "sleep:DURATION", or "off"; a prefix
// "N*" lets it act on the first N hits only, "N+" from the Nth hit on.
//
// Row 3 of the layers: it imports the standard library only. It owns no
// goroutine; Hit and Set may be called from any.
package failpoint

import "errors"

// ErrInjected is wrapped by every error that Hit returns.
var ErrInjected = errors.New("failpoint: injected error")
