package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// fleet is all devices of one tailnet.
type fleet struct {
	server   *server
	size     int
	devices  []*device
	observer *observer
	// unmeasured devices do not look for marks in their messages.
	unmeasured bool

	messages, plainBytes atomic.Int64
	// unknown counts the pairs of devices of which the one has not been told where the other is.
	unknown   atomic.Int64
	converged chan struct{}
	change    atomic.Pointer[change]
	fault     atomic.Pointer[error]
}

func newFleet(s *server, size int) *fleet {
	f := &fleet{server: s, size: size, observer: newObserver(new(nodes))}
	for number := range size {
		f.devices = append(f.devices, f.newDevice(number))
	}
	f.devices[0].observer = f.observer
	f.forget()
	return f
}

// forget lets no device know any other.
func (f *fleet) forget() {
	f.converged = make(chan struct{})
	f.unknown.Store(int64(f.size) * int64(f.size-1))
}

// learned notes that so many pairs became known.
func (f *fleet) learned(pairs int) {
	if pairs > 0 && f.unknown.Add(-int64(pairs)) == 0 {
		close(f.converged)
	}
}

func (f *fleet) fail(err error) { f.fault.CompareAndSwap(nil, &err) }

// converge waits until all devices know all.
func (f *fleet) converge(ctx context.Context) error {
	select {
	case <-f.converged:
	case <-ctx.Done():
		return fmt.Errorf("%d pairs of devices never got to know each other: %w", f.unknown.Load(), ctx.Err())
	}
	if fault := f.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

// all does something with all devices, so many at a time.
func (f *fleet) all(atOnce int, do func(*device) error) error {
	var wait sync.WaitGroup
	queue := make(chan *device)
	for range atOnce {
		wait.Go(func() {
			for d := range queue {
				if err := do(d); err != nil {
					f.fail(fmt.Errorf("device %d: %w", d.number, err))
				}
			}
		})
	}
	for _, d := range f.devices {
		if f.fault.Load() != nil {
			break
		}
		queue <- d
	}
	close(queue)
	wait.Wait()
	if fault := f.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

// changeOne changes the endpoint of one device and returns when the last of the
// others was told.
func (f *fleet) changeOne(ctx context.Context, number int) (time.Duration, error) {
	d := f.devices[number%f.size]
	c := &change{number: number + 1, done: make(chan struct{})}
	c.left.Store(int32(f.size - 1))
	d.change = c.number // it is not told of itself
	d.moved = c.number
	c.begin = time.Now()
	f.change.Store(c)
	if err := d.update(ctx); err != nil {
		return 0, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("%d devices were not told of a change: %w", c.left.Load(), ctx.Err())
	}
	return time.Duration(c.last.Load()), nil
}

// cut drops all connections.
func (f *fleet) cut() {
	for _, d := range f.devices {
		d.wire.close()
	}
	for _, d := range f.devices {
		<-d.stream.done
	}
	f.forget()
}

func (f *fleet) leave() {
	for _, d := range f.devices {
		if d.wire != nil {
			d.wire.close()
		}
	}
}
