package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"tailscale.com/derp"
	"tailscale.com/net/wsconn"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"hearth.test/interop/harness"
)

// overWebSocket connects as the client in a browser does.
func overWebSocket(t *testing.T, s *harness.Server, node key.NodePrivate) (*derp.Client, net.Conn) {
	t.Helper()
	ctx := harness.Within(t, harness.Patience)
	conn, response, err := websocket.Dial(ctx, s.URL+"/derp", &websocket.DialOptions{Subprotocols: []string{"derp"}})
	if err != nil {
		t.Fatalf("dial: %v (%v)", err, response)
	}
	if conn.Subprotocol() != "derp" {
		t.Fatalf("subprotocol %q", conn.Subprotocol())
	}
	stream := wsconn.NetConn(context.Background(), conn, websocket.MessageBinary, s.HTTP)
	t.Cleanup(func() { stream.Close() })
	brw := bufio.NewReadWriter(bufio.NewReader(stream), bufio.NewWriter(stream))
	client, err := derp.NewClient(node, stream, brw, logger.Discard)
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	if message, err := client.Recv(); err != nil {
		t.Fatalf("first message: %v", err)
	} else if _, ok := message.(derp.ServerInfoMessage); !ok {
		t.Fatalf("first message: %T", message)
	}
	return client, stream
}

func TestRelayOverWebSocket(t *testing.T) {
	s := startHTTP(t)
	region, clients := relayOf(t, s, 2)
	plain := mustRelay(t, region, clients[0].Node)
	inside, stream := overWebSocket(t, s, clients[1].Node)
	for _, size := range []int{1, 1400, 65_536} {
		packet := bytes.Repeat([]byte{byte(size)}, size)
		if err := plain.Send(clients[1].Node.Public(), packet); err != nil {
			t.Fatal(err)
		}
		message, err := inside.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := message.(derp.ReceivedPacket); !ok || !bytes.Equal(got.Data, packet) {
			t.Fatalf("%d bytes came as %T", size, message)
		}
		if err := inside.Send(clients[0].Node.Public(), packet); err != nil {
			t.Fatal(err)
		}
		got, err := next[derp.ReceivedPacket](plain)
		if err != nil || !bytes.Equal(got.Data, packet) {
			t.Fatalf("%d bytes: %d came, %v", size, len(got.Data), err)
		}
	}
	stream.Close()
	gone, err := next[derp.PeerGoneMessage](plain)
	if err != nil || gone.Peer != clients[1].Node.Public() {
		t.Fatalf("%+v, error %v", gone, err)
	}
}

// TestCertificateAboutTheRelay checks the certificate from which the official
// client learns the relay's key, and that it comes with TLS 1.3 only.
func TestCertificateAboutTheRelay(t *testing.T) {
	s := startHTTPS(t)
	region, clients := relayOf(t, s, 1)
	relay := mustRelay(t, region, clients[0].Node)
	public := relay.ServerPublicKey()
	for version, wanted := range map[uint16]int{tls.VersionTLS12: 0, tls.VersionTLS13: 1} {
		conn, err := tls.Dial("tcp", s.HTTPS, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		chain := conn.ConnectionState().PeerCertificates
		found := 0
		for i, certificate := range chain {
			name, ok := strings.CutPrefix(certificate.Subject.CommonName, "derpkey")
			if !ok {
				continue
			}
			found++
			raw, err := hex.DecodeString(name)
			if key := public.AppendTo(nil); err != nil || !bytes.Equal(raw, key) {
				t.Errorf("the certificate names %q", name)
			}
			if i != len(chain)-1 || i == 0 {
				t.Errorf("it is number %d of %d", i, len(chain))
			}
			if certificate.SerialNumber.Cmp(big.NewInt(derp.ProtocolVersion)) != 0 {
				t.Errorf("its number is %v", certificate.SerialNumber)
			}
			now := time.Now()
			if now.Before(certificate.NotBefore.AddDate(0, 0, 1)) || now.After(certificate.NotAfter.AddDate(0, 0, -1)) {
				t.Errorf("it is good from %v to %v", certificate.NotBefore, certificate.NotAfter)
			}
			if !certificate.BasicConstraintsValid || certificate.IsCA {
				t.Error("it has no basic constraints")
			}
		}
		if found != wanted {
			t.Errorf("%s: %d certificates about the relay", tls.VersionName(version), found)
		}
	}
}

// dialPlain connects to a relay over plain HTTP with nothing but the upgrade.
func dialPlain(t *testing.T, at string, node key.NodePrivate) (*derp.Client, net.Conn) {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(harness.Patience))
	stream := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	fmt.Fprintf(stream, "GET /derp HTTP/1.1\r\nHost: %s\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n", at)
	stream.Flush()
	response, err := http.ReadResponse(stream.Reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, error %v", response, err)
	}
	client, err := derp.NewClient(node, conn, stream, logger.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return client, conn
}
