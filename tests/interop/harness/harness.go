// Package harness starts hearth and drives it the way a person would: by its
// command line, its listeners and its Unix socket. It knows nothing of the
// server's insides, so that a test written on it is a statement about what the
// outside sees.
package harness

import (
	"context"
	"fmt"
	"time"
)

// T is the part of testing.TB that the harness needs. The figures command
// implements it too, so that measuring and testing share one set of helpers.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// Patience is how long the harness waits for something that should happen at
// once on an idle machine. It is generous because an emulated MIPS server on a
// busy two-core machine is slow, and costs nothing when things go well.
const Patience = 45 * time.Second

// Eventually polls check until it returns nil, and fails the test with its last
// error when the deadline passes.
func Eventually(t T, patience time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(pause)
	}
}

// Within returns a context that ends after the given time, cancelled at the end
// of the test at the latest.
func Within(t T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// Check turns a condition into the error that Eventually wants.
func Check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}
