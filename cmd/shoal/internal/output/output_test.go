package output

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// Columns line up, numbers to the right, and no line ends in spaces.
func TestTable(t *testing.T) {
	var b bytes.Buffer
	err := WriteTable(&b, []string{"NAME", "N", "ADDRESS", "NOTE"}, [][]string{
		{"a", "1", "127.0.0.1:1", ""}, {"longer", "1,234", "h:2", "ü"}, {"x", "-", "h:3"},
	})
	want := "" +
		"NAME        N  ADDRESS      NOTE\n" +
		"a           1  127.0.0.1:1\n" +
		"longer  1,234  h:2          ü\n" +
		"x           -  h:3\n"
	if err != nil || b.String() != want {
		t.Errorf("table:\n%s%v\nwant:\n%s", b.String(), err, want)
	}
}

// Numbers read well, whatever their size.
func TestUnits(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Bytes(0), "0 B"}, {Bytes(1023), "1023 B"}, {Bytes(1536), "1.5 KiB"}, {Bytes(5 << 30), "5.0 GiB"}, {Bytes(1 << 63), "8.0 EiB"},
		{Count(0), "0"}, {Count(999), "999"}, {Count(1000), "1,000"}, {Count(uint64(1234567)), "1,234,567"}, {Count(-1234), "-1,234"},
		{Plural(1, "file"), "1 file"}, {Plural(0, "file"), "0 files"}, {Plural(2000, "file"), "2,000 files"},
		{Duration(1234 * time.Nanosecond), "1µs"}, {Duration(1234567 * time.Nanosecond), "1.23ms"},
		{Duration(1234567 * time.Microsecond), "1.23s"}, {Duration(123 * time.Second), "2m3s"},
	} {
		if c.got != c.want {
			t.Errorf("%q; want %q", c.got, c.want)
		}
	}
}

// JSON keeps what HTML would not, one line for each object; bytes that are not
// UTF-8 are in base64, under another name.
func TestJSON(t *testing.T) {
	var b bytes.Buffer
	p := NewPrinter(&b, JSON)
	for _, key := range []string{"<a&b>\n", "\xff", ""} {
		if err := p.Object(struct {
			Key
			Value
		}{KeyOf([]byte(key)), ValueOf([]byte(key))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	want := `{"key":"<a&b>\n","value":"<a&b>\n"}` + "\n" + `{"key_base64":"/w==","value_base64":"/w=="}` + "\n" + `{"key":"","value":""}` + "\n"
	if b.String() != want {
		t.Errorf("%s\nwant %s", b.String(), want)
	}
}

// Work that takes less than a second shows nothing; longer work, off a terminal,
// shows a line every few seconds.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			takes time.Duration
			lines int
		}{{900 * time.Millisecond, 0}, {1500 * time.Millisecond, 1}, {8 * time.Second, 3}} {
			var b bytes.Buffer
			begun := time.Now()
			p := StartProgress(&b, "work", func() State {
				return State{Done: uint64(time.Since(begun).Seconds()), Total: 10, Text: "busy"}
			})
			time.Sleep(c.takes)
			p.Stop()
			if n := strings.Count(b.String(), "\n"); n != c.lines || n > 0 && !strings.HasPrefix(b.String(), "work [===   ") {
				t.Errorf("%v of work: %q; want %d lines", c.takes, b.String(), c.lines)
			}
		}
	})
}

// A bar is never longer than whole, and is left out where the total is unknown.
func TestRender(t *testing.T) {
	for _, c := range []struct {
		s    State
		want string
	}{
		{State{}, "x"},
		{State{Done: 1500}, "x 1,500"},
		{State{Done: 20, Total: 10}, "x [" + strings.Repeat("=", 30) + "] 100 %  10/10"},
		{State{Done: 1, Total: 2, Unit: "s", Text: "t"}, "x [" + strings.Repeat("=", 15) + strings.Repeat(" ", 15) + "]  50 %  1/2 s  t"},
	} {
		if got := Render("x", c.s); got != c.want {
			t.Errorf("%+v: %q; want %q", c.s, got, c.want)
		}
	}
}

// On a terminal a bar follows the state also where it goes back, where the total
// grows, and after it was full; without a total there is a spinner.
func TestTerminal(t *testing.T) {
	var b bytes.Buffer
	var s State
	p := &Progress{w: &b, label: "shards", terminal: true, sample: func() State { return s },
		foreground: func() bool { return true }, columns: func() int { return 0 }}
	for _, c := range []struct {
		s    State
		want []string
	}{
		{State{Done: 1, Total: 4, Text: "copying"}, []string{" 25% [======>", "(1/4)", "shards  copying"}},
		{State{Done: 4, Total: 4}, []string{"100% [" + strings.Repeat("=", 30) + "]", "(4/4)"}},
		{State{Done: 3, Total: 8, Unit: "s"}, []string{" 37%", "(3/8)", "s  shards"}},
		{State{Done: 9, Total: 8}, []string{"100%", "(8/8)"}},
		{State{}, []string{"shards"}},
		{State{Done: 1500, Text: "files"}, []string{"shards 1,500  files"}},
		{State{Done: 0, Total: 8}, []string{"  0% [ ", "(0/8)"}},
	} {
		b.Reset()
		s = c.s
		p.draw()
		for _, want := range c.want {
			if got := b.String(); !strings.Contains(got, want) || !strings.HasPrefix(got, "\r") || strings.Contains(got, "\n") {
				t.Errorf("%+v drew %q; want %q in it", c.s, got, want)
			}
		}
	}
}

// On a terminal of 80 columns all that the commands show fits on its line, and
// nothing of it is cut: the bar gives way to the text.
func TestNothingIsCutAt80Columns(t *testing.T) {
	for _, c := range []struct {
		label string
		s     State
	}{
		{"shards", State{Done: 341, Total: 1024, Text: "1023.9 MiB of 1023.9 GiB copied"}},
		{"check", State{Done: 59, Total: 60, Unit: "s", Text: "123456 ops, 12 unknown, longest wait 1.234s"}},
		{"import", State{Done: 12345, Total: 100000, Text: "1,234,567 keys, 12345 keys/s, 123.4 MiB/s"}},
		{"bench", State{Done: 9, Total: 10, Unit: "s", Text: "123456 ops/s, 1,234 errors"}},
		{"clean", State{Done: 123456}},
	} {
		var b bytes.Buffer
		p := &Progress{w: &b, label: c.label, terminal: true, sample: func() State { return c.s },
			foreground: func() bool { return true }, columns: func() int { return 80 }}
		p.draw()
		line := strings.TrimRight(strings.NewReplacer("\r", "", "\x1b[2K", "", "\x1b[K", "", "\x1b[0K", "").Replace(b.String()), " ")
		if n := utf8.RuneCountInString(line); n > 79 || !strings.Contains(line, c.s.Text) || !strings.Contains(line, c.label) {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

// In the background nothing is drawn over what somebody types in the foreground;
// a bar that was there is left as it is.
func TestBackgroundDrawsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		foreground := false
		p := &Progress{w: &b, label: "bench", terminal: true, sample: func() State { return State{Done: 1, Total: 2} },
			foreground: func() bool { return foreground }, columns: func() int { return 80 },
			stop: make(chan struct{}), stopped: make(chan struct{})}
		go p.run()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if b.Len() > 0 {
			t.Errorf("drew %q in the background", b.String())
		}
		foreground = true
		time.Sleep(time.Second)
		synctest.Wait()
		drawn := b.Len()
		if drawn == 0 {
			t.Error("drew nothing in the foreground")
		}
		foreground = false
		time.Sleep(time.Second)
		p.Stop()
		if b.Len() != drawn {
			t.Errorf("drew %q in the background", b.String()[drawn:])
		}
	})
}
