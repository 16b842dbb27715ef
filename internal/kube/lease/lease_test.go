package lease

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestStale(t *testing.T) {
	boot := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name, holder string
		renewed      time.Time
		want         bool
	}{
		{"ours, before the start", "cp-1_f00", boot.Add(-time.Minute), true},
		{"ours, since the start", "cp-1_f00", boot.Add(time.Second), false},
		{"another machine's", "cp-2_f00", boot.Add(-time.Minute), false},
		{"a machine whose name begins like ours", "cp-10_f00", boot.Add(-time.Minute), false},
		{"nobody's", "", boot.Add(-time.Minute), false},
		{"never renewed", "cp-1_f00", time.Time{}, false},
	} {
		if got := Stale(c.holder, c.renewed, "cp-1", boot); got != c.want {
			t.Errorf("%s: Stale = %t, want %t", c.name, got, c.want)
		}
	}
}

func TestHolding(t *testing.T) {
	lease := func(spec map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	}
	got, err := holding(lease(map[string]any{"holderIdentity": "cp-1_f00", "renewTime": "2026-01-02T03:04:05.678901Z"}))
	if want := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC); err != nil || got.holder != "cp-1_f00" || !got.renewed.Equal(want) {
		t.Errorf("holding = %v, %v, want cp-1_f00 at %v", got, err, want)
	}
	if got, err := holding(lease(map[string]any{})); err != nil || got != (held{}) {
		t.Errorf("holding of a lease that nobody has = %v, %v", got, err)
	}
	if _, err := holding(lease(map[string]any{"holderIdentity": "x", "renewTime": "yesterday"})); err == nil {
		t.Error("holding of a lease with a malformed time = nil, want an error")
	}
}

func TestMayTake(t *testing.T) {
	for _, c := range []struct {
		name, holder        string
		unchanged, patience time.Duration
		want                bool
	}{
		{"nobody's", "", 0, 0, true},
		{"nobody's, but others want it more", "", 9 * time.Second, 10 * time.Second, false},
		{"nobody's for long enough", "", 10 * time.Second, 10 * time.Second, true},
		{"ours from before", "cp-1", 0, 10 * time.Second, true},
		{"another's", "cp-2", Duration - time.Second, 0, false},
		{"another's that ran out", "cp-2", Duration, 0, true},
		{"another's that ran out, with patience", "cp-2", Duration, 10 * time.Second, false},
	} {
		if got := mayTake(c.holder, "cp-1", c.unchanged, c.patience); got != c.want {
			t.Errorf("%s: mayTake = %t, want %t", c.name, got, c.want)
		}
	}
}
