//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Enabled reports whether this build honours failpoints.
const Enabled = true

// action is what one failpoint does.
type action struct {
	verb  string        // kill, error, sleep
	sleep time.Duration // of the verb sleep
	left  int           // hits on which it still acts; -1: all
	skip  int           // hits to let pass first
}

var table = struct {
	sync.Mutex
	actions map[string]*action
}{actions: map[string]*action{}}

func init() {
	for _, setting := range strings.Split(os.Getenv("SHOAL_FAILPOINTS"), ";") {
		if setting = strings.TrimSpace(setting); setting == "" {
			continue
		}
		name, what, _ := strings.Cut(setting, "=")
		if err := Set(name, what); err != nil {
			fmt.Fprintln(os.Stderr, "SHOAL_FAILPOINTS:", err)
			os.Exit(2)
		}
	}
}

// Set gives the failpoint name an action, in the language of the package
// comment; "off" removes it.
func Set(name, what string) error {
	a, err := parse(what)
	if err != nil {
		return fmt.Errorf("failpoint %q: %w", name, err)
	}
	table.Lock()
	defer table.Unlock()
	if a == nil {
		delete(table.actions, name)
	} else {
		table.actions[name] = a
	}
	return nil
}

func parse(what string) (*action, error) {
	a := &action{left: -1}
	if n, rest, ok := strings.Cut(what, "*"); ok {
		count, err := strconv.Atoi(n)
		if err != nil || count < 1 {
			return nil, fmt.Errorf("%q: count is not a positive number", what)
		}
		a.left, what = count, rest
	} else if n, rest, ok := strings.Cut(what, "+"); ok {
		first, err := strconv.Atoi(n)
		if err != nil || first < 1 {
			return nil, fmt.Errorf("%q: first hit is not a positive number", what)
		}
		a.skip, what = first-1, rest
	}
	verb, argument, _ := strings.Cut(what, ":")
	a.verb = verb
	switch verb {
	case "off":
		return nil, nil
	case "kill", "error":
		return a, nil
	case "sleep":
		var err error
		a.sleep, err = time.ParseDuration(argument)
		return a, err
	}
	return nil, fmt.Errorf("%q: action is not kill, error, sleep:DURATION or off", what)
}

// Hit performs the action of the failpoint name, if it has one.
func Hit(name string) error {
	a, ok := take(name)
	if !ok {
		return nil
	}
	switch a.verb {
	case "sleep":
		time.Sleep(a.sleep)
	case "error":
		return fmt.Errorf("%w at %s", ErrInjected, name)
	case "kill":
		fmt.Fprintln(os.Stderr, "failpoint: killed at", name)
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		if err != nil {
			panic(fmt.Sprintf("failpoint: cannot kill this process: %v", err))
		}
		select {} // the signal is on its way; nothing more may happen
	}
	return nil
}

// take returns a copy of the action to perform now, and counts the hit.
func take(name string) (action, bool) {
	table.Lock()
	defer table.Unlock()
	a := table.actions[name]
	if a == nil || a.left == 0 {
		return action{}, false
	}
	if a.skip > 0 {
		a.skip--
		return action{}, false
	}
	if a.left > 0 {
		a.left--
	}
	return *a, true
}
