package cli

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagProblem says what is wrong with a command's flags, in plain words.
func flagProblem(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	var bare *pflag.ValueRequiredError
	switch {
	case errors.As(err, &invalid):
		return usageError{valueProblem("--"+invalid.GetFlag().Name, invalid.GetValue(), invalid.GetFlag(), invalid.Unwrap())}
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return usagef("%w (put -- before an argument that begins with a dash)", err)
	case errors.As(err, &unknown):
		if near := nearestFlag(cmd, unknown.GetSpecifiedName()); near != "" {
			return usagef("%w: did you mean --%s?", err, near)
		}
	case errors.As(err, &bare) && bare.GetFlag() != nil:
		return usagef("--%s needs a value", bare.GetFlag().Name)
	}
	return usageError{err}
}

// valueProblem says what is wrong with the value that source gives a flag. cause
// is what its parser says: of the standard parsers, in the words of the language.
func valueProblem(source, value string, f *pflag.Flag, cause error) error {
	what := ""
	switch f.Value.Type() {
	case "int", "int64":
		what = "a whole number"
	case "uint32", "uint64":
		what = "a whole number from 0 on"
	case "float64":
		what = "a number"
	case "bool":
		what = "true or false"
	case "duration":
		what = "a time with its unit: 500ms, 10s, 2m"
	default:
		return fmt.Errorf("%s: %w", source, cause)
	}
	if errors.Is(cause, strconv.ErrRange) {
		return fmt.Errorf("%s is %q: that is out of range", source, value)
	}
	return fmt.Errorf("%s is %q: it must be %s", source, value, what)
}

// nearestFlag returns the flag of a command whose name is most like name; empty
// if none is near.
func nearestFlag(cmd *cobra.Command, name string) string {
	nearest, least := "", max(1, len(name)/3)+1
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := distance(name, f.Name); !f.Hidden && d < least {
			nearest, least = f.Name, d
		}
	})
	return nearest
}

// distance is how many bytes must be inserted, deleted, replaced, or swapped with
// the next, to make b of a (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
