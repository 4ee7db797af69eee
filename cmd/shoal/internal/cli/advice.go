package cli

import (
	"errors"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
)

// advices say what to do about a refusal, where its reason does not say it all.
var advices = map[ctrlpb.Reason]string{
	ctrlpb.Reason_UNKNOWN_GROUP:    "'shoal config' lists the groups",
	ctrlpb.Reason_UNKNOWN_CONFIG:   "'shoal config' shows the latest one",
	ctrlpb.Reason_GROUP_LEAVING:    "choose another group, or let this one join again",
	ctrlpb.Reason_LAST_GROUP:       "join another group first",
	ctrlpb.Reason_GROUP_EXISTS:     "choose another gid, or change the group's replicas with 'shoal replicas'",
	ctrlpb.Reason_ADDRESS_IN_USE:   "name the replicas of the group that is to join",
	ctrlpb.Reason_REPLICA_MISMATCH: "start the replicas that are meant, or name others; --force does not ask them",
	ctrlpb.Reason_CLUSTER_MISMATCH: "look at --controllers",
	ctrlpb.Reason_GROUP_SILENT:     "start its replicas, or retire it if their disks are gone",
	ctrlpb.Reason_GROUP_ALIVE: "a group that serves can leave; if a majority of its disks is gone, stop the replicas that are left, " +
		"keep their directories for 'shoal reform', and run the command again",
	ctrlpb.Reason_REQUEST_EXPIRED: "run the command again",
	ctrlpb.Reason_STALE_REPORT:    "run the command again",
}

// advice is what to do about a refused change, as a part of the message; empty
// where the reason says it all.
func advice(err error) string {
	var refused *clerk.RefusedError
	if !errors.As(err, &refused) || advices[refused.Reason] == "" {
		return ""
	}
	return " (" + advices[refused.Reason] + ")"
}
