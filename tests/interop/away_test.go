package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"hearth.test/interop/harness"
)

// TestAwayWithoutADomain: docs/away.md. A device that joined at home by a private server URL
// leaves. Of hearth only the ports of HTTPS and STUN are open to it. Devices still reach
// each other, and the relay at home is found by its public address.
func TestAwayWithoutADomain(t *testing.T) {
	needNamespace(t)
	process, stdin, stdout := startAway(t, nil)
	wire(t, process)
	// At home: the LAN is within reach.
	lan := []string{"route", "replace", "192.168.77.0/24"}
	ip(t, process, "route", "del", "unreachable", "192.168.77.0/24")
	ip(t, process, append(lan, "via", oldWAN)...)

	// Plain HTTP listens at home only, as behind a router that forwards the other ports.
	s := start(t, harness.Options{Address: "0.0.0.0", HTTPAddress: harness.LANAddress, Host: harness.LANAddress})
	s.User("alice")
	authKey := s.Key("alice", "--reusable")
	home := join(t, s, "home", authKey).echo()
	request, _ := json.Marshal(map[string]string{
		"URL": s.URL, "Key": authKey, "Dir": filepath.Join(t.TempDir(), "away"),
	})
	fmt.Fprintf(stdin, "%s\n", request)
	go io.Copy(io.Discard, stdout)
	home.sees("away")

	var report wanReport
	s.JSON(&report, "wan")
	if got := strings.Join(report.Published, " "); got != harness.LANAddress+" "+oldWAN {
		t.Errorf("clients are told %s", got)
	}

	// It leaves. Its kernel does what that of a laptop does that changes its network.
	ip(t, process, "route", "del", "192.168.77.0/24")
	ip(t, process, "route", "add", "unreachable", "192.168.77.0/24")
	left := time.Now()
	kill := exec.Command("nsenter", "-t", fmt.Sprint(process), "-n", "ss", "-K", "dst", harness.LANAddress)
	if out, err := kill.CombinedOutput(); err != nil {
		t.Logf("%v: %s", err, out)
	}
	_, httpPort, _ := net.SplitHostPort(s.HTTP)
	probe := fmt.Sprintf("exec 3<>/dev/tcp/%s/%s", oldWAN, httpPort)
	if out, err := inside(process, "", "timeout", "5", "bash", "-c", probe); err == nil {
		t.Errorf("plain HTTP is open to the internet: %s", out)
	}
	away := home.peer("away").TailscaleIPs[0]
	harness.Eventually(t, harness.Patience, "the device that is away is reached directly", func() error {
		result := home.ping(away)
		return harness.Check(result.Err == "" && isOutside(result.Endpoint), "%+v", result)
	})
	t.Logf("it was reached directly %v after it had left", time.Since(left).Round(100*time.Millisecond))

	// The relay, as the device finds it in its last map: by the second node, which has the
	// public address and the hash of the certificate.
	derpMap, err := home.local.CurrentDERPMap(harness.Within(t, harness.Patience))
	if err != nil {
		t.Fatal(err)
	}
	nodes := derpMap.Regions[900].Nodes
	if len(nodes) != 2 || nodes[1].IPv4 != oldWAN || nodes[1].CertName == "" {
		t.Fatalf("the relay is advertised as %+v", nodes)
	}
	region := &tailcfg.DERPRegion{RegionID: 900, Nodes: nodes[1:]}
	client := derphttp.NewRegionClient(key.NewNode(), logger.Discard, netmon.NewStatic(), func() *tailcfg.DERPRegion { return region })
	defer client.Close()
	if err := client.Connect(harness.Within(t, harness.Patience)); err != nil {
		t.Errorf("the relay at its public address: %v", err)
	}
}

// isOutside says whether an endpoint is the address of the device that is away.
func isOutside(endpoint string) bool {
	address, err := netip.ParseAddrPort(endpoint)
	return err == nil && (address.Addr().String() == oldPeer || address.Addr().String() == newPeer)
}
