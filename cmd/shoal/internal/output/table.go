package output

import (
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteTable writes headings and rows in columns two spaces apart. Columns in
// which every cell begins with a digit are aligned to the right.
func WriteTable(w io.Writer, headings []string, rows [][]string) error {
	widths := make([]int, len(headings))
	right := make([]bool, len(headings))
	for i, h := range headings {
		widths[i] = utf8.RuneCountInString(h)
		right[i] = len(rows) > 0
	}
	for _, row := range rows {
		for i, cell := range row[:min(len(row), len(headings))] {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			right[i] = right[i] && (cell == "" || cell == "-" || cell[0] >= '0' && cell[0] <= '9' && !strings.Contains(cell, ":"))
		}
	}
	var b strings.Builder
	writeRow(&b, headings, widths, right)
	for _, row := range rows {
		writeRow(&b, row, widths, right)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeRow(b *strings.Builder, row []string, widths []int, right []bool) {
	var line strings.Builder
	for i := range widths {
		cell := ""
		if i < len(row) {
			cell = row[i]
		}
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if i > 0 {
			line.WriteString("  ")
		}
		if right[i] {
			line.WriteString(pad + cell)
		} else {
			line.WriteString(cell + pad)
		}
	}
	b.WriteString(strings.TrimRight(line.String(), " "))
	b.WriteByte('\n')
}

// Bytes writes a size in bytes with a unit: 999 B, 1.5 KiB, 2.0 GiB.
func Bytes(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	value, unit := float64(n), 0
	const units = "BKMGTPE"
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + units[unit:unit+1] + "iB"
}

// Count writes a number with its thousands apart: 1,234,567.
func Count[T ~int | ~int64 | ~uint64 | ~uint32](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// Plural writes a number of things: 1 file, 1,234 files.
func Plural[T ~int | ~int64 | ~uint64 | ~uint32](n T, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return Count(n) + " " + thing + "s"
}

// Duration writes a duration for people: three digits are enough.
func Duration(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// Rate returns n per second, 0 where no time has passed.
func Rate(n uint64, elapsed time.Duration) float64 {
	if elapsed <= 0 {
		return 0
	}
	return float64(n) / elapsed.Seconds()
}
