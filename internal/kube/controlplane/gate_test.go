package controlplane

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/resource"
	"go.uber.org/zap"

	"talos/internal/layout"
	configres "talos/internal/resources/config"
	"talos/internal/resources/etcd"
	"talos/internal/resources/k8s"
	"talos/internal/resources/object"
	"talos/internal/store"
)

// TestGate: the API server's pod is there exactly while this node's etcd is a
// voting member; a pod of the user's needs none.
func TestGate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Log: slog.New(slog.DiscardHandler), Root: t.TempDir()}
	rt, err := runtime.NewRuntime(st, zap.NewNop())
	if err == nil {
		err = rt.RegisterController(fileController(o))
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	defer func() { cancel(); <-done }()

	mc := configres.NewMachineConfig(configres.ActiveID)
	if mc.TypedSpec().Document, err = generated(t, nil).Bytes(); err != nil {
		t.Fatal(err)
	}
	api, own, member := k8s.NewStaticPod(APIServer), k8s.NewStaticPod("default-own"), etcd.NewEtcdMember("local")
	for _, p := range []*k8s.StaticPod{api, own} {
		p.TypedSpec().Pod = object.Map{Values: m{"kind": "Pod"}}
	}
	for _, r := range []resource.Resource{mc, api, own} {
		if err := st.Create(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	there := func(id string) bool {
		_, err := os.Stat(filepath.Join(o.Root+layout.ManifestsDir, manifestFile(id)))
		return !errors.Is(err, fs.ErrNotExist)
	}
	await := func(what, id string, want bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); there(id) != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %s is there = %t, want %t", what, id, !want, want)
			}
		}
	}
	await("at first", "default-own", true)
	if there(APIServer) {
		t.Error("the API server's pod is there before etcd is a voting member")
	}
	if err := st.Create(ctx, member); err != nil {
		t.Fatal(err)
	}
	await("once it votes", APIServer, true)
	if err := st.Destroy(ctx, member.Metadata()); err != nil {
		t.Fatal(err)
	}
	await("once it has left", APIServer, false)
	if !there("default-own") {
		t.Error("the user's pod went with etcd")
	}
}
