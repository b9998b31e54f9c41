package interop

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tailscale.com/ipn"
	"tailscale.com/types/views"

	"hearth.test/interop/harness"
)

// edit changes preferences of the device's client.
func (d *device) edit(prefs *ipn.MaskedPrefs) {
	d.t.Helper()
	if _, err := d.local.EditPrefs(harness.Within(d.t, harness.Patience), prefs); err != nil {
		d.t.Fatalf("%s takes preferences: %v", d.Hostname, err)
	}
}

// advertise has the device offer routes.
func (d *device) advertise(routes ...netip.Prefix) {
	d.t.Helper()
	d.edit(&ipn.MaskedPrefs{
		Prefs:              ipn.Prefs{AdvertiseRoutes: routes},
		AdvertiseRoutesSet: true,
	})
}

// routesTo waits until the device's map has the route as allowed for the other
// one, or no longer has it.
func (d *device) routesTo(hostname string, route netip.Prefix, want bool) {
	d.t.Helper()
	what := fmt.Sprintf("%s has the route %v to %s: %v", d.Hostname, route, hostname, want)
	harness.Eventually(d.t, harness.Patience, what, func() error {
		peer := d.peer(hostname)
		if peer == nil || peer.AllowedIPs == nil {
			return fmt.Errorf("its entry is %+v", peer)
		}
		has := views.SliceContains(*peer.AllowedIPs, route)
		return harness.Check(has == want, "allowed are %v", peer.AllowedIPs)
	})
}

// routes are the columns of `hearth nodes list-routes` for a node.
func routes(s *harness.Server, name string) (offered, approved, serving []string) {
	var nodes []struct {
		GivenName       string   `json:"givenName"`
		AvailableRoutes []string `json:"availableRoutes"`
		ApprovedRoutes  []string `json:"approvedRoutes"`
		SubnetRoutes    []string `json:"subnetRoutes"`
	}
	s.JSON(&nodes, "nodes", "list-routes")
	for _, node := range nodes {
		if node.GivenName == name {
			return node.AvailableRoutes, node.ApprovedRoutes, node.SubnetRoutes
		}
	}
	return nil, nil, nil
}

// A route that a client offers is used once it is approved, and what lies behind
// it is reached; a second router takes over when the first one leaves.
func TestSubnetRoutes(t *testing.T) {
	s := startHTTP(t)
	s.User("anna")
	lan := netip.MustParsePrefix("10.77.0.0/24")
	router := join(t, s, "router", s.Key("anna"))
	// The "machines" of the LAN answer with the address that they were called by.
	answer := func(src, dst netip.AddrPort) (func(net.Conn), bool) {
		if !lan.Contains(dst.Addr()) {
			return nil, false
		}
		return func(conn net.Conn) {
			defer conn.Close()
			fmt.Fprint(conn, dst.Addr())
		}, true
	}
	router.RegisterFallbackTCPHandler(answer)
	phone := join(t, s, "phone", s.Key("anna"))
	phone.edit(&ipn.MaskedPrefs{Prefs: ipn.Prefs{RouteAll: true}, RouteAllSet: true})
	phone.sees("router")

	router.advertise(lan)
	harness.Eventually(t, harness.Patience, "the offer is listed", func() error {
		offered, approved, _ := routes(s, "router")
		return harness.Check(slices.Equal(offered, []string{lan.String()}) && len(approved) == 0,
			"offered are %v, approved %v", offered, approved)
	})
	if status := s.CLI("status"); !strings.Contains(status, "routes of router") {
		t.Errorf("the status does not tell of the route that waits:\n%s", status)
	}
	phone.routesTo("router", lan, false)

	s.CLI("nodes", "approve-routes", "router", "-r", lan.String())
	phone.routesTo("router", lan, true)
	if _, _, serving := routes(s, "router"); !slices.Equal(serving, []string{lan.String()}) {
		t.Errorf("router serves %v", serving)
	}
	call := func(ctx context.Context) (string, error) {
		conn, err := phone.Dial(ctx, "tcp", "10.77.0.5:80")
		if err != nil {
			return "", err
		}
		defer conn.Close()
		text, err := io.ReadAll(conn)
		return string(text), err
	}
	if text, err := call(harness.Within(t, harness.Patience)); err != nil || text != "10.77.0.5" {
		t.Errorf("a machine of the LAN answers %q, error %v", text, err)
	}

	spare := join(t, s, "spare", s.Key("anna"))
	spare.RegisterFallbackTCPHandler(answer)
	spare.advertise(lan)
	s.CLI("nodes", "approve-routes", "spare", "-r", lan.String())
	phone.sees("spare")
	phone.routesTo("spare", lan, false)
	router.Close()
	phone.routesTo("spare", lan, true)
	phone.routesTo("router", lan, false)
	if text, err := call(harness.Within(t, harness.Patience)); err != nil || text != "10.77.0.5" {
		t.Errorf("behind the spare router a machine of the LAN answers %q, error %v", text, err)
	}

	s.CLI("nodes", "approve-routes", "spare", "-r", "")
	phone.routesTo("spare", lan, false)
}

// An exit node is offered to others once one of its two routes is approved.
func TestExitNode(t *testing.T) {
	s := startHTTP(t)
	s.User("anna")
	exit := join(t, s, "exit", s.Key("anna"))
	phone := join(t, s, "phone", s.Key("anna"))
	phone.sees("exit")
	exit.advertise(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
	harness.Eventually(t, harness.Patience, "the offer is listed", func() error {
		offered, _, _ := routes(s, "exit")
		return harness.Check(len(offered) == 2, "offered are %v", offered)
	})
	if phone.peer("exit").ExitNodeOption {
		t.Error("it is an exit node before anybody approved it")
	}
	s.CLI("nodes", "approve-routes", "exit", "-r", "0.0.0.0/0")
	harness.Eventually(t, harness.Patience, "exit is an exit node", func() error {
		peer := phone.peer("exit")
		return harness.Check(peer.ExitNodeOption, "its entry is %+v", peer)
	})
}

// A device that needs approval says so, sees nobody until it has it, and takes
// part at once when it does.
func TestDeviceApproval(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: "[node]\napproval = true\n"})
	s.User("anna")
	old := join(t, s, "old", s.Key("anna")).echo()
	guest := newDevice(t, s, "", "guest", s.Key("anna", "--preauthorized=false")).begin()
	guest.state("NeedsMachineAuth")
	if peer := old.peer("guest"); peer != nil {
		t.Errorf("others see the device that waits: %+v", peer)
	}
	if status := s.CLI("status"); !strings.Contains(status, "guest needs approval") {
		t.Errorf("the status does not tell of the device that waits:\n%s", status)
	}
	s.CLI("nodes", "approve", "guest")
	guest.state("Running")
	guest.sees("old")
	old.sees("guest")
	guest.mustExchange("old", 1000)
	s.CLI("nodes", "disapprove", "guest")
	guest.state("NeedsMachineAuth")
	old.losesSight("guest")
}

// What an administrator changes about a node reaches its client and its peers
// while they run.
func TestAdministratorsChangesAreLive(t *testing.T) {
	s := startHTTP(t)
	s.User("anna")
	s.User("ben")
	nas := join(t, s, "nas", s.Key("anna")).echo()
	phone := join(t, s, "phone", s.Key("anna"))
	phone.sees("nas")

	s.CLI("nodes", "set-ip", "nas", "--ipv4", "100.99.0.7", "--ipv6", "fd7a:115c:a1e0::99")
	v4, v6 := netip.MustParseAddr("100.99.0.7"), netip.MustParseAddr("fd7a:115c:a1e0::99")
	harness.Eventually(t, harness.Patience, "both have the new addresses", func() error {
		self, peer := nas.status().TailscaleIPs, phone.peer("nas").TailscaleIPs
		want := []netip.Addr{v4, v6}
		return harness.Check(slices.Equal(self, want) && slices.Equal(peer, want),
			"nas has %v, phone knows %v", self, peer)
	})
	phone.mustExchange(v4.String(), 1000)

	s.CLI("nodes", "tag", "nas", "-t", "tag:nas,tag:home")
	harness.Eventually(t, harness.Patience, "both know the tags", func() error {
		self, peer := nas.status().Self.Tags, phone.peer("nas").Tags
		has := self != nil && peer != nil && self.Len() == 2 && peer.Len() == 2
		return harness.Check(has, "nas has %v, phone knows %v", self, peer)
	})

	s.CLI("nodes", "move", "nas", "-u", "ben")
	harness.Eventually(t, harness.Patience, "both know the new owner", func() error {
		// The users in a client's status are those of its last full map; this asks for those of now.
		ctx := harness.Within(t, harness.Patience)
		here, err := nas.local.WhoIs(ctx, v4.String())
		if err != nil {
			return err
		}
		there, err := phone.local.WhoIs(ctx, v4.String())
		if err != nil {
			return err
		}
		known := []string{here.UserProfile.LoginName, there.UserProfile.LoginName}
		return harness.Check(slices.Equal(known, []string{"ben", "ben"}) && there.Node.Tags == nil,
			"nas and phone know %q, tags %v", known, there.Node.Tags)
	})
	phone.mustExchange("nas", 1000)
}

// A WireGuard-only peer is in the maps of clients with its routes.
func TestWireGuardOnlyPeer(t *testing.T) {
	s := startHTTP(t)
	s.User("anna")
	phone := join(t, s, "phone", s.Key("anna"))
	s.CLI("nodes", "add-wireguard", "berlin", "--key", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
		"--endpoint", "203.0.113.5:51820", "--exit-node", "--dns", "10.9.0.1", "--routes", "10.9.0.0/16")
	peer := phone.sees("berlin")
	if !peer.ExitNodeOption {
		t.Errorf("it is no exit node: %+v", peer)
	}
	phone.routesTo("berlin", netip.MustParsePrefix("10.9.0.0/16"), true)
	s.CLI("nodes", "delete", "berlin")
	phone.losesSight("berlin")
}
