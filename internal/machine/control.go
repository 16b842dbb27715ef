package machine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/internal/resources/secrets"
)

// Kubeconfig streams a gzipped tar with the administrator's kubeconfig.
func (s *Server) Kubeconfig(_ *emptypb.Empty, stream grpc.ServerStreamingServer[common.Data]) error {
	res, err := safe.StateGetByID[*secrets.KubernetesSecrets](stream.Context(), s.State, "k8s-secrets")
	if state.IsNotFoundError(err) {
		return status.Error(codes.FailedPrecondition, "kubeconfig: this node has no Kubernetes CA; ask a control plane node that is configured")
	} else if err != nil {
		return err
	}
	archive, err := tarOf("kubeconfig", []byte(res.TypedSpec().AdminKubeconfig))
	if err != nil {
		return err
	}
	return sendBytes(bytes.NewReader(archive), stream)
}

// tarOf makes a gzipped tar of one file.
func tarOf(name string, content []byte) ([]byte, error) {
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	out := tar.NewWriter(zip)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: time.Now()}
	err := out.WriteHeader(header)
	if err == nil {
		_, err = out.Write(content)
	}
	err = errors.Join(err, out.Close(), zip.Close())
	return buf.Bytes(), err
}
