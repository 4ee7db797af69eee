package output

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

const (
	progressDelay    = time.Second            // quicker work shows nothing
	progressRedraw   = 100 * time.Millisecond // on a terminal
	progressLine     = 3 * time.Second        // elsewhere
	progressBarCells = 30
)

// A State is what a Progress shows at one moment.
type State struct {
	// Done and Total are in the unit of the work; Total 0: not known.
	Done, Total uint64
	// Text follows the bar: rates, totals, what is waited for.
	Text string
}

// A Progress shows on one stream how far some work is: a bar that is redrawn
// where the stream is a terminal, else a line every few seconds. Work that takes
// less than a second shows nothing. It owns one goroutine until Stop.
type Progress struct {
	w        io.Writer
	label    string
	sample   func() State
	terminal bool
	stop     chan struct{}
	stopped  chan struct{}
}

// StartProgress shows the work named label on w until Stop. sample is called
// from another goroutine, a few times a second.
func StartProgress(w io.Writer, label string, sample func() State) *Progress {
	p := &Progress{
		w: w, label: label, sample: sample, terminal: IsTerminal(w),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go p.run()
	return p
}

// Stop ends the display, leaves the cursor on an empty line, and waits for the
// goroutine. It is called once.
func (p *Progress) Stop() {
	close(p.stop)
	<-p.stopped
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (p *Progress) run() {
	defer close(p.stopped)
	interval := progressLine
	if p.terminal {
		interval = progressRedraw
	}
	delay := time.NewTimer(progressDelay)
	defer delay.Stop()
	select {
	case <-p.stop:
		return
	case <-delay.C:
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		p.draw()
		select {
		case <-p.stop:
			if p.terminal {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		case <-tick.C:
		}
	}
}

func (p *Progress) draw() {
	line := Render(p.label, p.sample())
	if !p.terminal {
		fmt.Fprintln(p.w, line)
		return
	}
	if columns := p.columns(); columns > 0 && len([]rune(line)) >= columns {
		line = string([]rune(line)[:columns-1])
	}
	fmt.Fprint(p.w, "\r\x1b[K"+line)
}

func (p *Progress) columns() int {
	f, ok := p.w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Render writes one state as a line without a newline.
func Render(label string, s State) string {
	var b strings.Builder
	b.WriteString(label)
	if s.Total > 0 {
		done := min(s.Done, s.Total)
		filled := int(done * progressBarCells / s.Total)
		fmt.Fprintf(&b, " [%s%s] %3d %%  %s/%s", strings.Repeat("=", filled),
			strings.Repeat(" ", progressBarCells-filled), done*100/s.Total, Count(done), Count(s.Total))
	} else if s.Done > 0 {
		b.WriteString(" " + Count(s.Done))
	}
	if s.Text != "" {
		b.WriteString("  " + s.Text)
	}
	return b.String()
}
