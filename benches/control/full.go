package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// full fills a hearth up to all limits of one board or class of memory at once, and
// holds it to the budget: the most nodes, map streams inside TLS, relay clients
// that read slowly or not at all, logins that wait, connections that do nothing, handshakes and
// bodies that do not go on, and hostinfos as long as they may be.
type full struct {
	program, board, cgroup string
	// changed are lines for [limits] beside those of the board.
	changed string
	limits  limits
	budget  int

	server      process
	http, https string
	fleet       *fleet
	online      []*device
	relayed     atomic.Int64
	last        int
}

// limits are those rows of `hearth board` that the load is made of.
type limits struct {
	Connections   int `json:"connections"`
	Streams       int `json:"map_streams"`
	Nodes         int `json:"nodes"`
	Relay         int `json:"derp_connections"`
	Logins        int `json:"pending_registrations"`
	Requests      int `json:"http2_streams"`
	HostinfoText  any `json:"hostinfo"`
	hostinfoBytes int
}

// How long the relay is flooded while everything else goes on, and how often all
// devices are cut off meanwhile.
const (
	flood = 12 * time.Second
	cuts  = 3

	victims    = 16
	victimsFor = 800 * time.Millisecond
)

// readBoard asks the program for the limits and the budget.
func (f *full) readBoard(file string) error {
	text, err := output(f.program, "board", "--config", file, "-o", "json")
	if err != nil {
		return err
	}
	var shown struct {
		Budget int    `json:"budget"`
		Limits limits `json:"limits"`
	}
	if err := json.Unmarshal([]byte(text), &shown); err != nil {
		return err
	}
	f.limits = shown.Limits
	if f.budget == 0 {
		f.budget = shown.Budget
	}
	f.limits.hostinfoBytes, err = size(fmt.Sprint(f.limits.HostinfoText))
	return err
}

// size reads an amount such as 16KiB.
func size(text string) (int, error) {
	for unit, shift := range map[string]int{"KiB": 10, "MiB": 20} {
		if digits, found := strings.CutSuffix(text, unit); found {
			number, err := strconv.Atoi(digits)
			return number << shift, err
		}
	}
	return strconv.Atoi(text)
}

func (f *full) start(dir, file string) (*child, error) {
	plain, err := freeAddress()
	if err != nil {
		return nil, err
	}
	encrypted, err := freeAddress()
	if err != nil {
		return nil, err
	}
	f.http, f.https = plain, encrypted
	socket := filepath.Join(dir, "hearth.sock")
	args := []string{f.program, "serve", "--config", file, "--data-dir", filepath.Join(dir, "data"), "--socket", socket,
		"--http", plain, "--https", encrypted, "--stun", "off", "--server-url", "http://" + plain}
	if f.cgroup != "" {
		// The shell moves itself into the group, and hearth takes its place.
		args = append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(f.cgroup, "cgroup.procs")}, args...)
	}
	c, err := startChild(args[0], args[1:]...)
	if err != nil {
		return nil, err
	}
	f.server = process{c.cmd.Process.Pid}
	run := func(args ...string) (string, error) {
		return output(f.program, append(args, "--socket", socket)...)
	}
	key := ""
	err = eventually(func() error { _, err := run("status"); return err })
	if err == nil {
		_, err = run("users", "create", "alice")
	}
	if err == nil {
		key, err = run("preauthkeys", "create", "--user", "alice", "--reusable")
	}
	if err == nil {
		var s *server
		if s, err = newServer("http://"+plain, key); err == nil {
			f.fleet = newFleet(s, f.limits.Nodes)
			return c, nil
		}
	}
	c.stop()
	return nil, fmt.Errorf("%w\n%s", err, c.log.String())
}

// note prints what the server holds, and how much that grew.
func (f *full) note(what string, count int) {
	private := f.server.memory().private
	each := ""
	if grown := private - f.last; count > 0 {
		each = fmt.Sprintf(", %.1f KB for each of %d", float64(grown)/1e3/float64(count), count)
	}
	f.last = private
	fmt.Printf("  %-40s %v, peak %.1f MB%s\n", what, f.server.memory(), float64(f.server.peak())/1e6, each)
}

// encryptedConn gives a connection inside TLS, whatever address is asked for.
func (f *full) encryptedConn(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", f.https)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	return secured, secured.HandshakeContext(ctx)
}

func (f *full) run() error {
	dir, err := os.MkdirTemp("", "hearth-memory-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "hearth.toml")
	text := fmt.Sprintf("board = %q\n[limits]\n%s\n", f.board, strings.ReplaceAll(f.changed, ",", "\n"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if err := f.readBoard(file); err != nil {
		return err
	}
	c, err := f.start(dir, file)
	if err != nil {
		return err
	}
	defer c.stop()
	fmt.Printf("\n%s: %d nodes, %d map streams, %d relay connections, %d connections in all; at most %.1f MiB\n",
		f.board, f.limits.Nodes, f.limits.Streams, f.limits.Relay, f.limits.Connections, mebi(f.budget))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := f.load(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(c.log.String()))
	}
	peak := f.server.peak()
	fmt.Printf("%s: peak %.1f MiB of %.1f MiB\n", f.board, mebi(peak), mebi(f.budget))
	if peak == 0 {
		return errors.New("the server is gone\n" + tail(c.log.String()))
	}
	if peak > f.budget {
		return fmt.Errorf("%s: over the budget by %.1f MiB", f.board, mebi(peak-f.budget))
	}
	return nil
}

func mebi(bytes int) float64 { return float64(bytes) / (1 << 20) }

func tail(text string) string { return text[max(0, len(text)-4000):] }

func (f *full) load(ctx context.Context) error {
	f.server.quiet()
	f.note("idle", 0)
	if err := f.joinAll(ctx); err != nil {
		return err
	}
	f.server.quiet()
	f.note("all nodes known", f.limits.Nodes)
	if err := f.strangers(ctx); err != nil {
		return err
	}
	f.note("logins that wait", f.limits.Logins)
	// The first ones are online; so that streams count and not nodes, they were cut off before.
	f.online = f.fleet.devices[:f.limits.Streams]
	if err := f.each(f.online, func(d *device) error { return d.comeBack(ctx) }); err != nil {
		return err
	}
	f.server.quiet()
	f.note("map streams inside TLS", len(f.online))
	relay, err := f.relayClients(ctx)
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	f.note("relay clients inside TLS", len(relay))
	idle, err := f.idle(ctx)
	defer func() {
		for _, conn := range idle {
			conn.Close()
		}
	}()
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	f.note("connections that do not go on", len(idle))
	if err := f.flood(ctx, relay); err != nil {
		return err
	}
	f.note("relay flooded, devices cut off and back", 0)
	fmt.Printf("  %d packets were given to the relay\n", f.relayed.Load())
	for _, r := range relay {
		r.close()
	}
	return nil
}

func (f *full) each(devices []*device, do func(*device) error) error {
	var wait sync.WaitGroup
	faults := make(chan error, len(devices))
	turns := make(chan struct{}, 8)
	for _, d := range devices {
		wait.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if err := do(d); err != nil {
				faults <- fmt.Errorf("device %d: %w", d.number, err)
			}
		})
	}
	wait.Wait()
	select {
	case err := <-faults:
		return err
	default:
		return nil
	}
}

// joinAll makes all nodes members, as many at a time as may have a stream.
func (f *full) joinAll(ctx context.Context) error {
	devices := f.fleet.devices
	devices[0].observer = nil
	for _, d := range devices {
		d.dialer = f.encryptedConn
		d.padding = f.limits.hostinfoBytes
	}
	for len(devices) > 0 {
		wave := devices[:min(len(devices), f.limits.Streams, f.limits.Connections-f.limits.Relay)]
		devices = devices[len(wave):]
		if err := f.each(wave, func(d *device) error { return d.join(ctx) }); err != nil {
			return err
		}
		for _, d := range wave {
			d.wire.close()
		}
		// The places of the connections come back when the server has seen their end.
		time.Sleep(300 * time.Millisecond)
	}
	return nil
}

// strangers leaves as many logins waiting as may wait.
func (f *full) strangers(ctx context.Context) error {
	var all []*device
	for number := range f.limits.Logins {
		d := f.fleet.newDevice(1<<15 + number)
		d.serverKey, d.dialer, d.padding = f.fleet.devices[0].serverKey, f.encryptedConn, f.limits.hostinfoBytes
		all = append(all, d)
	}
	return f.each(all, func(d *device) error {
		if err := d.dial(ctx); err != nil {
			return err
		}
		defer d.wire.close()
		registered, err := d.register(ctx, "")
		if err == nil && registered.AuthURL == "" {
			err = fmt.Errorf("a stranger need not wait: %+v", registered)
		}
		return err
	})
}

// relayClient is a client of the relay that sends without reading. The relay throws
// it out after a while, and it comes back.
type relayClient struct {
	mu     sync.Mutex
	client *derp.Client
	conn   net.Conn
	of     *device
}

func (f *full) relayClients(ctx context.Context) ([]*relayClient, error) {
	var all []*relayClient
	for number := range f.limits.Relay {
		r := &relayClient{of: f.fleet.devices[number%len(f.fleet.devices)]}
		if err := f.logIn(ctx, r); err != nil {
			return nil, fmt.Errorf("relay client %d: %w", number, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func (f *full) logIn(ctx context.Context, r *relayClient) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := f.encryptedConn(ctx)
	if err != nil {
		return err
	}
	// Small buffers, so that what is not read stays with the relay; maps would take for ever with one.
	conn.(*tls.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
	client, err := relayLogin(ctx, conn, r.of.node)
	if err != nil {
		conn.Close()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client, r.conn = client, conn
	return nil
}

// relayLogin logs in at the relay over a connection.
func relayLogin(ctx context.Context, conn net.Conn, node key.NodePrivate) (*derp.Client, error) {
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	defer conn.SetDeadline(time.Time{})
	fmt.Fprintf(conn, "GET /derp HTTP/1.1\r\nHost: relay\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n")
	reader := bufio.NewReaderSize(conn, 512)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("the relay answers %s", response.Status)
	}
	client, err := derp.NewClient(node, conn, bufio.NewReadWriter(reader, bufio.NewWriter(conn)), logger.Discard)
	if err != nil {
		return nil, err
	}
	// The first message is the server's description of itself; after it the login is complete.
	_, err = client.Recv()
	return client, err
}

func (r *relayClient) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		r.conn.Close()
	}
}

// idle fills the connections that are left: handshakes and heads that do not go on,
// control connections with half a body on each of their requests.
func (f *full) idle(ctx context.Context) ([]io.Closer, error) {
	var all []io.Closer
	rest := f.limits.Connections - f.limits.Relay - len(f.online)
	for number := range rest {
		conn, err := f.stall(ctx, number)
		if err != nil {
			return all, fmt.Errorf("idle connection %d of %d: %w", number, rest, err)
		}
		all = append(all, conn)
	}
	return all, nil
}

func (f *full) stall(ctx context.Context, number int) (io.Closer, error) {
	if kind, err := strconv.Atoi(os.Getenv("STALL")); err == nil {
		number = kind
	}
	switch number % 8 {
	case 0:
		// A long ClientHello that does not end, up to what is read of it.
		conn, err := net.Dial("tcp", f.https)
		if err == nil {
			hello := make([]byte, 7<<10)
			copy(hello, []byte{22, 3, 1, 0x40, 0, 1, 0, 0xf0, 0})
			_, err = conn.Write(hello)
		}
		return conn, err
	case 1:
		// A head that does not end.
		conn, err := f.encryptedConn(ctx)
		if err == nil {
			_, err = fmt.Fprintf(conn, "GET /key?v=100 HTTP/1.1\r\nX: %s", strings.Repeat("x", 4000))
		}
		return conn, err
	case 2:
		// An answered request, and then nothing.
		conn, err := f.encryptedConn(ctx)
		if err == nil {
			_, err = fmt.Fprintf(conn, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		return conn, err
	}
	d := f.fleet.newDevice(1 << 15)
	d.serverKey, d.dialer = f.fleet.devices[0].serverKey, f.encryptedConn
	if err := d.dial(ctx); err != nil {
		return nil, err
	}
	// Bodies that make room for others are answered, and whoever goes on with those is left. As long as a machine
	// without a node may send them on any board.
	d.wire.half("/machine/register", f.limits.Requests, 16<<10)
	return d.wire.conn, nil
}

// flood sends as much through the relay as it takes, while the devices are cut off
// and come back, and endpoints change.
func (f *full) flood(ctx context.Context, relay []*relayClient) error {
	flooding, stop := context.WithTimeout(ctx, flood)
	defer stop()
	began := time.Now()
	var wait sync.WaitGroup
	packet := bytes.Repeat([]byte("packet"), 200)
	for number, r := range relay {
		wait.Go(func() {
			for flooding.Err() == nil {
				// All at a few receivers at a time: what the system takes for them is soon full.
				first := int(time.Since(began)/victimsFor) * victims
				to := relay[(first+rand.IntN(victims))%len(relay)].of.node.Public()
				r.mu.Lock()
				client, conn := r.client, r.conn
				r.mu.Unlock()
				conn.SetWriteDeadline(time.Now().Add(time.Second))
				if err := client.Send(to, packet); err == nil {
					f.relayed.Add(1)
					continue
				}
				conn.Close()
				// Those that are thrown out come back one after the other.
				time.Sleep(time.Duration(10+number%90) * time.Millisecond)
				if f.logIn(flooding, r) != nil {
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	defer wait.Wait()
	defer stop()
	for number := range cuts {
		time.Sleep(flood / (cuts + 2))
		for _, d := range f.online {
			d.wire.close()
		}
		// At a full server the places of the connections come back one by one, so all try until they are in.
		err := f.each(f.online, func(d *device) error {
			return eventually(func() error { return d.comeBack(ctx) })
		})
		if err != nil {
			return fmt.Errorf("cut off for the %d. time: %w", number+1, err)
		}
		for _, d := range f.online {
			d.moved = number + 1
		}
		if err := f.each(f.online, func(d *device) error { return d.update(ctx) }); err != nil {
			return fmt.Errorf("new endpoints for the %d. time: %w", number+1, err)
		}
	}
	<-flooding.Done()
	return nil
}
