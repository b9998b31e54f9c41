// Command figures measures hearth and prints what the project promises: the size
// of the program, its memory, the work of a join, how fast a change spreads, what
// is written to disk, and how long two new devices take to talk.
//
// The devices are simulated on the official protocol packages, all in this
// process, except for the last figure, which uses two stock clients.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"

	"hearth.test/interop/harness"
)

// devices is the size of the tailnet that is measured.
const devices = 100

func main() {
	address := harness.EnterNamespace()
	os.Setenv("TS_NO_LOGS_NO_SUPPORT", "true")
	os.Setenv("TS_DISABLE_PORTMAPPER", "true")
	r := new(run)
	defer r.end()

	if info, err := os.Stat(harness.Binary()); err == nil {
		report("program, static and stripped", "%.2f MB", float64(info.Size())/1e6)
	}
	s := harness.Start(r, harness.Options{Address: address})
	s.User("alice")
	authKey := s.Key("alice", "--reusable")
	quiet(r, s)
	memory(r, s, "memory, idle")
	tailnet := join(r, s, authKey)
	quiet(r, s)
	memory(r, s, fmt.Sprintf("memory, %d streaming devices", devices))
	joins(r, s, tailnet, authKey)
	spread(r, s, tailnet)
	written(r, s, tailnet)
	tailnet.leave()
	s.Terminate()
	for range 3 {
		firstByte(r, address)
	}
}

// report prints one line: what was measured, and the result.
func report(what, format string, args ...any) {
	fmt.Printf("%-44s %s\n", what, fmt.Sprintf(format, args...))
}

func memory(r *run, s *harness.Server, what string) {
	m := harness.MemoryOf(r, s.PID())
	report(what, "%.1f MB resident, %.1f MB of it private", float64(m.Resident)/1e6, float64(m.Private)/1e6)
}

// quiet waits until the server has had nothing to do for a second.
func quiet(r *run, s *harness.Server) {
	harness.Eventually(r, harness.Patience, "the server is quiet", func() error {
		before := harness.CPUTime(r, s.PID())
		time.Sleep(time.Second)
		busy := harness.CPUTime(r, s.PID()) - before
		return harness.Check(busy < 5*time.Millisecond, "it ran %v in a second", busy)
	})
}

// member is one simulated device with a running stream.
type member struct {
	*harness.Client
	id     tailcfg.NodeID
	stream *harness.Stream
	seen   chan sighting
}

// sighting is a message about a device's endpoints.
type sighting struct {
	endpoint string
	at       time.Time
}

type tailnet struct{ members []*member }

// join lets the devices in, a few at a time, and starts their streams.
func join(r *run, s *harness.Server, authKey string) *tailnet {
	all := new(tailnet)
	for i := range devices {
		all.members = append(all.members, enter(r, s, authKey, fmt.Sprintf("device%d", i)))
	}
	return all
}

// enter joins one device the way a client does: register, poll, and tell its
// endpoints and home relay.
func enter(r *run, s *harness.Server, authKey, hostname string) *member {
	m := &member{Client: harness.NewClient(r, s.URL, hostname, 0), seen: make(chan sighting, 1024)}
	m.Join(r, authKey)
	m.stream = m.MustMap(r, m.MapRequest())
	first := m.stream.Until(r, "the first map", func(response *tailcfg.MapResponse) bool { return response.Node != nil })
	m.id = first.Node.ID
	m.SendUpdate(r, m.Update(900, "192.0.2.1:41641"))
	go m.watch()
	return m
}

// watch reports every change of a peer's endpoints.
func (m *member) watch() {
	for {
		response, err := m.stream.Next()
		if err != nil {
			return
		}
		for _, patch := range response.PeersChangedPatch {
			for _, endpoint := range patch.Endpoints {
				m.seen <- sighting{endpoint.String(), m.stream.Arrived}
			}
		}
		for _, peer := range response.PeersChanged {
			for _, endpoint := range peer.Endpoints {
				m.seen <- sighting{endpoint.String(), m.stream.Arrived}
			}
		}
	}
}

// waits returns when the device was told of the endpoint.
func (m *member) waits(r *run, endpoint string) time.Time {
	deadline := time.After(harness.Patience)
	for {
		select {
		case sighting := <-m.seen:
			if sighting.endpoint == endpoint {
				return sighting.at
			}
		case <-deadline:
			r.Fatalf("%s was not told of %s", m.Hostname, endpoint)
		}
	}
}

// told waits until every device but the first was told, and returns when the last
// one was.
func (all *tailnet) told(r *run, endpoint string) (last time.Time) {
	for _, m := range all.members[1:] {
		if at := m.waits(r, endpoint); at.After(last) {
			last = at
		}
	}
	return last
}

func (all *tailnet) leave() {
	for _, m := range all.members {
		m.stream.Close()
		m.Close()
	}
}

// joins measures the server's work for one more device, everything included: the
// handshake, the registration, the first map, and telling all others.
func joins(r *run, s *harness.Server, all *tailnet, authKey string) {
	const rounds = 20
	before, begin := harness.CPUTime(r, s.PID()), time.Now()
	var bytes int
	for i := range rounds {
		extra := enter(r, s, authKey, fmt.Sprintf("extra%d", i))
		bytes += extra.stream.WireBytes
		extra.stream.Close()
		extra.Close()
	}
	took := time.Since(begin)
	quiet(r, s)
	cpu := harness.CPUTime(r, s.PID()) - before
	report(fmt.Sprintf("CPU time of a join at %d devices", devices), "%.2f ms (%d joins in %v, %d bytes of first map each)",
		cpu.Seconds()*1e3/rounds, rounds, took.Round(time.Millisecond), bytes/rounds)
}

// spread measures how long a change of one device takes to the last of the others.
func spread(r *run, s *harness.Server, all *tailnet) {
	var times []time.Duration
	before := harness.CPUTime(r, s.PID())
	for i := range 20 {
		endpoint := fmt.Sprintf("198.51.100.%d:41641", i+1)
		begin := time.Now()
		all.members[0].SendUpdate(r, all.members[0].Update(900, endpoint))
		times = append(times, all.told(r, endpoint).Sub(begin))
		time.Sleep(300 * time.Millisecond) // changes far apart, so that each is its own
	}
	cpu := (harness.CPUTime(r, s.PID()) - before) / 20
	slices.Sort(times)
	report(fmt.Sprintf("a change to the last of %d devices", devices-1), "%.1f ms in the middle, %.1f ms at worst (of %d; %.2f ms CPU each)",
		times[len(times)/2].Seconds()*1e3, times[len(times)-1].Seconds()*1e3, len(times), cpu.Seconds()*1e3)
}

// written measures what changes of endpoints cost the flash.
func written(r *run, s *harness.Server, all *tailnet) {
	quiet(r, s)
	const changes = 50
	before, files := harness.WrittenBy(r, s.PID()), dataFiles(s.DataDir)
	for i := range changes {
		endpoint := fmt.Sprintf("203.0.113.%d:41641", i+1)
		all.members[0].SendUpdate(r, all.members[0].Update(900, endpoint))
		all.told(r, endpoint)
	}
	quiet(r, s)
	after := harness.WrittenBy(r, s.PID())
	touched := "no file touched"
	if now := dataFiles(s.DataDir); now != files {
		touched = "files touched: " + now
	}
	report("written to disk for a change of endpoints", "%d bytes (of %d changes; %s)", (after.Disk-before.Disk)/changes, changes, touched)
}

// dataFiles describes the files of a data directory by size and time of change.
func dataFiles(dir string) string {
	var text strings.Builder
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			fmt.Fprintf(&text, "%s %d %s; ", info.Name(), info.Size(), info.ModTime().Format(time.StampMicro))
		}
		return nil
	})
	return text.String()
}

// firstByte measures two new stock clients on a new server, from their start to
// the first byte that one gets from the other.
func firstByte(r *run, address string) {
	s := harness.Start(r, harness.Options{Address: address})
	s.User("alice")
	authKey := s.Key("alice", "--reusable")
	client := func(name string) *tsnet.Server {
		c := &tsnet.Server{
			Dir: filepath.Join(r.TempDir(), name), ControlURL: s.URL, AuthKey: authKey, Hostname: name,
			Logf: func(string, ...any) {}, UserLogf: func(string, ...any) {},
		}
		return c
	}
	alpha, beta := client("alpha"), client("beta")
	defer alpha.Close()
	defer beta.Close()
	begin := time.Now()
	var betaUp time.Duration
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, err := beta.Up(harness.Within(r, harness.Patience)); err != nil {
			r.Fatalf("beta: %v", err)
		}
		betaUp = time.Since(begin)
		listener, err := beta.Listen("tcp", ":7")
		if err != nil {
			r.Fatalf("beta: %v", err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go io.Copy(conn, conn)
			}
		}()
	})
	if _, err := alpha.Up(harness.Within(r, harness.Patience)); err != nil {
		r.Fatalf("alpha: %v", err)
	}
	alphaUp := time.Since(begin)
	local, err := alpha.LocalClient()
	if err != nil {
		r.Fatalf("alpha: %v", err)
	}
	harness.Eventually(r, harness.Patience, "alpha sees beta", func() error {
		status, err := local.Status(context.Background())
		if err != nil {
			return err
		}
		for _, peer := range status.Peer {
			if peer.Online {
				return nil
			}
		}
		return fmt.Errorf("it has %d peers", len(status.Peer))
	})
	seen := time.Since(begin)
	wait.Wait()
	both := time.Since(begin)
	var dialled time.Duration
	harness.Eventually(r, harness.Patience, "the first byte", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		conn, err := alpha.Dial(ctx, "tcp", net.JoinHostPort("beta", "7"))
		if err != nil {
			return err
		}
		defer conn.Close()
		dialled = time.Since(begin)
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		sent := make([]byte, 1)
		rand.Read(sent)
		if _, err := conn.Write(sent); err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, 1))
		return err
	})
	first := time.Since(begin)
	report("two new devices to the first byte", "%.2f s: up after %.2f and %.2f, seen online %.2f, both listening %.2f, connected %.2f",
		first.Seconds(), alphaUp.Seconds(), betaUp.Seconds(), seen.Seconds(), both.Seconds(), dialled.Seconds())
	alpha.Close()
	beta.Close()
	s.Terminate()
}

// run is the harness.T of a program that is no test.
type run struct {
	mu       sync.Mutex
	cleanups []func()
}

func (r *run) Helper()                         {}
func (r *run) Logf(format string, args ...any) {}

func (r *run) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "figures: "+format+"\n", args...)
	r.end()
	os.Exit(1)
}

func (r *run) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *run) TempDir() string {
	dir, err := os.MkdirTemp("", "hearth-figures")
	if err != nil {
		r.Fatalf("%v", err)
	}
	r.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end runs what was to be cleaned up, the last first.
func (r *run) end() {
	r.mu.Lock()
	cleanups := r.cleanups
	r.cleanups = nil
	r.mu.Unlock()
	for _, f := range slices.Backward(cleanups) {
		f()
	}
}
