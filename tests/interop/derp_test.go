package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"hearth.test/interop/harness"
)

// relayClient is one connection to the relay, with what it received.
type relayClient struct {
	*derphttp.Client
	messages chan derp.ReceivedMessage
	failed   chan error
}

// connectRelay connects by the relay map that hearth hands out, and reads on in
// the background.
func connectRelay(t *testing.T, region *tailcfg.DERPRegion, node key.NodePrivate) (*relayClient, error) {
	t.Helper()
	client := derphttp.NewRegionClient(node, logger.Discard, netmon.NewStatic(), func() *tailcfg.DERPRegion { return region })
	t.Cleanup(func() { client.Close() })
	if err := client.Connect(harness.Within(t, 15*time.Second)); err != nil {
		return nil, err
	}
	c := &relayClient{Client: client, messages: make(chan derp.ReceivedMessage, 256), failed: make(chan error, 1)}
	go c.read()
	// ServerInfo is what tells a client that it was let in.
	if _, err := next[derp.ServerInfoMessage](c); err != nil {
		return nil, err
	}
	return c, nil
}

// read keeps what arrives until the connection fails.
func (c *relayClient) read() {
	for {
		message, err := c.Recv()
		if err != nil {
			c.failed <- err
			return
		}
		if packet, ok := message.(derp.ReceivedPacket); ok {
			packet.Data = bytes.Clone(packet.Data) // it aliases the read buffer
			message = packet
		}
		c.messages <- message
	}
}

func mustRelay(t *testing.T, region *tailcfg.DERPRegion, node key.NodePrivate) *relayClient {
	t.Helper()
	c, err := connectRelay(t, region, node)
	if err != nil {
		t.Fatalf("connecting to the relay: %v", err)
	}
	return c
}

// next waits for a message of the type and passes over others.
func next[M derp.ReceivedMessage](c *relayClient) (M, error) {
	var none M
	deadline := time.After(harness.Patience)
	for {
		select {
		case message := <-c.messages:
			if wanted, ok := message.(M); ok {
				return wanted, nil
			}
		case err := <-c.failed:
			c.failed <- err
			return none, err
		case <-deadline:
			return none, fmt.Errorf("no %T within %v", none, harness.Patience)
		}
	}
}

// carry sends a packet from one to the other and checks that it arrives.
func carry(t *testing.T, from, to *relayClient, packet []byte) {
	t.Helper()
	if err := from.Send(to.SelfPublicKey(), packet); err != nil {
		t.Fatal(err)
	}
	for {
		got, err := next[derp.ReceivedPacket](to)
		if err != nil {
			t.Fatal(err)
		}
		if got.Source != from.SelfPublicKey() {
			continue
		}
		if !bytes.Equal(got.Data, packet) {
			t.Fatalf("%d bytes arrived, not the %d that were sent", len(got.Data), len(packet))
		}
		return
	}
}

// silent checks that the server has sent the client nothing but what it drops:
// a ping is answered, and no packet came before the answer.
func silent(t *testing.T, c *relayClient) {
	t.Helper()
	mustPing(t, c)
	for {
		select {
		case message := <-c.messages:
			if packet, ok := message.(derp.ReceivedPacket); ok {
				t.Fatalf("a packet of %d bytes arrived", len(packet.Data))
			}
		default:
			return
		}
	}
}

func mustPing(t *testing.T, c *relayClient) {
	t.Helper()
	if err := c.Ping(harness.Within(t, harness.Patience)); err != nil {
		t.Fatalf("ping: %v", err)
	}
}

// relayOf joins n bare devices and returns them with hearth's region.
func relayOf(t *testing.T, s *harness.Server, n int) (*tailcfg.DERPRegion, []*harness.Client) {
	t.Helper()
	s.User("alice")
	authKey := s.Key("alice", "--reusable")
	var region *tailcfg.DERPRegion
	var clients []*harness.Client
	for i := range n {
		client := harness.NewClient(t, s.URL, fmt.Sprintf("node%d", i), 0)
		client.Join(t, authKey)
		first := client.MustMap(t, client.MapRequest()).Until(t, "the first map", hasSelf)
		for _, r := range first.DERPMap.Regions {
			region = r
		}
		clients = append(clients, client)
	}
	if region == nil {
		t.Fatal("the first map has no relay region")
	}
	return region, clients
}

func TestRelayWithPinnedCertificate(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	region, clients := relayOf(t, s, 3)
	if pin := region.Nodes[0].CertName; len(pin) != len("sha256-raw:")+64 {
		t.Errorf("the relay's certificate is pinned as %q", pin)
	}
	relay(t, s, region, clients)
}

func TestRelayWithCertificateOfAnAuthority(t *testing.T) {
	t.Parallel()
	s := startHTTPS(t)
	region, clients := relayOf(t, s, 3)
	if pin := region.Nodes[0].CertName; pin != "" {
		t.Errorf("a certificate of an authority is pinned as %q", pin)
	}
	relay(t, s, region, clients)
}

// relay is the story of three devices on the relay.
func relay(t *testing.T, s *harness.Server, region *tailcfg.DERPRegion, clients []*harness.Client) {
	a, b := mustRelay(t, region, clients[0].Node), mustRelay(t, region, clients[1].Node)

	step(t, "packets of all sizes are carried both ways", func(t *testing.T) {
		for _, size := range []int{1, 62, 1400, 20_000, 65_536} {
			packet := bytes.Repeat([]byte{byte(size)}, size)
			carry(t, a, b, packet)
			carry(t, b, a, packet)
		}
	})
	step(t, "a packet to oneself comes back", func(t *testing.T) { carry(t, a, a, []byte("me")) })
	step(t, "pings are answered", func(t *testing.T) { mustPing(t, a); mustPing(t, b) })
	step(t, "naming a home relay changes nothing for others", func(t *testing.T) {
		a.NotePreferred(true)
		a.NotePreferred(false)
		mustPing(t, a)
	})
	step(t, "a disco packet to a device that is not there is answered", func(t *testing.T) {
		absent := key.NewNode().Public()
		disco := append([]byte("TS\xf0\x9f\x92\xac"), make([]byte, 80)...)
		if err := a.Send(absent, disco); err != nil {
			t.Fatal(err)
		}
		gone, err := next[derp.PeerGoneMessage](a)
		if err != nil || gone.Peer != absent || gone.Reason != derp.PeerGoneReasonNotHere {
			t.Fatalf("%+v, error %v", gone, err)
		}
	})
	step(t, "who has heard from a device is told when it leaves", func(t *testing.T) {
		c := mustRelay(t, region, clients[2].Node)
		carry(t, c, a, []byte("hello"))
		c.Close()
		gone, err := next[derp.PeerGoneMessage](a)
		if err != nil || gone.Peer != clients[2].Node.Public() || gone.Reason != derp.PeerGoneReasonDisconnected {
			t.Fatalf("%+v, error %v", gone, err)
		}
	})
	step(t, "of two connections with one key the last to speak receives", func(t *testing.T) {
		older, newer := mustRelay(t, region, clients[2].Node), mustRelay(t, region, clients[2].Node)
		carry(t, a, newer, []byte("to the newer"))
		silent(t, older)
		// The ping of silent made the older one the last to speak.
		carry(t, a, older, []byte("to the older"))
		newer.Close()
		carry(t, a, older, []byte("to the only one"))
		older.Close()
	})
	step(t, "a client that knows the server's key starts fast", func(t *testing.T) {
		fastStart(t, s, clients[2].Node, a)
	})
	step(t, "a device that hearth does not know is refused", func(t *testing.T) {
		if _, err := connectRelay(t, region, key.NewNode()); err == nil {
			t.Fatal("a stranger was let in")
		}
		mustPing(t, a)
	})
	step(t, "a deleted device is thrown out and kept out", func(t *testing.T) {
		s.CLI("nodes", "delete", "-i", s.MustNode("node1").ID)
		thrownOut(t, b)
		if _, err := connectRelay(t, region, clients[1].Node); err == nil {
			t.Fatal("it was let in again")
		}
	})
	step(t, "an expired device is thrown out and kept out", func(t *testing.T) {
		c := mustRelay(t, region, clients[2].Node)
		s.CLI("nodes", "expire", "-i", s.MustNode("node2").ID)
		thrownOut(t, c)
		if _, err := connectRelay(t, region, clients[2].Node); err == nil {
			t.Fatal("it was let in again")
		}
		mustPing(t, a)
	})
}

// thrownOut waits until the server has closed the connection.
func thrownOut(t *testing.T, c *relayClient) {
	t.Helper()
	deadline := time.After(harness.Patience)
	for {
		select {
		case <-c.failed:
			return
		case <-c.messages:
		case <-deadline:
			t.Fatal("the connection is still open")
		}
	}
}

// fastStart asks for the upgrade with Derp-Fast-Start on both listeners: no HTTP
// answer may come, the first bytes are frames.
func fastStart(t *testing.T, s *harness.Server, node key.NodePrivate, peer *relayClient) {
	t.Helper()
	dial := map[string]func() (net.Conn, error){
		"http": func() (net.Conn, error) { return net.Dial("tcp", s.HTTP) },
		"https": func() (net.Conn, error) {
			// Which certificate is served is another test's business.
			return tls.Dial("tcp", s.HTTPS, &tls.Config{InsecureSkipVerify: true})
		},
	}
	for name, dial := range dial {
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(harness.Patience))
		stream := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
		fmt.Fprintf(stream, "GET /derp HTTP/1.1\r\nHost: %s\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n%s: 1\r\n\r\n", s.HTTP, derp.FastStartHeader)
		// The server's key is known, so that login frame and request leave together.
		client, err := derp.NewClient(node, conn, stream, logger.Discard, derp.ServerPublicKey(peer.ServerPublicKey()))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := client.Send(peer.SelfPublicKey(), []byte("fast over "+name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		packet, err := next[derp.ReceivedPacket](peer)
		if err != nil || string(packet.Data) != "fast over "+name {
			t.Fatalf("%s: %q, error %v", name, packet.Data, err)
		}
	}
}

// TestRelayOverPlainHTTPUpgrade connects to the listener without TLS, as behind
// a reverse proxy.
func TestRelayOverPlainHTTPUpgrade(t *testing.T) {
	s := startHTTP(t)
	_, clients := relayOf(t, s, 1)
	client, err := derphttp.NewClient(clients[0].Node, s.URL+"/derp", logger.Discard, netmon.NewStatic())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	if err := client.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	message, err := client.Recv()
	if _, ok := message.(derp.ServerInfoMessage); !ok || err != nil {
		t.Fatalf("the first message is %T, error %v", message, err)
	}
}
