package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/cmd/shoal/internal/replica"
	"github.com/shoalkv/shoal/raftgroup/host"
)

func (a *app) renumberCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "renumber DIR ID=ADDR,...",
		Short: "Tell a stopped replica that its group has other addresses",
		Long: `Brings back a group, or the controllers, whose replicas can't reach each other any
more because their addresses changed. Stop all its replicas, run this command on
the data directory of each, with the same addresses, and start them with the new
ones in --peers or --advertise. The first leader puts the addresses into the
group's configuration; no data is touched, and no replica gains or loses its vote.

An ID is the label of a member, or its server id where two have one label. Members
that are not named stay where they are. The command may be repeated. It refuses a
directory that a process uses.

While a majority of the group runs, replace replicas one by one instead: see
"shoal replicas". Host names in --peers need neither: change what they stand for.`,
		Example: "  shoal renumber /var/lib/shoal/a \\\n" +
			"    a=10.1.0.1:7410,b=10.1.0.2:7410,c=10.1.0.3:7410",
		Args: arguments(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			addresses := map[string]string{}
			if err := (&peerList{addresses: &addresses}).Set(args[1]); err != nil {
				return usageError{err}
			}
			members, err := replica.Renumber(args[0], addresses)
			if err != nil {
				return renumberFailure(err)
			}
			return a.printRenumbered(members)
		},
	}
}

func renumberFailure(err error) error {
	err = fmt.Errorf("renumber: not done: %w", err)
	switch {
	case replica.Usage(err):
		return usageError{err}
	case errors.As(err, new(*host.LockedError)), replica.Refused(err):
		return codedError{err, ExitRefused}
	}
	return codedError{err, ExitFailed}
}

// A renumberResult is a member as `shoal renumber` shows it.
type renumberResult struct {
	ID       string `json:"id"`
	ServerID string `json:"server_id"`
	From     string `json:"from"` // as the group's configuration has it
	To       string `json:"to"`   // the same where it stays
}

func (a *app) printRenumbered(members []replica.Renumbered) error {
	results := []renumberResult{}
	var rows [][]string
	for _, m := range members {
		r := renumberResult{ID: m.Label, ServerID: m.ServerID, From: m.Address, To: m.To}
		results = append(results, r)
		rows = append(rows, []string{r.ID, r.From, r.To})
	}
	if a.out.IsJSON() {
		return a.out.Object(struct {
			Members []renumberResult `json:"members"`
		}{results})
	}
	return a.out.Rows([]string{"ID", "FROM", "TO"}, rows)
}
