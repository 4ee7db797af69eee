package main

// judgeBugs blind the judges of histories: what they pass would be believed.
var judgeBugs = []bug{
	{name: "undecided counts as passed", edits: one("integration/history/linearizable.go",
		"case porcupine.Unknown:\n\t\t\treturn Verdict{Undecided: true, Key: key}", "case porcupine.Unknown:"), catchers: []catcher{judge}},
	{name: "no time left counts as passed", edits: one("integration/history/linearizable.go",
		"if left <= 0 {\n\t\t\treturn Verdict{Undecided: true, Key: key}", "if left <= 0 {\n\t\t\treturn Verdict{Linearizable: true}"), catchers: []catcher{judge}},
	{name: "an unknown write must be over when its client gives up", edits: one("integration/history/linearizable.go",
		"end = h.seenBy(numbers, op)", "end = min(op.Return, h.seenBy(numbers, op))"), catchers: []catcher{judge}},
	{name: "refused writes may show", edits: one("integration/history/linearizable.go",
		"op.Outcome == NotDone || ", ""), catchers: []catcher{judge}},
	{name: "versions are not compared", edits: one("integration/history/linearizable.go",
		"return !r.open && version == r.version, r", "return true, r"), catchers: []catcher{judge}},
	{name: "versions may fall", edits: one("integration/history/linearizable.go",
		"return op.Version > r.version, register{", "return true, register{"), catchers: []catcher{judge}},
	{name: "values are not compared", edits: one("integration/history/linearizable.go",
		"if !r.present || r.sum != sum {", "if !r.present {"), catchers: []catcher{judge}},
	{name: "a condition may hold twice", edits: one("integration/history/linearizable.go",
		"if !may {\n\t\t\treturn false, r", "if false {\n\t\t\treturn false, r"), catchers: []catcher{judge}},
	{name: "lost tokens pass", edits: one("integration/history/tokens.go",
		"if len(at) == 0 {", "if false {"), catchers: []catcher{judge}},
	{name: "doubled tokens pass", edits: one("integration/history/tokens.go",
		"if len(at) > 1 {", "if len(at) > 2 {"), catchers: []catcher{judge}},
	{name: "refused tokens pass", edits: one("integration/history/tokens.go",
		"if len(at) > 0 {\n\t\t\t\tt.Forbidden", "if false {\n\t\t\t\tt.Forbidden"), catchers: []catcher{judge}},
	{name: "disordered tokens pass", edits: one("integration/history/tokens.go",
		"ok && at[0] < before {", "ok && at[0] < before-1<<40 {"), catchers: []catcher{judge}},
}
