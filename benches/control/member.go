package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// member is the device at one place of a soak's tailnet, if there is one.
type member struct {
	soak *soak
	slot int

	mu     sync.Mutex
	device *device
	// id is the node's, by its own map.
	id tailcfg.NodeID
	// secret is the preauth key with which it joined.
	secret string
	// stays tells whether its stream should be open.
	stays bool
}

// act does what a decision about this device says.
func (m *member) act(ctx context.Context, d decision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	device := m.device
	path := func(verb string) string { return fmt.Sprint("node/", int64(m.id), verb) }
	admin := m.soak.admin
	switch d.kind {
	case join:
		return m.join(ctx, d)
	case login:
		device.node = key.NewNode()
		return m.connect(ctx, func() error { return device.joinWith(ctx, m.secret) })
	case logout:
		return m.logOut(ctx, d)
	case vanish:
		m.leave()
		m.soak.fade(device)
		m.device = nil
		return nil
	case reconnect, back:
		return m.connect(ctx, func() error { return device.comeBack(ctx) })
	case away:
		m.leave()
		return nil
	case endpoint:
		device.moved = d.number % (1 << 16)
		return device.update(ctx)
	case update:
		device.version = d.number
		return device.update(ctx)
	case rehost:
		device.hostname = d.text
		return device.update(ctx)
	case offer:
		device.routes = nil
		for _, route := range strings.Split(d.text, ",") {
			device.routes = append(device.routes, netip.MustParsePrefix(route))
		}
		return device.update(ctx)
	case expire:
		return admin.ask(ctx, "POST", path("/expire"), nil, nil)
	case remove:
		return m.remove(ctx)
	case rename:
		return admin.ask(ctx, "POST", path("/rename/"+d.text), nil, nil)
	case tag:
		return admin.ask(ctx, "POST", path("/tags"), map[string]any{"tags": strings.Split(d.text, ",")}, nil)
	case give:
		return admin.ask(ctx, "POST", path("/user"), map[string]string{"user": m.soak.userID(d.text)}, nil)
	case approve:
		routes := strings.Split(d.text, ",")
		if d.text == "" {
			routes = []string{}
		}
		return admin.ask(ctx, "POST", path("/approve_routes"), map[string]any{"routes": routes}, nil)
	}
	return fmt.Errorf("nobody knows how to %s", d.kind)
}

// join makes a new device, unless an earlier attempt did, and lets it join.
func (m *member) join(ctx context.Context, d decision) error {
	if m.device == nil {
		m.device = m.soak.fleet.newDevice(m.slot)
		m.device.observer = newObserver(&m.soak.nodes)
		m.device.dialer = m.soak.conns.dialer(m.soak.address)
		m.secret = m.soak.secret(d.text)
	}
	return m.connect(ctx, func() error { return m.device.joinWith(ctx, m.secret) })
}

// logOut logs the device out, which is the end of an ephemeral one.
func (m *member) logOut(ctx context.Context, d decision) error {
	if !m.stays {
		if err := m.device.dial(ctx); err != nil {
			return err
		}
	}
	err := m.device.logOut(ctx)
	m.leave()
	if err == nil && !m.soak.place(m.slot).after(d).member {
		m.device = nil
	}
	return err
}

// connect replaces the connection by a new one, whose stream stays open from then on.
func (m *member) connect(ctx context.Context, open func() error) error {
	m.leave()
	if err := open(); err != nil {
		m.device.hangUp()
		return err
	}
	self := m.device.observer.itself()
	if self == nil {
		return errors.New("the map has no node of the device itself")
	}
	m.id = self.ID
	m.stays = true
	go m.watch(m.device, m.device.wire, m.device.stream)
	return nil
}

// leave drops the connection, if there is one.
func (m *member) leave() {
	m.stays = false
	if m.device != nil {
		m.device.hangUp()
	}
}

// watch waits until a stream ends, and opens another if nobody meant it to.
func (m *member) watch(device *device, wire *wire, stream *call) {
	select {
	case <-stream.done:
	case <-wire.gone:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.device != device || device.wire != wire || !m.stays || m.soak.isDown.Load() {
		return
	}
	m.soak.dropped.Add(1)
	err := within(patience, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if m.soak.isDown.Load() {
			return nil
		}
		return m.connect(ctx, func() error { return device.comeBack(ctx) })
	})
	if err != nil && !m.soak.isDown.Load() {
		m.soak.fail("device %d lost its stream and cannot come back: %w", m.slot, err)
	}
}

// remove deletes the node, of which its device has to learn.
func (m *member) remove(ctx context.Context) error {
	// Whatever happens now is expected.
	wasOnline := m.stays
	m.stays = false
	err := m.soak.admin.ask(ctx, "DELETE", fmt.Sprint("node/", int64(m.id)), nil, nil)
	if status := (statusError{}); !wasOnline && errors.As(err, &status) && status.code == http.StatusNotFound {
		// An attempt whose answer was lost has done it.
		err = nil
	}
	if err != nil {
		return err
	}
	if wasOnline {
		err := within(patience, func() error {
			if m.device.observer.isExpired() || m.soak.isDown.Load() {
				return nil
			}
			return errors.New("a deleted device was not told that its key has expired")
		})
		if err != nil {
			m.soak.fail("device %d: %w", m.slot, err)
		}
	}
	m.leave()
	m.device = nil
	return nil
}

// relayKey is its node key, while it may use the relay.
func (m *member) relayKey() (key.NodePrivate, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.device == nil || !m.stays || m.device.observer.isExpired() || m.soak.isDown.Load() {
		return key.NodePrivate{}, false
	}
	return m.device.node, true
}

// compare says in what the map of its stream differs from a fresh one, and from what devices told.
func (m *member) compare(told map[tailcfg.NodeID]netip.AddrPort) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stays {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	text, err := m.device.mapOnce(ctx)
	if err != nil {
		return nil, err
	}
	fresh := newObserver(&m.soak.nodes)
	fresh.apply(text)
	if err := errors.Join(fresh.fault(), m.device.observer.fault()); err != nil {
		return nil, err
	}
	return append(m.device.observer.differences(fresh), untruths(fresh, told)...), nil
}

// renew opens another stream, and says in what the messages of the one before differ from its own.
func (m *member) renew() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stays {
		return nil, nil
	}
	before := m.device.observer
	m.device.observer = newObserver(&m.soak.nodes)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := m.connect(ctx, func() error { return m.device.comeBack(ctx) }); err != nil {
		return nil, err
	}
	return before.messageDifferences(m.device.observer), nil
}

// patience is how long one thing may take on a machine that is very busy with other things.
const patience = 3 * time.Minute
