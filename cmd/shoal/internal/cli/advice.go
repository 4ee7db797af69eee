package cli

import (
	"errors"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
)

// advice is what to do about a refused change, as a part of the message; empty
// where the reason says it all.
func advice(err error) string {
	var refused *clerk.RefusedError
	if !errors.As(err, &refused) {
		return ""
	}
	text := ""
	switch refused.Reason {
	case ctrlpb.Reason_UNKNOWN_GROUP:
		text = "'shoal config' lists the groups"
	case ctrlpb.Reason_UNKNOWN_CONFIG:
		text = "'shoal config' shows the latest one"
	case ctrlpb.Reason_GROUP_LEAVING:
		text = "choose another group, or let this one join again"
	case ctrlpb.Reason_LAST_GROUP:
		text = "join another group first"
	case ctrlpb.Reason_GROUP_EXISTS:
		text = "choose another gid, or change the group's replicas with 'shoal replicas'"
	case ctrlpb.Reason_ADDRESS_IN_USE:
		text = "name the replicas of the group that is to join"
	case ctrlpb.Reason_REPLICA_MISMATCH:
		text = "start the replicas that are meant, or name others; --force does not ask them"
	case ctrlpb.Reason_CLUSTER_MISMATCH:
		text = "look at --controllers"
	case ctrlpb.Reason_GROUP_SILENT:
		text = "start its replicas, or retire it if their disks are gone"
	case ctrlpb.Reason_GROUP_ALIVE:
		text = "a group that lives can leave; --force retires it all the same"
	case ctrlpb.Reason_REQUEST_EXPIRED, ctrlpb.Reason_STALE_REPORT:
		text = "run the command again"
	}
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}
