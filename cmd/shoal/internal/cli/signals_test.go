package cli

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A command ends in order though its signal comes twice, as timeout(1) sends it: to
// the process, and to its group. Another one, later, ends it at once.
func TestSignalThatComesTwiceIsOneWish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		cancelled, over := false, false
		go func() {
			awaitEnd(signals, func() { cancelled = true })
			over = true
		}()
		signals <- syscall.SIGTERM
		signals <- syscall.SIGTERM
		synctest.Wait()
		if !cancelled || over {
			t.Fatalf("after a signal and its echo: cancelled %v, over %v", cancelled, over)
		}
		time.Sleep(signalEcho) // virtual
		synctest.Wait()
		if over {
			t.Fatal("it is over without another signal")
		}
		signals <- os.Interrupt
		synctest.Wait()
		if !over {
			t.Error("another signal, later, did not end it")
		}
	})
}
