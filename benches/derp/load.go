package main

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/types/key"
)

// window is how many packets a pair has under way at most. It is half of a
// relay's queue, so that none has a reason to drop one.
const window = 16

// A pair sends in one direction.
type pair struct {
	from, to client
	sent     atomic.Int64
	received atomic.Int64
	free     chan struct{}
}

func newPairs(c contestant, address string, count int) ([]*pair, error) {
	pairs := make([]*pair, count)
	for i := range pairs {
		from, err := c.dial(address)
		if err != nil {
			return nil, err
		}
		to, err := c.dial(address)
		if err != nil {
			return nil, err
		}
		pairs[i] = &pair{from: from, to: to, free: make(chan struct{}, window)}
		for range window {
			pairs[i].free <- struct{}{}
		}
	}
	return pairs, nil
}

func closeAll(pairs []*pair) {
	for _, p := range pairs {
		p.from.close()
		p.to.close()
	}
}

// receiveAll counts packets until the connection ends.
func (p *pair) receiveAll() {
	for {
		if _, err := p.to.receive(); err != nil {
			return
		}
		p.received.Add(1)
		select {
		case p.free <- struct{}{}:
		default:
		}
	}
}

// A pace is a number of packets at once and the pause between them; without a
// pause a pair sends as fast as packets arrive.
type pace struct {
	burst int
	pause time.Duration
}

// sendAll sends until stop.
func (p *pair) sendAll(size int, pace pace, stop <-chan struct{}) error {
	packet := make([]byte, size)
	to := p.to.key()
	next := time.Now()
	for {
		burst := 1
		if pace.pause > 0 {
			burst = pace.burst
			next = next.Add(pace.pause)
			time.Sleep(time.Until(next))
			select {
			case <-stop:
				return nil
			default:
			}
		} else {
			select {
			case <-stop:
				return nil
			case <-p.free:
			case <-time.After(time.Second): // lost packets take their place with them
			}
		}
		for range burst {
			if err := p.from.send(to, packet); err != nil {
				return err
			}
			p.sent.Add(1)
		}
	}
}

// A rate is what a relay achieved.
type rate struct {
	perSecond float64
	cpu       time.Duration // per packet
	lost, of  int64
}

// throughput loads a relay with pairs that send packets of one size.
func throughput(c contestant, p *process, address string, count, size int, pace pace, length time.Duration) (rate, error) {
	pairs, err := newPairs(c, address, count)
	if err != nil {
		return rate{}, err
	}
	defer closeAll(pairs)
	stop := make(chan struct{})
	faults := make(chan error, count)
	var senders sync.WaitGroup
	for _, p := range pairs {
		go p.receiveAll()
		senders.Go(func() {
			if err := p.sendAll(size, pace, stop); err != nil {
				faults <- err
			}
		})
	}
	total := func() (sent, received int64) {
		for _, p := range pairs {
			sent += p.sent.Load()
			received += p.received.Load()
		}
		return
	}
	time.Sleep(length / 5)
	_, before := total()
	cpuBefore, began := p.cpu(), time.Now()
	time.Sleep(length)
	_, after := total()
	spent, took := p.cpu()-cpuBefore, time.Since(began)
	close(stop)
	senders.Wait()
	time.Sleep(50 * time.Millisecond)
	sent, received := total()
	select {
	case err := <-faults:
		return rate{}, err
	default:
	}
	packets := after - before
	if packets == 0 {
		return rate{}, fmt.Errorf("no packet arrived")
	}
	return rate{
		perSecond: float64(packets) / took.Seconds(),
		cpu:       spent / time.Duration(packets),
		lost:      sent - received,
		of:        sent,
	}, nil
}

// roundTrips measures the way there and back for a number of small packets,
// while load sends beside it if it is not zero (packets of 1280 bytes each
// second).
func roundTrips(c contestant, address string, times int, load int) (p50, p99 time.Duration, err error) {
	const loaders = 4
	stop := make(chan struct{})
	var senders sync.WaitGroup
	if load > 0 {
		pairs, err := newPairs(c, address, loaders)
		if err != nil {
			return 0, 0, err
		}
		defer closeAll(pairs)
		for _, p := range pairs {
			go p.receiveAll()
			senders.Go(func() { p.sendAll(1280, pace{1, time.Second * loaders / time.Duration(load)}, stop) })
		}
		time.Sleep(100 * time.Millisecond)
	}
	defer func() { close(stop); senders.Wait() }()
	pairs, err := newPairs(c, address, 1)
	if err != nil {
		return 0, 0, err
	}
	defer closeAll(pairs)
	here, there := pairs[0].from, pairs[0].to
	go echo(there, here.key())
	packet := make([]byte, 100)
	var taken []time.Duration
	for i := range times {
		time.Sleep(500 * time.Microsecond)
		binary.BigEndian.PutUint64(packet, uint64(i))
		began := time.Now()
		if err := here.send(there.key(), packet); err != nil {
			return 0, 0, err
		}
		answer, err := here.receive()
		if err != nil {
			return 0, 0, err
		}
		taken = append(taken, time.Since(began))
		if got := binary.BigEndian.Uint64(answer); got != uint64(i) {
			return 0, 0, fmt.Errorf("packet %d came back as %d", i, got)
		}
	}
	slices.Sort(taken)
	return taken[len(taken)/2], taken[len(taken)*99/100], nil
}

func echo(c client, to key.NodePublic) {
	for {
		packet, err := c.receive()
		if err != nil {
			return
		}
		if c.send(to, packet) != nil {
			return
		}
	}
}

// idleMemory is what one connection that says nothing costs, in bytes, and
// what the process holds without any.
func idleMemory(c contestant, p *process, address string, count int) (each, base int, err error) {
	first, err := c.dial(address)
	if err != nil {
		return 0, 0, err
	}
	first.close()
	time.Sleep(300 * time.Millisecond)
	base = p.resident()
	clients := make(chan client, count)
	faults := make(chan error, count)
	const dialers = 4
	var dialing sync.WaitGroup
	for i := range dialers {
		dialing.Go(func() {
			for range (count + i) / dialers {
				client, err := c.dial(address)
				if err != nil {
					faults <- err
					return
				}
				clients <- client
			}
		})
	}
	dialing.Wait()
	close(clients)
	time.Sleep(2 * time.Second)
	grown := p.resident() - base
	for client := range clients {
		client.close()
	}
	select {
	case err := <-faults:
		return 0, base, err
	default:
		return grown / count, base, nil
	}
}
