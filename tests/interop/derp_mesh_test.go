package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"hearth.test/interop/harness"
)

// meshKey is what the relays of a test's region share.
var meshKey = strings.Repeat("5a", 32)

// meshConfig is the configuration of a relay for anybody in a region with others.
func meshConfig(t *testing.T, others ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mesh.key")
	if err := os.WriteFile(file, []byte(meshKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	quoted := make([]string, len(others))
	for i, other := range others {
		quoted[i] = fmt.Sprintf("%q", other)
	}
	return fmt.Sprintf("[derp]\nadmit = \"open\"\nmesh_key_file = %q\nmesh_with = [%s]\n", file, strings.Join(quoted, ", "))
}

// reconfigure gives a running server another configuration and starts it again.
func reconfigure(t *testing.T, s *harness.Server, config string) {
	t.Helper()
	s.Terminate()
	if err := os.WriteFile(filepath.Join(filepath.Dir(s.DataDir), "hearth.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Run()
}

// plainRelay connects to the relay of a server over plain HTTP.
func plainRelay(t *testing.T, url string, node key.NodePrivate) *relayClient {
	t.Helper()
	client, err := derphttp.NewClient(node, url+"/derp", logger.Discard, netmon.NewStatic())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if err := client.Connect(harness.Within(t, 15*time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &relayClient{Client: client, messages: make(chan derp.ReceivedMessage, 256), failed: make(chan error, 1)}
	go c.read()
	if _, err := next[derp.ServerInfoMessage](c); err != nil {
		t.Fatal(err)
	}
	return c
}

// carryEventually is carry for a way that is still being made: it sends until
// something arrives.
func carryEventually(t *testing.T, from, to *relayClient, text string) {
	t.Helper()
	harness.Eventually(t, 3*harness.Patience, text, func() error {
		if err := from.Send(to.SelfPublicKey(), []byte(text)); err != nil {
			return err
		}
		select {
		case message := <-to.messages:
			if got, ok := message.(derp.ReceivedPacket); ok && got.Source == from.SelfPublicKey() && string(got.Data) == text {
				return nil
			}
			return fmt.Errorf("got %T", message)
		case <-time.After(200 * time.Millisecond):
			return fmt.Errorf("nothing arrived")
		}
	})
}

// drain forgets what has arrived.
func drain(clients ...*relayClient) {
	time.Sleep(300 * time.Millisecond)
	for _, c := range clients {
		for len(c.messages) > 0 {
			<-c.messages
		}
	}
}

// leafHash is the SHA-256 of the certificate that is served at an address.
func leafHash(t *testing.T, at string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return fmt.Sprintf("%x", sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw))
}

// region is the story of two clients at two relays of one region.
func region(t *testing.T, a, b *relayClient) {
	t.Helper()
	carryEventually(t, a, b, "there")
	carryEventually(t, b, a, "and back")
	drain(a, b)
	for _, size := range []int{1, 1400, 65_536} {
		packet := bytes.Repeat([]byte{byte(size)}, size)
		carry(t, a, b, packet)
		carry(t, b, a, packet)
	}
	b.Close()
	gone, err := next[derp.PeerGoneMessage](a)
	if err != nil || gone.Peer != b.SelfPublicKey() || gone.Reason != derp.PeerGoneReasonDisconnected {
		t.Fatalf("%+v, error %v", gone, err)
	}
}

func TestTwoHearthsFormOneRegion(t *testing.T) {
	one := start(t, harness.Options{Address: address, Config: meshConfig(t)})
	// One of the links goes over TLS with the pinned certificate of the other.
	two := start(t, harness.Options{Address: address, Config: meshConfig(t, one.URL)})
	pin := leafHash(t, two.HTTPS)
	reconfigure(t, one, meshConfig(t, "https://"+two.HTTPS+"#sha256-raw:"+pin, one.URL))
	a, b := plainRelay(t, one.URL, key.NewNode()), plainRelay(t, two.URL, key.NewNode())
	region(t, a, b)
	// A client that moves to the relay of its peer is found there.
	mobile := key.NewNode()
	c := plainRelay(t, two.URL, mobile)
	carryEventually(t, a, c, "at the other relay")
	moved := plainRelay(t, one.URL, mobile)
	carryEventually(t, a, moved, "at the same relay")
}

func TestHearthAndTheOfficialServerFormOneRegion(t *testing.T) {
	private := key.NewNode()
	official := derpserver.New(private, logger.Discard)
	t.Cleanup(func() { official.Close() })
	if err := official.SetMeshKey(meshKey); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: derpserver.Handler(official)}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	url := "http://" + listener.Addr().String()

	s := start(t, harness.Options{Address: address, Config: meshConfig(t, url)})
	// The official server's link, as in cmd/derper.
	link, err := derphttp.NewClient(private, s.URL+"/derp", logger.Discard, netmon.NewStatic())
	if err != nil {
		t.Fatal(err)
	}
	link.MeshKey = official.MeshKey()
	link.WatchConnectionChanges = true
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); link.Close() })
	add := func(m derp.PeerPresentMessage) { official.AddPacketForwarder(m.Key, link) }
	remove := func(m derp.PeerGoneMessage) { official.RemovePacketForwarder(m.Peer, link) }
	go link.RunWatchConnectionLoop(ctx, official.PublicKey(), logger.Discard, add, remove, nil)

	t.Run("client at hearth leaves last", func(t *testing.T) {
		region(t, plainRelay(t, s.URL, key.NewNode()), plainRelay(t, url, key.NewNode()))
	})
	t.Run("client at the official server leaves last", func(t *testing.T) {
		region(t, plainRelay(t, url, key.NewNode()), plainRelay(t, s.URL, key.NewNode()))
	})
	t.Run("official mesh client closes a peer at hearth", func(t *testing.T) {
		a := plainRelay(t, s.URL, key.NewNode())
		if err := link.ClosePeer(a.SelfPublicKey()); err != nil {
			t.Fatal(err)
		}
		thrownOut(t, a)
	})
}

// TestMeshIsForThoseWithTheKey checks that the frames of relays are refused from
// others.
func TestMeshIsForThoseWithTheKey(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: meshConfig(t)})
	victim := plainRelay(t, s.URL, key.NewNode())
	intruder := plainRelay(t, s.URL, key.NewNode())
	if err := intruder.ClosePeer(victim.SelfPublicKey()); err != nil {
		t.Fatal(err)
	}
	thrownOut(t, intruder)
	mustPing(t, victim)
}

// TestRestartUnderTraffic stops and starts a relay while packets are on their
// way: both clients come back by themselves and go on.
func TestRestartUnderTraffic(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: "[derp]\nadmit = \"open\"\n"})
	connect := func() *derphttp.Client {
		client, err := derphttp.NewClient(key.NewNode(), s.URL+"/derp", logger.Discard, netmon.NewStatic())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return client
	}
	a, b := connect(), connect()
	arrived := make(chan string, 1024)
	restarting := make(chan struct{}, 16)
	done := make(chan struct{})
	defer close(done)
	for _, c := range []*derphttp.Client{a, b} {
		go func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				message, err := c.Recv() // connects, and connects again
				if err != nil {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				switch m := message.(type) {
				case derp.ReceivedPacket:
					select {
					case arrived <- string(m.Data):
					default:
					}
				case derp.ServerRestartingMessage:
					restarting <- struct{}{}
				}
			}
		}()
	}
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				a.Send(b.SelfPublicKey(), []byte("on and on"))
			}
		}
	}()
	wait := func(what string) {
		t.Helper()
		for len(arrived) > 0 {
			<-arrived
		}
		select {
		case <-arrived:
		case <-time.After(3 * harness.Patience):
			t.Fatalf("nothing arrives %s", what)
		}
	}
	wait("before the restart")
	s.Terminate()
	for range 2 {
		select {
		case <-restarting:
		case <-time.After(harness.Patience):
			t.Fatal("a client was not told of the restart")
		}
	}
	s.Run()
	wait("after the restart")
	s.Kill()
	s.Run()
	wait("after a crash")
}
