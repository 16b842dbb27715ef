package acquire

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/resources/v1alpha1"
)

// TestProgress: a transcript of each way to a configuration.
func TestProgress(t *testing.T) {
	asked := event{asked: true}
	refusedConn := event{failed: errors.New("configuration server https://c/: connection refused")}
	type status = v1alpha1.AcquireConfigStatusSpec
	for _, tt := range []struct {
		name   string
		events []event
		want   status
	}{
		{"on STATE", []event{{stored: true}}, status{Stage: Configured, Message: "the configuration was found at the start"}},
		{"asking", []event{asked}, status{Stage: Asking, Tries: 1, Message: "waiting for configuration: asking the platform metal"}},
		{"none", []event{asked, {none: true}}, status{Stage: Maintenance, Tries: 1, Message: "waiting for configuration over the API: the platform metal has none"}},
		{"a server that is away", []event{asked, refusedConn}, status{Stage: Waiting, Tries: 1, Message: "waiting for configuration: configuration server https://c/: connection refused"}},
		{"for longer", []event{asked, refusedConn, asked, refusedConn, asked, refusedConn},
			status{Stage: Waiting, Tries: 3, Message: "waiting for configuration: configuration server https://c/: connection refused (tried 3 times)"}},
		{"while it is asked again", []event{asked, refusedConn, asked},
			status{Stage: Asking, Tries: 2, Message: "waiting for configuration: configuration server https://c/: connection refused"}},
		{"a mistake", []event{asked, {failed: errors.New("kernel argument talos.config=x"), final: true}},
			status{Stage: Maintenance, Tries: 1, Message: "waiting for configuration over the API: kernel argument talos.config=x", Problems: []string{"kernel argument talos.config=x"}}},
		{"one problem", []event{asked, {refused: []string{"a is bad"}, from: "https://c/"}},
			status{Stage: Waiting, Tries: 1, Message: "waiting for configuration: the one from https://c/ is not usable: a is bad", Problems: []string{"a is bad"}}},
		{"more of them", []event{asked, {refused: []string{"a is bad"}, from: "x"}, asked, {refused: []string{"a is bad", "b is bad"}, from: "https://c/"}}, status{
			Stage: Waiting, Tries: 2, Problems: []string{"a is bad", "b is bad"},
			Message: "waiting for configuration: the one from https://c/ is not usable: 2 problems, the first: a is bad (tried 2 times)"}},
		{"a good one at last", []event{asked, {refused: []string{"a is bad"}}, asked, {taken: true, from: "https://c/"}},
			status{Stage: Configured, Tries: 2, Message: "the configuration is from https://c/"}},
		{"one over the API meanwhile", []event{asked, refusedConn, asked, {applied: true}, refusedConn, asked},
			status{Stage: Configured, Tries: 2, Message: "the configuration was applied over the API"}},
	} {
		s := status{Platform: "metal"}
		for _, e := range tt.events {
			s = next(s, e)
		}
		tt.want.Platform = "metal"
		if diff := cmp.Diff(tt.want, s); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
