package cluster

import "context"

// Status is the JSON of `shoal status`, as the command line promises it.
type Status struct {
	Config      uint64 `json:"config"`
	Controllers []struct {
		ID      string `json:"id"`
		Address string `json:"address"`
		Leader  bool   `json:"leader"`
		Healthy bool   `json:"healthy"`
	} `json:"controllers"`
	Groups []struct {
		GID      uint64 `json:"gid"`
		Replicas []struct {
			ID           string `json:"id"`
			Address      string `json:"address"`
			Role         string `json:"role"`
			AppliedIndex uint64 `json:"applied_index"`
			Healthy      bool   `json:"healthy"`
		} `json:"replicas"`
		Shards int    `json:"shards"`
		Keys   uint64 `json:"keys"`
		Bytes  uint64 `json:"bytes"`
	} `json:"groups"`
	Shards struct {
		Total   int `json:"total"`
		Settled int `json:"settled"`
		Moving  int `json:"moving"`
	} `json:"shards"`
	Handoffs []struct {
		Shard       uint16  `json:"shard"`
		From        uint64  `json:"from"`
		To          uint64  `json:"to"`
		Phase       string  `json:"phase"`
		CopiedBytes uint64  `json:"copied_bytes"`
		TotalBytes  uint64  `json:"total_bytes"`
		PauseMS     float64 `json:"pause_ms"`
	} `json:"handoffs"`
}

// Config is the JSON of `shoal config`.
type Config struct {
	Num    uint64   `json:"num"`
	Shards []uint64 `json:"shards"`
	Groups map[string]struct {
		Replicas []string `json:"replicas"`
		Weight   uint32   `json:"weight"`
		State    string   `json:"state"`
	} `json:"groups"`
	Pins map[string]uint64 `json:"pins"`
}

// Status runs `shoal status`.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.JSON(ctx, &s, "status")
	return s, err
}
