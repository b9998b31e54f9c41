package interop

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/envknob"
	"tailscale.com/net/netcheck"
	"tailscale.com/net/netmon"
	"tailscale.com/types/logger"
	"tailscale.com/util/eventbus"

	"hearth.test/interop/harness"
)

func TestTailnetOverPlainHTTP(t *testing.T) { tailnet(t, startHTTP(t)) }
func TestTailnetOverHTTPS(t *testing.T)     { tailnet(t, startHTTPS(t)) }

// tailnet is the whole life of a small tailnet on one server: devices join,
// talk, come back, see the server restart twice, and are thrown out.
func tailnet(t *testing.T, s *harness.Server) {
	s.User("alice")
	key := s.Key("alice", "--reusable", "--expiration", "1h")
	alpha := join(t, s, "alpha", key).echo()
	betaDir := filepath.Join(t.TempDir(), "beta")
	beta := newDevice(t, s, betaDir, "beta", key).up().echo()

	step(t, "two devices that joined with a key see each other online", func(t *testing.T) {
		alpha.sees("beta")
		beta.sees("alpha")
		for _, node := range s.Nodes() {
			if !node.Online || node.User.Name != "alice" {
				t.Errorf("hearth lists %+v", node)
			}
		}
		if status := s.Status(); status.Nodes != 2 || status.Online != 2 {
			t.Errorf("status is %+v", status)
		}
	})
	v4, v6 := beta.addresses()
	step(t, "the addresses are of both tailnet prefixes", func(t *testing.T) {
		if !strings.HasPrefix(v4.String(), "100.") || !strings.HasPrefix(v6.String(), "fd7a:115c:a1e0:") {
			t.Fatalf("beta has %v and %v", v4, v6)
		}
		want := []string{v4.String(), v6.String()}
		if got := s.MustNode("beta").IPAddresses; !slices.Equal(got, want) {
			t.Fatalf("hearth lists %v for beta, the client has %v", got, want)
		}
	})
	step(t, "TCP by IPv4, by IPv6 and by MagicDNS name", func(t *testing.T) {
		alpha.mustExchange(v4.String(), 100)
		alpha.mustExchange(v6.String(), 100)
		alpha.mustExchange("beta", 100)
		alpha.mustExchange(strings.TrimSuffix(alpha.sees("beta").DNSName, "."), 100)
	})
	step(t, "a direct path is found and a megabyte arrives intact on it", func(t *testing.T) {
		harness.Eventually(t, harness.Patience, "a direct path", func() error {
			result := alpha.ping(v4)
			return harness.Check(result.Endpoint != "", "%+v", result)
		})
		alpha.mustExchange(v4.String(), 1<<20)
	})
	step(t, "netcheck finds the region by STUN", func(t *testing.T) { stunFindsRegion(t, alpha) })
	step(t, "the devices call hearth their home relay", func(t *testing.T) {
		harness.Eventually(t, harness.Patience, "beta's home relay", func() error {
			peer := alpha.sees("beta")
			return harness.Check(peer.Relay != "", "%+v", peer)
		})
	})
	step(t, "an ephemeral device disappears when it leaves", func(t *testing.T) {
		guest := newDevice(t, s, "", "guest", s.Key("alice", "--ephemeral", "--expiration", "1h"))
		guest.Ephemeral = true
		guest.up()
		alpha.sees("guest")
		guest.Close()
		alpha.losesSight("guest")
		harness.Eventually(t, harness.Patience, "guest is gone from hearth", func() error {
			return harness.Check(s.NodeNamed("guest") == nil, "it is still listed")
		})
	})
	step(t, "a device that starts again keeps its address and needs no key", func(t *testing.T) {
		before := s.MustNode("beta")
		beta.Close()
		harness.Eventually(t, harness.Patience, "beta is offline for alpha", func() error {
			peer := alpha.peer("beta")
			return harness.Check(peer != nil && !peer.Online, "%+v", peer)
		})
		beta = newDevice(t, s, betaDir, "beta", "").up().echo()
		if again, _ := beta.addresses(); again != v4 {
			t.Fatalf("beta had %v and has %v", v4, again)
		}
		if after := s.MustNode("beta"); after.ID != before.ID {
			t.Fatalf("beta was node %s and is node %s", before.ID, after.ID)
		}
		alpha.sees("beta")
		alpha.mustExchange("beta", 100)
	})
	step(t, "a restart by SIGTERM loses no device and clients carry on", func(t *testing.T) {
		restart(t, s, alpha, beta, s.Terminate)
	})
	step(t, "a restart after kill -9 loses no device and clients carry on", func(t *testing.T) {
		restart(t, s, alpha, beta, s.Kill)
	})
	step(t, "a device that joins after the restarts is seen by the old ones", func(t *testing.T) {
		gamma := join(t, s, "gamma", key)
		alpha.sees("gamma")
		gamma.sees("beta")
		gamma.mustExchange("beta", 100)
		gamma.Close()
	})
	step(t, "a renamed device is found by its new name", func(t *testing.T) {
		s.CLI("nodes", "rename", "-i", s.MustNode("beta").ID, "printer")
		alpha.sees("printer")
		harness.Eventually(t, harness.Patience, "the new name resolves", func() error {
			return alpha.exchange(harness.Within(t, 5*time.Second), "printer", 100)
		})
		s.CLI("nodes", "rename", "-i", s.MustNode("printer").ID, "beta")
		alpha.sees("beta")
	})
	step(t, "an expired device is cut off", func(t *testing.T) {
		alpha.mustExchange(v4.String(), 100)
		s.CLI("nodes", "expire", "-i", s.MustNode("beta").ID)
		harness.Eventually(t, harness.Patience, "alpha knows that beta has expired", func() error {
			peer := alpha.peer("beta")
			return harness.Check(peer == nil || peer.Expired, "%+v", peer)
		})
		noTraffic(t, alpha, v4.String())
		harness.Eventually(t, harness.Patience, "beta knows that it has to log in again", func() error {
			state := beta.status().BackendState
			return harness.Check(state == "NeedsLogin", "its state is %s", state)
		})
	})
	step(t, "a deleted device is cut off", func(t *testing.T) {
		delta := join(t, s, "delta", key).echo()
		address, _ := delta.addresses()
		alpha.sees("delta")
		alpha.mustExchange(address.String(), 100)
		s.CLI("nodes", "delete", "-i", s.MustNode("delta").ID)
		alpha.losesSight("delta")
		noTraffic(t, alpha, address.String())
		if s.NodeNamed("delta") != nil {
			t.Error("hearth still lists it")
		}
	})
}

// step runs one part of a story. A part makes no sense when an earlier one has
// failed, so these are not subtests: the first failure ends the story, and the
// last step named in the log is where.
func step(t *testing.T, name string, run func(*testing.T)) {
	t.Helper()
	begin := time.Now()
	t.Logf("step: %s", name)
	run(t)
	if t.Failed() {
		t.FailNow()
	}
	t.Logf("      done in %v", time.Since(begin).Round(time.Millisecond))
}

// restart ends the server by stop and starts it again, with a connection open
// between two devices all the while.
func restart(t *testing.T, s *harness.Server, alpha, beta *device, stop func()) {
	t.Helper()
	before := s.Nodes()
	address, _ := beta.addresses()
	stop()
	// The tailnet lives on without its control server.
	alpha.mustExchange(address.String(), 1000)
	s.Run()
	after := s.Nodes()
	if len(after) != len(before) {
		t.Fatalf("%d devices before the restart, %d after", len(before), len(after))
	}
	for i := range after {
		if after[i].ID != before[i].ID || after[i].NodeKey != before[i].NodeKey ||
			!slices.Equal(after[i].IPAddresses, before[i].IPAddresses) {
			t.Errorf("device was %+v and is %+v", before[i], after[i])
		}
	}
	harness.Eventually(t, harness.Patience, "both devices are back online", func() error {
		status := s.Status()
		return harness.Check(status.Online == 2, "%+v", status)
	})
	// That both get news shows that they are back on their map streams.
	news := harness.NewClient(t, s.URL, "news", 0)
	news.Join(t, s.Key("alice"))
	news.MustMap(t, news.MapRequest())
	alpha.sees("news")
	beta.sees("news")
	s.CLI("nodes", "delete", "-i", s.MustNode("news").ID)
	alpha.losesSight("news")
	beta.losesSight("news")
	alpha.sees("beta")
	beta.sees("alpha")
	alpha.mustExchange("beta", 1000)
	harness.Eventually(t, harness.Patience, "both devices are back on the relay", func() error {
		relay := s.Status().Relay
		return harness.Check(relay.Connections == 2, "%+v", relay)
	})
}

// noTraffic checks that nothing reaches the address.
func noTraffic(t *testing.T, from *device, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := from.exchange(ctx, address, 100); err == nil {
		t.Fatalf("%s can still talk to %s", from.Hostname, address)
	}
}

// stunFindsRegion runs the official netcheck on the device's own relay map, with
// STUN as the only method.
func stunFindsRegion(t *testing.T, d *device) {
	t.Helper()
	relays, err := d.local.CurrentDERPMap(harness.Within(t, harness.Patience))
	if err != nil {
		t.Fatal(err)
	}
	if len(relays.Regions) != 1 {
		t.Fatalf("the relay map has %d regions, hearth has one", len(relays.Regions))
	}
	bus := eventbus.New()
	defer bus.Close()
	monitor, err := netmon.New(bus, logger.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer monitor.Close()
	client := &netcheck.Client{NetMon: monitor, Logf: t.Logf, SkipExternalNetwork: true}
	ctx := harness.Within(t, harness.Patience)
	if err := client.Standalone(ctx, ""); err != nil {
		t.Fatal(err)
	}
	report, err := client.GetReport(ctx, relays, &netcheck.GetReportOpts{OnlySTUN: true})
	if err != nil {
		t.Fatal(err)
	}
	for id := range relays.Regions {
		if report.RegionV4Latency[id] == 0 || report.PreferredDERP != id || !report.UDP {
			t.Fatalf("netcheck reports %+v", report)
		}
	}
}

// TestRelayCarriesTrafficWhenDirectPathsAreBlocked makes the clients drop
// everything that would go directly, so that what arrives came by the relay.
func TestRelayCarriesTrafficWhenDirectPathsAreBlocked(t *testing.T) {
	envknob.Setenv("TS_DEBUG_NEVER_DIRECT_UDP", "true")
	defer envknob.Setenv("TS_DEBUG_NEVER_DIRECT_UDP", "")
	for name, begin := range map[string]func(*testing.T) *harness.Server{
		"self-signed certificate pinned": startHTTP,
		"certificate of an authority":    startHTTPS,
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			s.User("alice")
			key := s.Key("alice", "--reusable", "--expiration", "1h")
			alpha, beta := join(t, s, "alpha", key), join(t, s, "beta", key).echo()
			alpha.sees("beta")
			beta.sees("alpha")
			v4, v6 := beta.addresses()
			before := s.Status().Relay
			alpha.mustExchange(v4.String(), 1<<20)
			// The megabyte and its echo, by hearth's own count.
			if after := s.Status().Relay; after.BytesSent-before.BytesSent < 2<<20 {
				t.Errorf("hearth relayed %d bytes", after.BytesSent-before.BytesSent)
			}
			alpha.mustExchange(v6.String(), 1000)
			alpha.mustExchange("beta", 1000)
			if result := alpha.ping(v4); result.DERPRegionID == 0 || result.Endpoint != "" {
				t.Errorf("a ping went %+v", result)
			}
			if peer := alpha.sees("beta"); peer.CurAddr != "" || peer.Relay == "" {
				t.Errorf("alpha reaches beta at %q, relay %q", peer.CurAddr, peer.Relay)
			}
		})
	}
}

// TestRelayDoesNotLoseABurst sends megabytes one after the other. A relay has to
// drop what overflows a receiver's queue (the official one loses 2 to 3 packets in
// a hundred here), but not so much that the connection inside the tunnel stalls.
func TestRelayDoesNotLoseABurst(t *testing.T) {
	envknob.Setenv("TS_DEBUG_NEVER_DIRECT_UDP", "true")
	defer envknob.Setenv("TS_DEBUG_NEVER_DIRECT_UDP", "")
	s := startHTTP(t)
	s.User("alice")
	key := s.Key("alice", "--reusable", "--expiration", "1h")
	alpha, beta := join(t, s, "alpha", key), join(t, s, "beta", key).echo()
	alpha.sees("beta")
	address, _ := beta.addresses()
	alpha.mustExchange(address.String(), 100)
	before := s.Status().Relay
	begin := time.Now()
	for range 8 {
		alpha.mustExchange(address.String(), 1<<20)
	}
	took := time.Since(begin)
	after := s.Status().Relay
	sent, dropped := after.PacketsReceived-before.PacketsReceived, after.PacketsDropped-before.PacketsDropped
	t.Logf("16 MB in %v, %d of %d packets lost", took, dropped, sent)
	if dropped*10 > sent {
		t.Errorf("the relay lost %d of %d packets", dropped, sent)
	}
	if took > 10*time.Second {
		t.Errorf("16 MB took %v", took)
	}
}

// TestPagesAnswerOnBothListeners asks for what a person or a probe would.
func TestPagesAnswerOnBothListeners(t *testing.T) {
	s := startHTTPS(t)
	for _, base := range []string{"http://" + s.HTTP, "https://" + s.HTTPS} {
		for path, want := range map[string]int{
			"/generate_204":       http.StatusNoContent,
			"/key?v=113":          http.StatusOK,
			"/derp":               http.StatusUpgradeRequired,
			"/derp/latency-check": http.StatusOK,
			"/derp/probe":         http.StatusOK,
			"/register/nonsense":  http.StatusNotFound,
			"/no/such/page":       http.StatusNotFound,
			"/api/v1/node":        http.StatusUnauthorized,
		} {
			res, err := http.Get(base + path)
			if err != nil {
				t.Errorf("%s%s: %v", base, path, err)
				continue
			}
			res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s%s answers %d, want %d", base, path, res.StatusCode, want)
			}
		}
	}
	req, _ := http.NewRequest("GET", "http://"+s.HTTP+"/generate_204", nil)
	req.Header.Set("X-Tailscale-Challenge", "ts_"+address)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got, want := res.Header.Get("X-Tailscale-Response"), "response ts_"+address; got != want {
		t.Errorf("the captive-portal probe is answered %q, want %q", got, want)
	}
}

// TestServeSaysWhatItListensOn reads what a person sees who starts hearth.
func TestServeSaysWhatItListensOn(t *testing.T) {
	s := startHTTP(t)
	for _, wanted := range []string{"hearth ", s.HTTP, s.HTTPS, s.STUN, s.Socket, "tailscale login"} {
		if !strings.Contains(s.Log(), wanted) {
			t.Errorf("it does not print %q:\n%s", wanted, s.Log())
		}
	}
}

// TestCrossBuiltServerServesAClient is the short proof for an emulated server:
// one pair of devices, by the relay and directly. It runs only when asked for.
func TestCrossBuiltServerServesAClient(t *testing.T) {
	if os.Getenv("HEARTH_RUNNER") == "" {
		t.Skip("HEARTH_RUNNER names no emulator")
	}
	s := startHTTP(t)
	s.User("alice")
	key := s.Key("alice", "--reusable", "--expiration", "1h")
	alpha := join(t, s, "alpha", key)
	join(t, s, "beta", key).echo()
	alpha.sees("beta")
	alpha.mustExchange("beta", 10_000)
	s.Terminate()
	s.Run()
	if len(s.Nodes()) != 2 {
		t.Errorf("after a restart hearth lists %+v", s.Nodes())
	}
	harness.Eventually(t, harness.Patience, "both devices are back", func() error {
		status := s.Status()
		return harness.Check(status.Online == 2, "%+v", status)
	})
}
