package ctrlpb

import "google.golang.org/grpc/status"

// ReasonOf returns why the controllers refused a call, by its error, which may be
// wrapped; REASON_UNKNOWN if they did not refuse it.
func ReasonOf(err error) Reason {
	for _, detail := range status.Convert(err).Details() {
		if refusal, ok := detail.(*Refusal); ok {
			return refusal.GetReason()
		}
	}
	return Reason_REASON_UNKNOWN
}
