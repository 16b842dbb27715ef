package acquire

import (
	"fmt"
	"strings"

	"talos/internal/resources/v1alpha1"
)

// The stages on the way to a configuration.
const (
	Reading     = "reading"     // what is on STATE
	Asking      = "asking"      // the platform, now
	Waiting     = "waiting"     // for the platform to give a good one, or for one over the API
	Maintenance = "maintenance" // for one over the API: the platform has none
	Configured  = "configured"
)

// event is something that happened on the way.
type event struct {
	stored  bool     // a configuration was on STATE, or at hand
	asked   bool     // the platform is asked
	none    bool     // it has none
	failed  error    // it could not answer
	final   bool     // and won't, however often it is asked
	refused []string // what is wrong with what it gave
	taken   bool     // what it gave is good
	applied bool     // one came over the API
	from    string   // where a document is from
}

// next is the status after an event.
func next(s v1alpha1.AcquireConfigStatusSpec, e event) v1alpha1.AcquireConfigStatusSpec {
	switch {
	case e.stored:
		s.Stage, s.Message = Configured, "the configuration was found at the start"
	case e.applied:
		s.Stage, s.Message, s.Problems = Configured, "the configuration was applied over the API", nil
	case e.taken:
		s.Stage, s.Message, s.Problems = Configured, "the configuration is from "+e.from, nil
	case s.Stage == Configured: // the end
	case e.asked:
		s.Tries++
		if s.Stage != Waiting { // else the outcome of the last try says more
			s.Message = "waiting for configuration: asking the platform " + s.Platform
		}
		s.Stage = Asking
	case e.none:
		s.Stage, s.Message, s.Problems = Maintenance, "waiting for configuration over the API: the platform "+s.Platform+" has none", nil
	case e.failed != nil && e.final:
		s.Stage, s.Message, s.Problems = Maintenance, fmt.Sprintf("waiting for configuration over the API: %v", e.failed), []string{e.failed.Error()}
	case e.failed != nil:
		s.Stage, s.Message, s.Problems = Waiting, fmt.Sprintf("waiting for configuration: %v%s", e.failed, times(s.Tries)), nil
	case len(e.refused) > 0:
		s.Stage, s.Problems = Waiting, e.refused
		s.Message = fmt.Sprintf("waiting for configuration: the one from %s is not usable: %s%s", e.from, summary(e.refused), times(s.Tries))
	}
	return s
}

// times says how often something was tried, from the second time on.
func times(n int) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(" (tried %d times)", n)
}

// summary is a list of problems on one line.
func summary(problems []string) string {
	first := strings.TrimSpace(problems[0])
	if len(problems) == 1 {
		return first
	}
	return fmt.Sprintf("%d problems, the first: %s", len(problems), first)
}
