package main

// commandBugs are mistakes of the command line: in what it says, and in the files
// that it reads and writes.
var commandBugs = []bug{
	{name: "half of a surrogate pair is imported", edits: one("cmd/shoal/internal/transfer/record_json.go",
		"if at, ok := loneSurrogate(encoded); ok {", "if at, ok := loneSurrogate(encoded); ok && false {"),
		catchers: []catcher{tests("./cmd/shoal/internal/transfer", "TestRecordsAreNotRepaired")}},
	{name: "what a killed export left behind is imported", edits: one("cmd/shoal/internal/transfer/source_dir.go",
		"case e.IsDir() && isStaging(e.Name()):", "case false:"),
		catchers: []catcher{tests("./cmd/shoal/internal/transfer", "TestLeftoversAreNoKeys")}},
	{name: "exported files are not fsynced", edits: one("cmd/shoal/internal/transfer/staging.go",
		"\tif err == nil {\n\t\terr = syncFile(f, s.synced)\n\t}\n\tif err := errors.Join(err, f.Close())", "\tif err := errors.Join(err, f.Close())"),
		catchers: []catcher{tests("./cmd/shoal/internal/transfer", "TestExportIsDurable")}},
	{name: "a wait that ran out is called not done", edits: one("cmd/shoal/internal/cli/wait.go",
		"\t\tunsettled.cause = err\n\t\treturn &unsettled\n\t}\n\treturn a.printDone(s, start, \"\")",
		"\t\treturn err\n\t}\n\treturn a.printDone(s, start, \"\")"),
		catchers: []catcher{tests("./cmd/shoal/internal/cli", "TestWordsOfWaits")}},
	{name: "a change that no leader began may have happened", edits: one("cmd/shoal/internal/cli/membership_error.go",
		"e.begun = e.begun || !raftpb.IsNotBegun(err)", "e.begun = true || raftpb.IsNotBegun(err)"),
		catchers: []catcher{tests("./cmd/shoal/internal/cli", "TestWhatIsKnownOfAChange")}},
	{name: "a refusal after the first step is called not done", edits: one("cmd/shoal/internal/cli/membership_error.go",
		"case e.phases > 1:", "case false:"),
		catchers: []catcher{tests("./cmd/shoal/internal/cli", "TestWhatIsKnownOfAChange")}},
	{name: "a deadline that the leader saw first is no deadline", edits: one("cmd/shoal/internal/cli/membership_error.go",
		"e.ended = over(ctx)", "e.ended = ctx.Err()"),
		catchers: []catcher{tests("./cmd/shoal/internal/cli", "TestLeaderEndsCallAtItsDeadline")}},
	{name: "a cache file goes by way of the temporary directory", edits: one("clerk/cache.go",
		"os.CreateTemp(filepath.Dir(c.config.CacheFile), filepath.Base(c.config.CacheFile)+", "os.CreateTemp(\"\", filepath.Base(c.config.CacheFile)+"),
		catchers: []catcher{tests("./clerk", "TestCacheFileWithoutDirectory")}},
	{name: "a bar is drawn in the background", edits: one("cmd/shoal/internal/output/progress.go",
		"case !p.foreground():", "case false:"),
		catchers: []catcher{tests("./cmd/shoal/internal/output", "TestBackgroundDrawsNothing")}},
}
