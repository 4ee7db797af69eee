// Command soak runs seeds of the simulator.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/shoalkv/shoal/integration/sim"
)

func main() {
	replay := flag.Uint64("replay", 0, "")
	v := flag.Bool("v", false, "")
	size := sim.SizeSoak
	flag.IntVar(&size.Operations, "ops", size.Operations, "")
	flag.IntVar(&size.Changes, "changes", size.Changes, "")
	flag.IntVar(&size.HandoffsMin, "handoffs", size.HandoffsMin, "")
	without := flag.String("without", "", "")
	clients := flag.Int("clients", 0, "")
	keys := flag.Int("keys", 0, "")
	flag.Parse()
	k, err := sim.ParseKinds(*without)
	if err != nil {
		panic(err)
	}
	o := sim.Options{Size: size, Without: k, Clients: *clients, Keys: *keys}
	out := os.Stdout
	if !*v {
		out = nil
	}
	var r sim.Report
	if out != nil {
		r = sim.Run(*replay, o, out)
	} else {
		r = sim.Run(*replay, o, nil)
	}
	fmt.Printf("%+v\n%+v\n%v\n", r.Profile, r.Stats, r.Failure)
}
