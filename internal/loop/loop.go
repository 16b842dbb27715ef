// Package loop holds what every long-running loop needs: a pause that ends with
// its context, and a call whose panic is an error.
//
// It owns no goroutine; who starts one waits for it. It is safe for concurrent
// use.
package loop

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// Sleep waits for d; it returns false when ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Protect calls fn and turns a panic of it, whatever its value, into an error
// that shows the stack.
func Protect(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}
