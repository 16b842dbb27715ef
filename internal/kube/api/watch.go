package api

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// Follow calls set with every object that exists and with each later change,
// and gone with each that went, until ctx ends or the watch breaks; begin is
// called before the first object, so that the caller drops what it knew.
// Objects arrive without their managed fields. It keeps nothing itself.
func Follow(ctx context.Context, from dynamic.ResourceInterface, opts metav1.ListOptions, begin func(), set, gone func(*unstructured.Unstructured)) error {
	list, err := from.List(ctx, opts)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	begin()
	for i := range list.Items {
		list.Items[i].SetManagedFields(nil)
		set(&list.Items[i])
	}
	opts.ResourceVersion, opts.AllowWatchBookmarks = list.GetResourceVersion(), true
	for ctx.Err() == nil {
		version, err := follow(ctx, from, opts, set, gone)
		if err != nil {
			return err
		}
		opts.ResourceVersion = version
	}
	return ctx.Err()
}

// follow watches until the server ends the watch, which it does every few
// minutes, and returns the version to go on from.
func follow(ctx context.Context, from dynamic.ResourceInterface, opts metav1.ListOptions, set, gone func(*unstructured.Unstructured)) (string, error) {
	version := opts.ResourceVersion
	w, err := from.Watch(ctx, opts)
	if err != nil {
		return "", fmt.Errorf("watch: %w", err)
	}
	defer w.Stop()
	events := 0
	for {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case e, ok := <-w.ResultChan():
			if !ok {
				if events == 0 {
					return "", errors.New("watch ended at once")
				}
				return version, nil
			}
			events++
			if e.Type == watch.Error {
				return "", fmt.Errorf("watch: %w", apierrors.FromObject(e.Object))
			}
			obj, ok := e.Object.(*unstructured.Unstructured)
			if !ok {
				return "", fmt.Errorf("watch: unexpected %T", e.Object)
			}
			version = obj.GetResourceVersion()
			obj.SetManagedFields(nil)
			switch e.Type {
			case watch.Added, watch.Modified:
				set(obj)
			case watch.Deleted:
				gone(obj)
			}
		}
	}
}
