package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"

	"hearth.test/interop/harness"
)

// device is one stock client, embedded by tsnet.
type device struct {
	*tsnet.Server
	t     *testing.T
	local *local.Client
	log   *clientLog
}

// newDevice prepares a device that keeps its state in dir ("" makes a fresh
// one), without starting it.
func newDevice(t *testing.T, s *harness.Server, dir, hostname, authKey string) *device {
	t.Helper()
	if dir == "" {
		dir = filepath.Join(t.TempDir(), hostname)
	}
	d := &device{t: t, log: new(clientLog)}
	d.Server = &tsnet.Server{
		Dir: dir, ControlURL: s.URL, AuthKey: authKey, Hostname: hostname,
		Logf: d.log.printf, UserLogf: d.log.printf,
	}
	t.Cleanup(func() {
		if os.Getenv("HEARTH_TEST_VERBOSE") != "" {
			t.Logf("log of %s:\n%s", hostname, d.log)
		}
	})
	return d
}

// begin starts the device without waiting for it to be up.
func (d *device) begin() *device {
	d.t.Helper()
	if err := d.Start(); err != nil {
		d.t.Fatalf("%s starts: %v", d.Hostname, err)
	}
	client, err := d.LocalClient()
	if err != nil {
		d.t.Fatalf("%s starts: %v", d.Hostname, err)
	}
	d.local = client
	d.t.Cleanup(func() { d.Close() })
	return d
}

// up starts the device and waits until it is running.
func (d *device) up() *device {
	d.t.Helper()
	d.begin()
	if _, err := d.Up(harness.Within(d.t, harness.Patience)); err != nil {
		d.t.Fatalf("%s comes up: %v\n%s", d.Hostname, err, d.log.tail())
	}
	return d
}

// join is newDevice and up with a state directory of its own.
func join(t *testing.T, s *harness.Server, hostname, authKey string) *device {
	t.Helper()
	return newDevice(t, s, "", hostname, authKey).up()
}

func (d *device) status() *ipnstate.Status {
	d.t.Helper()
	status, err := d.local.Status(harness.Within(d.t, harness.Patience))
	if err != nil {
		d.t.Fatalf("status of %s: %v", d.Hostname, err)
	}
	return status
}

// peer is what the device knows of the other one, nil if it does not see it.
func (d *device) peer(hostname string) *ipnstate.PeerStatus {
	d.t.Helper()
	for _, peer := range d.status().Peer {
		if strings.HasPrefix(peer.DNSName, hostname+".") {
			return peer
		}
	}
	return nil
}

// sees waits until the device has the other one in its map, online.
func (d *device) sees(hostname string) *ipnstate.PeerStatus {
	d.t.Helper()
	var peer *ipnstate.PeerStatus
	harness.Eventually(d.t, harness.Patience, d.Hostname+" sees "+hostname+" online", func() error {
		peer = d.peer(hostname)
		return harness.Check(peer != nil && peer.Online && !peer.Expired, "its entry is %+v", peer)
	})
	return peer
}

// losesSight waits until the other device is gone from the map.
func (d *device) losesSight(hostname string) {
	d.t.Helper()
	harness.Eventually(d.t, harness.Patience, d.Hostname+" no longer sees "+hostname, func() error {
		return harness.Check(d.peer(hostname) == nil, "it is still in the map")
	})
}

// addresses are the IPv4 and IPv6 address of the device.
func (d *device) addresses() (v4, v6 netip.Addr) {
	d.t.Helper()
	v4, v6 = d.TailscaleIPs()
	if !v4.IsValid() || !v6.IsValid() {
		d.t.Fatalf("%s has addresses %v and %v", d.Hostname, v4, v6)
	}
	return v4, v6
}

// echoPort is where echo serves.
const echoPort = "7"

// echo answers every TCP connection with the bytes it is sent.
func (d *device) echo() *device {
	d.t.Helper()
	listener, err := d.Listen("tcp", ":"+echoPort)
	if err != nil {
		d.t.Fatalf("%s listens: %v", d.Hostname, err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return d
}

// exchange sends size random bytes to the echo service of a host, and returns
// nil when the same bytes came back.
func (d *device) exchange(ctx context.Context, host string, size int) error {
	conn, err := d.Dial(ctx, "tcp", net.JoinHostPort(host, echoPort))
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	sent := make([]byte, size)
	rand.Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, bytes.NewReader(sent))
		written <- err
	}()
	received := make([]byte, size)
	if n, err := io.ReadFull(conn, received); err != nil {
		return fmt.Errorf("%d of %d bytes came back: %w", n, size, err)
	}
	if err := <-written; err != nil {
		return err
	}
	if sha256.Sum256(sent) != sha256.Sum256(received) {
		return fmt.Errorf("the %d bytes that came back are not those sent", size)
	}
	return nil
}

// mustExchange is exchange that has to work.
func (d *device) mustExchange(host string, size int) {
	d.t.Helper()
	if err := d.exchange(harness.Within(d.t, harness.Patience), host, size); err != nil {
		d.t.Fatalf("%s exchanges %d bytes with %s: %v", d.Hostname, size, host, err)
	}
}

// ping sends one disco ping.
func (d *device) ping(to netip.Addr) *ipnstate.PingResult {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	result, err := d.local.Ping(ctx, to, tailcfg.PingDisco)
	if err != nil {
		return &ipnstate.PingResult{Err: err.Error()}
	}
	return result
}

// clientLog keeps the last of what a client logged.
type clientLog struct {
	mu   sync.Mutex
	text []byte
}

func (l *clientLog) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = fmt.Appendf(l.text, "%s ", time.Now().Format("15:04:05.000"))
	l.text = fmt.Appendf(l.text, format, args...)
	l.text = append(l.text, '\n')
	if over := len(l.text) - 512<<10; over > 0 {
		l.text = l.text[over:]
	}
}

func (l *clientLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

func (l *clientLog) tail() string {
	text := l.String()
	return text[max(0, len(text)-6000):]
}

// contains says whether the client logged the text.
func (l *clientLog) contains(text string) bool { return strings.Contains(l.String(), text) }
