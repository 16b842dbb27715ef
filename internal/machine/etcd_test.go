package machine

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/common"
	"talos/internal/etcd"
	"talos/internal/etcd/backup"
)

// TestEtcdError: callers tell errors apart by their codes, and read the reason.
func TestEtcdError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{fmt.Errorf("%w: quorum 2 of 3", etcd.ErrClusterExists), codes.AlreadyExists},
		{etcd.ErrAlreadyBootstrapped, codes.AlreadyExists},
		{fmt.Errorf("remove x: %w", etcd.ErrQuorum), codes.FailedPrecondition},
		{etcd.ErrNotControlPlane, codes.FailedPrecondition},
		{fmt.Errorf("%w: x", etcd.ErrNoMember), codes.NotFound},
		{fmt.Errorf("file: %w", backup.ErrDamaged), codes.InvalidArgument},
		{fmt.Errorf("%w: exit status 1", etcd.ErrRestore), codes.InvalidArgument},
		{fmt.Errorf("downgrade: %w", rpctypes.ErrInvalidDowngradeTargetVersion), codes.InvalidArgument},
		{errors.New("connection refused"), codes.Unavailable},
	} {
		got := status.Convert(etcdError(c.err))
		if got.Code() != c.want || !strings.Contains(got.Message(), c.err.Error()) {
			t.Errorf("etcdError(%v) = %v %q, want %v", c.err, got.Code(), got.Message(), c.want)
		}
	}
}

// TestReceived: messages of any size, empty ones too, are one stream of bytes;
// an end that is none is an error.
func TestReceived(t *testing.T) {
	for _, end := range []error{io.EOF, errors.New("connection lost")} {
		chunks := []string{"ab", "", "cdefghij", "k"}
		r := &received{next: func() (*common.Data, error) {
			if len(chunks) == 0 {
				return nil, end
			}
			data := &common.Data{Bytes: []byte(chunks[0])}
			chunks = chunks[1:]
			return data, nil
		}}
		got, err := io.ReadAll(io.LimitReader(r, 3))
		if err != nil || string(got) != "abc" {
			t.Errorf("the first three = %q, %v", got, err)
		}
		got, err = io.ReadAll(r)
		if string(got) != "defghijk" || errors.Is(end, io.EOF) != (err == nil) {
			t.Errorf("the rest = %q, %v, want defghijk and the end %v", got, err, end)
		}
	}
}
