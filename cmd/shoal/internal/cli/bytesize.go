package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// A byteSize is a flag for a number of bytes: 67108864, 64MiB, 64M, 1.5GB.
type byteSize int64

var _ pflag.Value = (*byteSize)(nil)

// byteUnits are looked for at the end of a size, the longer names first.
var byteUnits = []struct {
	name  string
	bytes float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40},
	{"b", 1},
}

// Set implements pflag.Value.
func (b *byteSize) Set(text string) error {
	number, unit := strings.ToLower(strings.TrimSpace(text)), 1.0
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n >= 0) || n*unit >= math.MaxInt64 {
		return fmt.Errorf("%q is no size: it is a number of bytes, or one with KiB, MiB or GiB behind it", text)
	}
	*b = byteSize(n * unit)
	return nil
}

// String implements pflag.Value: the largest unit that divides the size.
func (b *byteSize) String() string {
	n, unit := int64(*b), 0
	units := []string{"", "KiB", "MiB", "GiB", "TiB"}
	for n >= 1024 && n%1024 == 0 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + units[unit]
}

// Type implements pflag.Value: what the help calls it.
func (*byteSize) Type() string { return "bytes" }
