package main

import (
	"regexp"
	"slices"
	"strings"
)

// A reason says why no seed reaches a block.
type reason struct {
	text   string
	tested string // by what else
	// never: no run of a right program reaches it.
	never bool
	// A place has this reason if its text matches is, its function's name function,
	// or the file with the function one of at.
	is, function *regexp.Regexp
	at           []string // "file.go Function", the latter perhaps with a star at its end
}

// reasons are tried in order. A place that none fits is a gap: a scenario that
// the simulator should get, or a reason that is missing here.
var reasons = []reason{
	{text: "a mistake of the program stops it", tested: "nothing can reach it", never: true,
		is: regexp.MustCompile(`panic\(`)},
	{text: "a breach is reported", tested: "planted bugs", never: true,
		at: []string{"shardkv/handoff/invariants.go *", "shardkv/kvfsm/read.go CheckContent", "shardkv/kvfsm/read.go CheckLeftovers",
			"shardctrler/shardcfg/assign.go (*Config).Check"}},
	{text: "texts for people and for JSON", tested: "tables beside the code", never: true,
		function: regexp.MustCompile(`\.(String|Error|MarshalText|UnmarshalText)$|^(ParseIncarnation|unhex)$`)},
	{text: "stored state or bytes on the wire are damaged", tested: "fuzzed decoders; scripts of damaged state",
		is: regexp.MustCompile(`ErrState|ErrCorrupt|ErrFormat|ErrRequest|errShape|\.fail\(|\.bad(, d\.b)? = true|stored as config`),
		at: []string{"shardctrler/shardcfg/delta.go (*Delta).Apply", "shardctrler/shardcfg/slot.go CheckShardCount", "shardctrler/shardcfg/ids.go To128",
			"shardkv/kvfsm/types.go ParseDigest"}},
	{text: "the store fails in a call of which no seed made it fail", tested: "store failures in the machines' property tests",
		is: regexp.MustCompile(`err != nil \{ (it\.Close\(\) )?return .*\berr \}$`)},
	{text: "what only the shell around the machines asks of them", tested: "`grouptest`, `raftgroup`, `shardkv`",
		at: []string{"shardctrler/ctrlfsm/machine.go New", "shardctrler/ctrlfsm/machine.go (*Machine).Applied", "shardctrler/ctrlfsm/machine.go (*Machine).Apply",
			"shardkv/kvfsm/machine.go New", "shardkv/kvfsm/machine.go (*Machine).Applied", "shardkv/kvfsm/machine.go (*Machine).apply",
			"shardkv/placement/changes.go (*Changes).Clear", "shardkv/placement/preference.go (*Preference).Forget",
			"shardctrler/report/report.go Due", "shardctrler/report/report.go (*Memory).Answer"}},
	{text: "a bound that is too high for a small cluster", tested: "tests of the bound",
		at: []string{"clerk/route/route.go (*Op).meet", "shardctrler/report/memory.go (*Memory).forgetOldest", "shardctrler/report/memory.go (*Memory).Take",
			"shardkv/placement/placement.go (*Memory).Hear", "shardctrler/ctrlfsm/plan.go planJoin", "shardctrler/ctrlfsm/repair.go planRetire"}},
	{text: "a guard of the last line: the machines' callers keep such commands from the log", tested: "`kvfsm` and `ctrlfsm` scripts; explorer; planted bugs",
		at: []string{"shardkv/kvfsm/transfer.go *", "shardkv/kvfsm/adopt.go *", "shardkv/kvfsm/machine.go *", "shardctrler/ctrlfsm/repair.go verdicts"}},
	{text: "a shape of data that a driver or a table guards against", tested: "tests beside the code",
		at: []string{"clerk/route/table.go *", "shardkv/handoff/arriving.go *", "shardkv/handoff/driver.go *", "shardkv/handoff/leaving.go *",
			"shardkv/handoff/messages.go *", "shardkv/placement/placement.go Moves", "shardkv/kvfsm/scan.go ReadScan", "shardkv/kvfsm/read.go Get*",
			"shardkv/kvfsm/write.go (*Machine).where", "shardkv/kvfsm/write.go (*Machine).owner", "shardctrler/shardcfg/assign.go Assign",
			"shardctrler/shardcfg/config.go (*Config).Clone", "shardctrler/shardcfg/delta.go ownerAt", "shardctrler/ctrlfsm/requests.go (*step).raiseFloor"}},
}

// reasonOf finds a place's reason; nil: it has none.
func reasonOf(p *place) *reason {
	for i := range reasons {
		r := &reasons[i]
		if r.is != nil && r.is.MatchString(p.text) || r.function != nil && r.function.MatchString(p.function) || slices.ContainsFunc(r.at, func(at string) bool { return matches(at, p) }) {
			return r
		}
	}
	return nil
}

// matches reports whether a place is at "file function".
func matches(at string, p *place) bool {
	file, function, _ := strings.Cut(at, " ")
	if before, star := strings.CutSuffix(function, "*"); star {
		return p.file == file && strings.HasPrefix(p.function, before)
	}
	return p.file == file && p.function == function
}
