package output

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
)

const (
	progressDelay    = time.Second            // quicker work shows nothing
	progressRedraw   = 100 * time.Millisecond // on a terminal
	progressLine     = 3 * time.Second        // elsewhere
	progressBarCells = 30
	progressBarLeast = 4 // where the text needs the room
)

// A State is what a Progress shows at one moment.
type State struct {
	// Done and Total are in the unit of the work; Total 0: not known.
	Done, Total uint64
	// Unit is what Done and Total count; empty: the label says it.
	Unit string
	// Text follows the bar: rates, totals, what is waited for.
	Text string
}

// A Progress shows on one stream how far some work is: a bar that is redrawn
// where the stream is a terminal, else a line every few seconds. Work that takes
// less than a second shows nothing; nor does a command in the background of a
// terminal, where somebody else types. It owns one goroutine until Stop.
type Progress struct {
	w        io.Writer
	label    string
	sample   func() State
	terminal bool
	// On a terminal: whether it is this process's, and how wide it is; 0: not known.
	foreground func() bool
	columns    func() int
	drawn      bool                     // there is a bar or a spinner on the last line
	spinner    *progressbar.ProgressBar // where the total is not known; nil: not needed yet
	stop       chan struct{}
	stopped    chan struct{}
}

// StartProgress shows the work named label on w until Stop. sample is called
// from another goroutine, a few times a second.
func StartProgress(w io.Writer, label string, sample func() State) *Progress {
	p := &Progress{
		w: w, label: label, sample: sample, terminal: IsTerminal(w),
		foreground: func() bool { return isForeground(w) }, columns: func() int { return columnsOf(w) },
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
			if p.drawn && p.foreground() {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		case <-tick.C:
		}
	}
}

func (p *Progress) draw() {
	s := p.sample()
	switch {
	case !p.terminal:
		fmt.Fprintln(p.w, Render(p.label, s))
		return
	case !p.foreground():
		return
	case s.Total == 0:
		p.drawSpinner(s)
	default:
		p.drawBar(s)
	}
	p.drawn = true
}

// drawBar draws a bar of its own each time: the library's ends for good at its
// total, while here totals grow, and shards may go back.
func (p *Progress) drawBar(s State) {
	done := min(s.Done, s.Total)
	text := strings.TrimSpace(s.Unit + "  " + p.label + "  " + s.Text)
	beside := len("  100% [] ") + len(fmt.Sprintf("(%d/%d) ", done, s.Total)) + 1 // the last column stays free
	cells := progressBarCells
	if columns := p.columns(); columns > 0 {
		cells = min(max(columns-beside-utf8.RuneCountInString(text), progressBarLeast), progressBarCells)
	}
	bar := progressbar.NewOptions64(int64(s.Total), append(p.options(cells),
		progressbar.OptionSetDescription(p.fit(text, beside+cells)),
		progressbar.OptionShowCount(),
		progressbar.OptionSetTheme(progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: " ", BarStart: "[", BarEnd: "]"}))...)
	_ = bar.Set64(int64(done)) // of a display nobody depends on
}

func (p *Progress) drawSpinner(s State) {
	if p.spinner == nil {
		p.spinner = progressbar.NewOptions64(-1, append(p.options(progressBarCells), progressbar.OptionSetElapsedTime(true),
			progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionSpinnerType(14))...) // else it owns a goroutine
	}
	p.spinner.Describe(p.fit(Render(p.label, s), 12))
}

func (p *Progress) options(cells int) []progressbar.Option {
	return []progressbar.Option{
		progressbar.OptionSetWriter(p.w), progressbar.OptionSetWidth(cells), progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetPredictTime(false), progressbar.OptionShowDescriptionAtLineEnd(),
	}
}

// fit cuts text so that it and other columns take one line.
func (p *Progress) fit(text string, others int) string {
	room := p.columns() - others
	if runes := []rune(text); room > 0 && len(runes) > room {
		return string(runes[:room])
	}
	return text
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
		if s.Unit != "" {
			b.WriteString(" " + s.Unit)
		}
	} else if s.Done > 0 {
		b.WriteString(" " + Count(s.Done))
	}
	if s.Text != "" {
		b.WriteString("  " + s.Text)
	}
	return b.String()
}
