package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// pair is two devices that talk over the relay for as long as both are members: the first
// sends a few packets, the second sends them back.
type pair struct {
	// keys are those of the devices, while both may use the relay.
	keys func() (one, other key.NodePrivate, both bool)
	dial func(context.Context) (net.Conn, error)
	// fail gets what should not be.
	fail func(error)

	sent, returned, logins atomic.Int64
}

const (
	// packetsAtOnce fit into what the relay queues for a client.
	packetsAtOnce = 8
	packetBytes   = 1000
	// trafficPause is the pause between rounds, and between logins.
	trafficPause = 250 * time.Millisecond
)

// run sends until stop.
func (p *pair) run(stop <-chan struct{}) {
	for {
		if one, other, both := p.keys(); both {
			p.talk(one, other, stop)
		}
		select {
		case <-stop:
			return
		case <-time.After(trafficPause):
		}
	}
}

// end is one end of a pair.
type end struct {
	conn   net.Conn
	client *derp.Client
	// gone is closed when the connection has ended.
	gone chan struct{}
}

// login connects to the relay; receive gets what arrives.
func (p *pair) login(node key.NodePrivate, receive func(*derp.Client, []byte)) (*end, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	client, err := relayLogin(ctx, conn, node)
	if err != nil {
		conn.Close()
		return nil, err
	}
	p.logins.Add(1)
	e := &end{conn, client, make(chan struct{})}
	go func() {
		defer close(e.gone)
		for {
			received, err := client.Recv()
			if err != nil {
				conn.Close()
				return
			}
			if packet, is := received.(derp.ReceivedPacket); is {
				receive(client, packet.Data)
			}
		}
	}()
	return e, nil
}

func (e *end) close() {
	e.conn.Close()
	<-e.gone
}

// talk goes on until one of the two ends or is another.
func (p *pair) talk(one, other key.NodePrivate, stop <-chan struct{}) {
	arrived := make(chan byte, packetsAtOnce)
	here, err := p.login(one, func(_ *derp.Client, packet []byte) {
		select {
		case arrived <- packet[0]:
		default:
		}
	})
	if err != nil {
		return
	}
	defer here.close()
	there, err := p.login(other, func(client *derp.Client, packet []byte) { client.Send(one.Public(), packet) })
	if err != nil {
		return
	}
	defer there.close()
	for round := byte(0); ; round++ {
		if still, stays, both := p.keys(); !both || !still.Equal(one) || !stays.Equal(other) {
			return
		}
		if !p.round(here, there, other.Public(), round, arrived) {
			return
		}
		select {
		case <-stop:
			return
		case <-here.gone:
			return
		case <-there.gone:
			return
		case <-time.After(trafficPause):
		}
	}
}

// round sends a few packets and waits until they are back, or one of the ends is gone.
func (p *pair) round(here, there *end, to key.NodePublic, round byte, arrived <-chan byte) bool {
	packet := bytes.Repeat([]byte{round}, packetBytes)
	for range packetsAtOnce {
		if here.client.Send(to, packet) != nil {
			return false
		}
		p.sent.Add(1)
	}
	late := time.After(patience)
	for count := 0; count < packetsAtOnce; {
		select {
		case got := <-arrived:
			if got == round {
				count++
				p.returned.Add(1)
			}
		case <-here.gone:
			return false
		case <-there.gone:
			return false
		case <-late:
			p.fail(errors.New("the relay lost packets while both ends stayed connected"))
			return false
		}
	}
	return true
}

// openConns counts the connections to the server that are open.
type openConns struct{ count atomic.Int64 }

// dialer gives counted connections to an address.
func (o *openConns) dialer(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		o.count.Add(1)
		return &openConn{Conn: conn, open: o}, nil
	}
}

type openConn struct {
	net.Conn
	open *openConns
	once sync.Once
}

func (c *openConn) Close() error {
	c.once.Do(func() { c.open.count.Add(-1) })
	return c.Conn.Close()
}
