package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/net/stun"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"hearth.test/interop/harness"
)

// alone is a relay without a control server.
type alone struct {
	URL, HTTP, HTTPS, STUN, Metrics, Socket string
}

// startAlone runs `hearth derp` with this configuration.
func startAlone(t *testing.T, config string) *alone {
	t.Helper()
	dir := t.TempDir()
	free := func() string { return net.JoinHostPort(address, harness.FreePort(t, address)) }
	a := &alone{HTTP: free(), HTTPS: free(), STUN: free(), Metrics: free(), Socket: filepath.Join(dir, "relay.sock")}
	a.URL = "http://" + a.HTTP
	file := filepath.Join(dir, "hearth.toml")
	config += fmt.Sprintf("[metrics]\nlisten = %q\n", a.Metrics)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := harness.Command("derp", "--config", file, "--data-dir", filepath.Join(dir, "data"), "--socket", a.Socket,
		"--http", a.HTTP, "--https", a.HTTPS, "--stun", a.STUN)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("hearth derp did not stop cleanly: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the relay:\n%s", &log)
		}
	})
	harness.Eventually(t, harness.Patience, "the relay answers", func() error {
		response, err := http.Get(a.URL + "/derp/probe")
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
	return a
}

// refused checks that a relay closes the connection of a client.
func refused(t *testing.T, region *tailcfg.DERPRegion, node key.NodePrivate) {
	t.Helper()
	if _, err := connectRelay(t, region, node); err == nil {
		t.Fatal("it was let in")
	}
}

// at is the region of a relay with a pinned certificate.
func (a *alone) region(t *testing.T) *tailcfg.DERPRegion {
	t.Helper()
	addr := netip.MustParseAddrPort(a.HTTPS)
	return &tailcfg.DERPRegion{
		RegionID: 901,
		Nodes: []*tailcfg.DERPNode{{
			Name: "901a", RegionID: 901, HostName: addr.Addr().String(), IPv4: addr.Addr().String(), IPv6: "none",
			DERPPort: int(addr.Port()), CertName: "sha256-raw:" + leafHash(t, a.HTTPS),
		}},
	}
}

func TestRelayAloneAsksTheHomeWhomToAdmit(t *testing.T) {
	home := startHTTP(t)
	_, clients := relayOf(t, home, 2)
	relay := startAlone(t, fmt.Sprintf("[derp]\nadmit = \"url\"\nadmit_url = %q\n[limits]\nderp_admit_time = \"1s\"\n",
		"https://"+home.HTTPS+"/verify#sha256-raw:"+leafHash(t, home.HTTPS)))
	region := relay.region(t)
	a, b := mustRelay(t, region, clients[0].Node), mustRelay(t, region, clients[1].Node)
	carry(t, a, b, []byte("over a relay on a VPS"))
	refused(t, region, key.NewNode())

	step(t, "who is known stays admitted while the home is away", func(t *testing.T) {
		home.Terminate()
		time.Sleep(1100 * time.Millisecond)
		again := mustRelay(t, region, clients[1].Node)
		carry(t, a, again, []byte("the home is away"))
		refused(t, region, key.NewNode())
	})
	step(t, "STUN answers", func(t *testing.T) {
		conn, err := net.Dial("udp", relay.STUN)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		id := stun.NewTxID()
		conn.SetDeadline(time.Now().Add(harness.Patience))
		conn.Write(stun.Request(id))
		buffer := make([]byte, 1500)
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		got, at, err := stun.ParseResponse(buffer[:n])
		if err != nil || got != id || at.String() != conn.LocalAddr().String() {
			t.Fatalf("%v says %v, error %v", got, at, err)
		}
	})
	step(t, "its numbers are told", func(t *testing.T) {
		out, err := harness.Command("derp", "status", "-o", "json", "--socket", relay.Socket).Output()
		if err != nil {
			t.Fatal(err)
		}
		var status struct {
			IsOn            bool
			Connections     int
			PacketsReceived int
			Refused         int
			Stun            struct{ AnsweredIpv4 int }
		}
		if err := json.Unmarshal(out, &status); err != nil {
			t.Fatal(err)
		}
		if !status.IsOn || status.Connections != 3 || status.PacketsReceived != 2 || status.Refused != 2 || status.Stun.AnsweredIpv4 != 1 {
			t.Errorf("status %s", out)
		}
		response, err := http.Get("http://" + relay.Metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		for _, line := range []string{
			"hearth_derp_connections 3\n",
			"hearth_derp_received_packets_total 2\n",
			"hearth_derp_refused_total{reason=\"not_admitted\"} 2\n",
			"hearth_stun_requests_total{result=\"answered_ipv4\"} 1\n",
		} {
			if !strings.Contains(string(text), line) {
				t.Errorf("no %q in\n%s", line, text)
			}
		}
	})
	step(t, "names are told to clients without DNS", func(t *testing.T) {
		response, err := http.Get(relay.URL + "/bootstrap-dns?q=x")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var names map[string][]net.IP
		if err := json.NewDecoder(response.Body).Decode(&names); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRelayAloneAdmitsTheListedKeys(t *testing.T) {
	node := key.NewNode()
	relay := startAlone(t, fmt.Sprintf("[derp]\nadmit_keys = [%q]\n[limits]\nderp_client_rate = \"1MiB\"\n", node.Public().String()))
	client := mustRelay(t, relay.region(t), node)
	mustPing(t, client)
	refused(t, relay.region(t), key.NewNode())
}

// TestRateIsTold checks that a client is told the rate that holds for it.
func TestRateIsTold(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: "[derp]\nadmit = \"open\"\n[limits]\nderp_client_rate = \"1MiB\"\n"})
	client, _ := dialPlain(t, s.HTTP, key.NewNode())
	message, err := client.Recv()
	info, ok := message.(derp.ServerInfoMessage)
	if err != nil || !ok || info.TokenBucketBytesPerSecond != 1<<20 || info.TokenBucketBytesBurst != 256<<10 {
		t.Fatalf("%T %+v, error %v", message, message, err)
	}
}
