package node

import (
	"context"
	"log/slog"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"

	"talos/internal/kube/controlplane"
	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
	"talos/internal/resources/object"
)

// newPodController shows the status of this node's static pods.
func newPodController(o Options) controller.Controller {
	w := &watcher{options: o}
	return &reconcile.Controller{
		ID:    "k8s.StaticPodStatusController",
		Log:   o.Log,
		In:    watchInputs,
		Out:   []resource.Kind{reconcile.Kind[*k8s.StaticPodStatus]()},
		Close: w.task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			_, ok, err := w.ensure(ctx, r, log, pods, func(name string) metav1.ListOptions {
				return metav1.ListOptions{
					FieldSelector: fields.OneTermEqualSelector("spec.nodeName", name).String(),
					LabelSelector: controlplane.StaticLabel + "=true",
				}
			})
			if err != nil || !ok {
				return err
			}
			objects, _ := w.seen.all()
			for id, obj := range objects {
				status, _, _ := unstructured.NestedMap(obj.Object, "status")
				err := safe.WriterModify(ctx, r, k8s.NewStaticPodStatus(id), func(s *k8s.StaticPodStatus) error {
					s.TypedSpec().PodStatus = object.Map{Values: status}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}
