// Command shoal is the one binary of Shoal: servers, client, administration and
// measurement. See "shoal --help", and package cli for how it is made.
package main

import (
	"os"

	"github.com/shoalkv/shoal/cmd/shoal/internal/cli"
)

func main() { os.Exit(cli.Main()) }
