package machine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/cluster"
)

func TestRunCheckReportsEachReasonOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []error{errors.New("no"), errors.New("no"), errors.New("soon"), nil}
		var said []string
		err := runCheck(t.Context(), check{"x", func(context.Context) error {
			answer := answers[0]
			answers = answers[1:]
			return answer
		}}, func(p *cluster.HealthCheckProgress) error {
			said = append(said, p.GetMessage())
			return nil
		})
		if want := []string{"waiting for x: no", "waiting for x: soon", "waiting for x: OK"}; err != nil || !slices.Equal(said, want) {
			t.Errorf("runCheck said %q, %v; want %q", said, err, want)
		}
	})
}

// TestRunCheckGivesUp: the last reason is what the caller gets, and a try that
// hangs counts as failed.
func TestRunCheckGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := runCheck(ctx, check{"x", func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("hangs")
		}}, func(*cluster.HealthCheckProgress) error { return nil })
		if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "hangs") {
			t.Errorf("runCheck = %v, want deadline exceeded with the last reason", err)
		}
	})
}
