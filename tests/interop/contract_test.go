package interop

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"tailscale.com/control/controlbase"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"hearth.test/interop/harness"
)

// hasSelf accepts the first message of a stream.
func hasSelf(r *tailcfg.MapResponse) bool { return r.Node != nil }

// peerOf finds a peer that a message adds or replaces.
func peerOf(r *tailcfg.MapResponse, node key.NodePublic) *tailcfg.Node {
	for _, peers := range [][]*tailcfg.Node{r.Peers, r.PeersChanged} {
		for _, peer := range peers {
			if peer.Key == node {
				return peer
			}
		}
	}
	return nil
}

// patchOf finds what a message patches on a peer.
func patchOf(r *tailcfg.MapResponse, id tailcfg.NodeID) *tailcfg.PeerChange {
	for _, patch := range r.PeersChangedPatch {
		if patch.NodeID == id {
			return patch
		}
	}
	return nil
}

// TestMapContract is the story of one viewer's stream and everything that has to
// appear in it. Each message is decoded strictly on the way.
func TestMapContract(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T) *harness.Server{"http": startHTTP, "https": startHTTPS} {
		t.Run(name, func(t *testing.T) { mapContract(t, begin(t)) })
	}
}

func mapContract(t *testing.T, s *harness.Server) {
	s.User("alice")
	authKey := s.Key("alice", "--reusable")
	viewer := harness.NewClient(t, s.URL, "viewer", 0)
	response := viewer.Join(t, authKey)
	if response.Login.LoginName == "" || response.User.ID == 0 || !response.MachineAuthorized {
		t.Errorf("the registration is answered %+v", response)
	}
	stream := viewer.MustMap(t, viewer.MapRequest())

	step(t, "the first map is complete", func(t *testing.T) {
		first, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		self := first.Node
		if self == nil || first.DERPMap == nil || first.DNSConfig == nil || first.Domain == "" ||
			len(first.UserProfiles) == 0 || first.ControlTime == nil {
			t.Fatalf("the first message is %s", stream.Raw)
		}
		if self.Key != viewer.Node.Public() || self.Machine != viewer.Machine.Public() || !self.MachineAuthorized {
			t.Errorf("self is %+v", self)
		}
		if len(self.Addresses) != 2 || !self.Addresses[0].Addr().Is4() || self.Addresses[0].Bits() != 32 ||
			!self.Addresses[1].Addr().Is6() || self.Addresses[1].Bits() != 128 {
			t.Errorf("the addresses are %v", self.Addresses)
		}
		if !strings.HasSuffix(self.Name, ".") || !strings.HasPrefix(self.Name, "viewer.") {
			t.Errorf("the name is %q", self.Name)
		}
		if first.PacketFilter == nil && first.PacketFilters == nil {
			t.Error("there is no packet filter")
		}
		if _, on := self.CapMap["cache-network-maps"]; !on {
			t.Error("cache-network-maps is off")
		}
		if first.Debug == nil || !first.Debug.DisableLogTail {
			t.Error("log uploads are on")
		}
		if !first.DNSConfig.Proxied || len(first.DNSConfig.Domains) == 0 {
			t.Errorf("MagicDNS is %+v", first.DNSConfig)
		}
		for id, region := range first.DERPMap.Regions {
			if region.RegionID != id || len(region.Nodes) != 1 || region.Nodes[0].RegionID != id {
				t.Errorf("region %d is %+v", id, region)
			}
		}
		if bytes.Contains(stream.Raw, []byte(`\u`)) || bytes.Contains(stream.Raw, []byte(`\"`)) {
			t.Error("the message has JSON escapes, which the Rust client refuses")
		}
	})

	other := harness.NewClient(t, s.URL, "other", 0)
	var id tailcfg.NodeID
	var otherStream *harness.Stream
	step(t, "a device that joins and connects appears as a changed peer, online", func(t *testing.T) {
		other.Join(t, authKey)
		otherStream = other.MustMap(t, other.MapRequest())
		first := otherStream.Until(t, "the first map", hasSelf)
		if len(first.Peers) != 1 || first.Peers[0].Key != viewer.Node.Public() {
			t.Errorf("its peers are %+v", first.Peers)
		}
		message := stream.Until(t, "the new peer", func(r *tailcfg.MapResponse) bool { return peerOf(r, other.Node.Public()) != nil })
		peer := peerOf(message, other.Node.Public())
		id = peer.ID
		if peer.Online == nil {
			t.Error("the peer has no online state, without which the client ignores later ones")
		}
		if peer.HomeDERP == 0 {
			t.Error("the peer has no home relay, so a first packet to it is lost and costs five seconds")
		}
		if len(message.Peers) != 0 {
			t.Error("a running stream got a whole peer list for one new peer")
		}
		if !saysOnline(message, id, other.Node.Public(), true) {
			stream.Until(t, "online", func(r *tailcfg.MapResponse) bool { return saysOnline(r, id, other.Node.Public(), true) })
		}
	})
	step(t, "a lite update travels as a patch, and not into a stream's end", func(t *testing.T) {
		other.SendUpdate(t, other.Update(900, "192.0.2.1:41641", "[2001:db8::1]:41641", "[fe80::1]:41641"))
		stream.Until(t, "endpoints", func(r *tailcfg.MapResponse) bool {
			endpoints := changedEndpoints(r, id, other.Node.Public())
			if endpoints == nil {
				return false
			}
			if text := fmt.Sprint(endpoints); text != "[192.0.2.1:41641 [2001:db8::1]:41641]" {
				t.Errorf("the endpoints are %s", text)
			}
			return true
		})
	})
	step(t, "a disco key that changed travels too", func(t *testing.T) {
		other.Disco = key.NewDisco()
		other.SendUpdate(t, other.Update(900, "192.0.2.1:41641"))
		stream.Until(t, "the disco key", func(r *tailcfg.MapResponse) bool {
			if patch := patchOf(r, id); patch != nil && patch.DiscoKey != nil {
				return *patch.DiscoKey == other.Disco.Public()
			}
			peer := peerOf(r, other.Node.Public())
			return peer != nil && peer.DiscoKey == other.Disco.Public()
		})
	})
	step(t, "an update that changes nothing is not passed on", func(t *testing.T) {
		revision := s.Status().Revision
		other.SendUpdate(t, other.Update(900, "192.0.2.1:41641"))
		if after := s.Status().Revision; after != revision {
			t.Errorf("the revision went from %d to %d", revision, after)
		}
	})
	step(t, "a newer stream of the same device ends the older one", func(t *testing.T) {
		newer := other.MustMap(t, other.MapRequest())
		newer.Until(t, "the first map", hasSelf)
		for {
			if _, err := otherStream.Next(); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("the older stream ends with %v", err)
				}
				break
			}
		}
		otherStream = newer
		if !s.MustNode("other").Online {
			t.Error("the device counts as offline")
		}
	})
	step(t, "a device that renames itself is passed on whole", func(t *testing.T) {
		other.Hostname = "other-renamed"
		other.SendUpdate(t, other.Update(900, "192.0.2.1:41641"))
		stream.Until(t, "the new host name", func(r *tailcfg.MapResponse) bool {
			peer := peerOf(r, other.Node.Public())
			return peer != nil && peer.Hostinfo.Hostname() == "other-renamed"
		})
	})
	step(t, "a device that rotates its key stays the same peer", func(t *testing.T) {
		old := other.Node
		other.Node = key.NewNode()
		request := other.RegisterRequest(authKey)
		request.OldNodeKey = old.Public()
		if answer, err := other.Register(harness.Within(t, harness.Patience), request); err != nil || answer.Error != "" {
			t.Fatalf("%+v, error %v", answer, err)
		}
		stream.Until(t, "the new key", func(r *tailcfg.MapResponse) bool {
			if patch := patchOf(r, id); patch != nil && patch.Key != nil {
				return *patch.Key == other.Node.Public()
			}
			peer := peerOf(r, other.Node.Public())
			return peer != nil && peer.ID == id
		})
		otherStream = other.MustMap(t, other.MapRequest())
		otherStream.Until(t, "the first map", hasSelf)
	})
	step(t, "a device that goes away is reported offline with the time", func(t *testing.T) {
		otherStream.Close()
		offline := stream.Until(t, "offline", func(r *tailcfg.MapResponse) bool { return saysOnline(r, id, other.Node.Public(), false) })
		if patch := patchOf(offline, id); patch != nil && patch.LastSeen == nil {
			t.Error("the message has no time of last contact")
		}
	})
	step(t, "a deleted device is removed", func(t *testing.T) {
		s.CLI("nodes", "delete", "-i", fmt.Sprint(int64(id)))
		stream.Until(t, "the removal", func(r *tailcfg.MapResponse) bool {
			for _, removed := range r.PeersRemoved {
				if removed == id {
					return true
				}
			}
			return false
		})
		// An error would not make its client log in again.
		own, err := other.MustMap(t, other.MapRequest()).Next()
		if err != nil || own.Node == nil || !own.Node.Expired || own.Peers != nil {
			t.Errorf("its poll is answered with %+v, %v", own, err)
		}
	})
	step(t, "a poll that is no stream ends after one complete map", func(t *testing.T) {
		request := viewer.MapRequest()
		request.Stream, request.ReadOnly = false, true
		once := viewer.MustMap(t, request)
		if message, err := once.Next(); err != nil || message.Node == nil {
			t.Fatalf("%+v, error %v", message, err)
		}
		if _, err := once.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("then it ends with %v", err)
		}
		if !s.MustNode("viewer").Online {
			t.Error("it ended the running stream")
		}
	})
	step(t, "a map that was asked for uncompressed comes uncompressed", func(t *testing.T) {
		plain := harness.NewClient(t, s.URL, "plain", 0)
		plain.Join(t, authKey)
		request := plain.MapRequest()
		request.Compress = ""
		message, err := plain.MustMap(t, request).Next()
		if err != nil || message.Node == nil {
			t.Fatalf("%+v, error %v", message, err)
		}
		stream.Until(t, "the peer", func(r *tailcfg.MapResponse) bool { return peerOf(r, plain.Node.Public()) != nil })
	})
	step(t, "expiry reaches the device itself", func(t *testing.T) {
		s.CLI("nodes", "expire", "-i", s.MustNode("viewer").ID)
		expired := func(n *tailcfg.Node) bool {
			return n != nil && (n.Expired || (!n.KeyExpiry.IsZero() && n.KeyExpiry.Before(time.Now().Add(time.Second))))
		}
		timer := time.AfterFunc(harness.Patience, stream.Close)
		defer timer.Stop()
		for {
			message, err := stream.Next()
			if errors.Is(err, io.EOF) {
				break // it may be told by the end of its stream
			}
			if err != nil {
				t.Fatal(err)
			}
			if expired(message.Node) {
				break
			}
		}
		answer, err := viewer.Register(harness.Within(t, harness.Patience), viewer.RegisterRequest(""))
		if err != nil || !answer.NodeKeyExpired {
			t.Errorf("a plain registration is answered %+v, error %v", answer, err)
		}
	})
}

// saysOnline says whether a message sets the peer's online state to what is
// wanted, in any of the forms there are.
func saysOnline(r *tailcfg.MapResponse, id tailcfg.NodeID, node key.NodePublic, want bool) bool {
	if online, ok := r.OnlineChange[id]; ok && online == want {
		return true
	}
	if patch := patchOf(r, id); patch != nil && patch.Online != nil && *patch.Online == want {
		return true
	}
	peer := peerOf(r, node)
	return peer != nil && peer.Online != nil && *peer.Online == want
}

// changedEndpoints returns a peer's endpoints if a message sets any.
func changedEndpoints(r *tailcfg.MapResponse, id tailcfg.NodeID, node key.NodePublic) any {
	if patch := patchOf(r, id); patch != nil && len(patch.Endpoints) > 0 {
		return patch.Endpoints
	}
	if peer := peerOf(r, node); peer != nil && len(peer.Endpoints) > 0 {
		return peer.Endpoints
	}
	return nil
}

// keepAliveWithin is the longest silence of a map stream: limits.keepalive (40 s)
// with its jitter of 5 s, which is what proxies that cut idle connections after a
// minute need. The rest is for a busy machine.
const keepAliveWithin = 45*time.Second + 5*time.Second

// TestKeepAlivesComeAndAreNotTheTrap waits for one keep-alive. The client has a fast path for exactly {"KeepAlive":true} that can
// swallow a following message, so this must not be its text.
func TestKeepAlivesComeAndAreNotTheTrap(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 45 s")
	}
	t.Parallel()
	s := startHTTP(t)
	s.User("alice")
	client := harness.NewClient(t, s.URL, "patient", 0)
	client.Join(t, s.Key("alice"))
	stream := client.MustMap(t, client.MapRequest())
	timer := time.AfterFunc(keepAliveWithin, stream.Close)
	defer timer.Stop()
	for {
		message, err := stream.Next()
		if err != nil {
			t.Fatalf("waiting for a keep-alive: %v", err)
		}
		if !message.KeepAlive {
			timer.Reset(keepAliveWithin)
			continue
		}
		if text := string(stream.Raw); text == `{"KeepAlive":true}` {
			t.Errorf("the keep-alive is exactly %s", text)
		}
		return
	}
}

// TestCapabilityVersions tries old and new clients.
func TestCapabilityVersions(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	s.User("alice")
	authKey := s.Key("alice", "--reusable")
	for _, version := range []tailcfg.CapabilityVersion{90, 106, 113, tailcfg.CurrentCapabilityVersion} {
		t.Run(fmt.Sprintf("version %d works", version), func(t *testing.T) {
			client := harness.NewClient(t, s.URL, fmt.Sprintf("v%d", version), version)
			client.Join(t, authKey)
			client.SendUpdate(t, client.Update(900, "192.0.2.7:41641"))
			peer := harness.NewClient(t, s.URL, fmt.Sprintf("peer-of-v%d", version), 0)
			peer.Join(t, authKey)
			peer.MustMap(t, peer.MapRequest()).Until(t, "the first map", hasSelf)
			peer.SendUpdate(t, peer.Update(900, "192.0.2.8:41641"))
			first := client.MustMap(t, client.MapRequest()).Until(t, "the first map", hasSelf)
			seen := peerOf(first, peer.Node.Public())
			if seen == nil {
				t.Fatal("it does not see its peer")
			}
			// The forms that replaced these are younger than some clients.
			if version < 111 && seen.LegacyDERPString != "127.3.3.40:900" {
				t.Errorf("the home relay of the peer is %q", seen.LegacyDERPString)
			}
			if version < 112 && len(seen.AllowedIPs) != 2 {
				t.Errorf("the allowed addresses of the peer are %v", seen.AllowedIPs)
			}
			if version >= 111 && seen.HomeDERP != 900 {
				t.Errorf("the home relay of the peer is %d", seen.HomeDERP)
			}
		})
	}
	for _, version := range []tailcfg.CapabilityVersion{1, 68, 89} {
		t.Run(fmt.Sprintf("version %d is refused", version), func(t *testing.T) {
			client := harness.NewClient(t, s.URL, "old", tailcfg.CurrentCapabilityVersion)
			request := client.RegisterRequest(authKey)
			request.Version = version
			body, _ := json.Marshal(request)
			status, answer, err := client.Post(harness.Within(t, harness.Patience), "/machine/register", body)
			if err != nil || status != http.StatusBadRequest || len(answer) == 0 {
				t.Errorf("registration: status %d, error %v: %s", status, err, answer)
			}
			poll := client.MapRequest()
			poll.Version = version
			var refusal *harness.StatusError
			if _, err := client.Map(harness.Within(t, harness.Patience), poll); !errors.As(err, &refusal) || refusal.Status != http.StatusBadRequest {
				t.Errorf("poll: %v", err)
			}
		})
	}
}

// TestRequestsThatAreWrong sends what no client sends. Each must be answered
// with a clear error, or the connection closed; and the server must live.
func TestRequestsThatAreWrong(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	s.User("alice")
	authKey := s.Key("alice", "--reusable")
	good := harness.NewClient(t, s.URL, "good", 0)
	good.Join(t, authKey)
	post := func(t *testing.T, path string, body []byte, want ...int) {
		t.Helper()
		client := harness.NewClient(t, s.URL, "bad", 0)
		status, answer, err := client.Post(harness.Within(t, harness.Patience), path, body)
		s.Alive()
		if err != nil {
			// A server may also close the connection on a body that is too large.
			if len(body) > 64<<10 && len(want) > 0 && want[0] == http.StatusRequestEntityTooLarge {
				return
			}
			t.Fatalf("no answer: %v", err)
		}
		for _, w := range want {
			if status == w {
				if len(bytes.TrimSpace(answer)) == 0 {
					t.Errorf("status %d comes without a text", status)
				}
				return
			}
		}
		t.Errorf("status %d, want one of %v: %.200s", status, want, answer)
	}
	t.Run("a body that is no JSON", func(t *testing.T) {
		post(t, "/machine/register", []byte("{"), 400)
		post(t, "/machine/map", []byte("not json"), 400)
		post(t, "/machine/map", nil, 400)
	})
	t.Run("JSON of the wrong shape", func(t *testing.T) {
		post(t, "/machine/register", []byte(`[]`), 400)
		post(t, "/machine/register", []byte(`{"Version":"high"}`), 400)
		post(t, "/machine/map", []byte(`{"Version":145,"NodeKey":"nodekey:zz"}`), 400)
	})
	t.Run("JSON that is nested very deeply", func(t *testing.T) {
		deep := strings.Repeat("[", 30_000)
		post(t, "/machine/register", []byte(`{"Hostinfo":`+deep), 400)
	})
	t.Run("a body that is too large", func(t *testing.T) {
		large := []byte(`{"Version":145,"Followup":"` + strings.Repeat("x", 2<<20) + `"}`)
		post(t, "/machine/register", large, 413)
		post(t, "/machine/map", large, 413)
	})
	t.Run("no such path", func(t *testing.T) { post(t, "/machine/no-such-thing", []byte("{}"), 404, 501) })
	t.Run("a poll for a node that is not there", func(t *testing.T) {
		client := harness.NewClient(t, s.URL, "ghost", 0)
		// An error would not make its client log in again; an update changes nothing.
		own, err := client.MustMap(t, client.MapRequest()).Next()
		if err != nil || own.Node == nil || !own.Node.Expired || own.Node.Key != client.Node.Public() || own.Peers != nil {
			t.Errorf("its poll is answered with %+v, %v", own, err)
		}
		body, _ := json.Marshal(client.Update(900, "192.0.2.66:1"))
		post(t, "/machine/map", body, 404, 401)
	})
	t.Run("a poll for the node of another machine", func(t *testing.T) {
		thief := harness.NewClient(t, s.URL, "thief", 0)
		thief.Node = good.Node
		body, _ := json.Marshal(thief.MapRequest())
		status, answer, err := thief.Post(harness.Within(t, harness.Patience), "/machine/map", body)
		if err != nil || (status != 401 && status != 403 && status != 404) {
			t.Errorf("status %d, error %v: %.200s", status, err, answer)
		}
		register, err := thief.Register(harness.Within(t, harness.Patience), thief.RegisterRequest(authKey))
		if err == nil && register.Error == "" {
			t.Errorf("the node key of another machine was taken over: %+v", register)
		}
		if update := thief.Update(900, "192.0.2.66:1"); update != nil {
			body, _ := json.Marshal(update)
			if status, _, err := thief.Post(harness.Within(t, harness.Patience), "/machine/map", body); err != nil || status == 200 {
				t.Errorf("its endpoints could be set: status %d, error %v", status, err)
			}
		}
	})
	t.Run("a logout by another machine", func(t *testing.T) {
		thief := harness.NewClient(t, s.URL, "thief", 0)
		thief.Node = good.Node
		request := thief.RegisterRequest("")
		request.Expiry = time.Unix(123, 0)
		thief.Register(harness.Within(t, harness.Patience), request)
		answer, err := good.Register(harness.Within(t, harness.Patience), good.RegisterRequest(""))
		if err != nil || answer.NodeKeyExpired || answer.Error != "" {
			t.Errorf("the victim is answered %+v, error %v", answer, err)
		}
	})
	t.Run("strange host names", func(t *testing.T) {
		for _, hostname := range []string{"", "-", "....", "Ünïcødé", "a b\tc", "\"quoted\\\"", strings.Repeat("long", 100), "good", "localhost"} {
			client := harness.NewClient(t, s.URL, hostname, 0)
			client.Join(t, authKey)
			first := client.MustMap(t, client.MapRequest()).Until(t, "the first map", hasSelf)
			label, _, _ := strings.Cut(first.Node.Name, ".")
			if label == "" || len(label) > 63 || label != strings.ToLower(label) || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
				t.Errorf("%q becomes %q", hostname, first.Node.Name)
			}
		}
		names := map[string]bool{}
		for _, node := range s.Nodes() {
			if names[node.GivenName] {
				t.Errorf("two devices are called %q", node.GivenName)
			}
			names[node.GivenName] = true
		}
	})
	t.Run("bytes that are no handshake", func(t *testing.T) { brokenHandshakes(t, s) })

	good.Join(t, authKey)
	s.Alive()
}

// brokenHandshakes speaks to /ts2021 itself.
func brokenHandshakes(t *testing.T, s *harness.Server) {
	upgrade := func(headers string) (string, net.Conn) {
		conn, err := net.Dial("tcp", s.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(harness.Patience))
		fmt.Fprintf(conn, "POST /ts2021 HTTP/1.1\r\nHost: %s\r\n%s\r\n", s.HTTP, headers)
		answer := make([]byte, 4096)
		n, _ := conn.Read(answer)
		return string(answer[:n]), conn
	}
	const protocol = "Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
	for name, headers := range map[string]string{
		"no upgrade":         "",
		"another protocol":   "Upgrade: spdy\r\nConnection: upgrade\r\n",
		"no handshake":       protocol,
		"bad base64":         protocol + "X-Tailscale-Handshake: ///***\r\n",
		"a short handshake":  protocol + "X-Tailscale-Handshake: AQID\r\n",
		"headers too large":  "X-Filler: " + strings.Repeat("x", 64<<10) + "\r\n",
		"a handshake of 'x'": protocol + "X-Tailscale-Handshake: " + strings.Repeat("eHh4", 34) + "\r\n",
	} {
		answer, conn := upgrade(headers)
		conn.Close()
		if strings.HasPrefix(answer, "HTTP/1.1 2") {
			t.Errorf("%s: %.200q", name, answer)
		}
		s.Alive()
	}

	// A handshake that is right, and then records that are not.
	serverKey, err := harness.FetchServerKey(s.URL, tailcfg.CurrentCapabilityVersion)
	if err != nil {
		t.Fatal(err)
	}
	for name, record := range map[string][]byte{
		"a record of another type":  {9, 0, 1, 0},
		"a record that is too long": {4, 0xff, 0xff, 1, 2, 3},
		"a record of garbage":       append([]byte{4, 0, 32}, make([]byte, 32)...),
		"an empty record":           {4, 0, 0},
	} {
		init, _, err := controlbase.ClientDeferred(key.NewMachine(), serverKey, uint16(tailcfg.CurrentCapabilityVersion))
		if err != nil {
			t.Fatal(err)
		}
		answer, conn := upgrade(protocol + "X-Tailscale-Handshake: " + base64.StdEncoding.EncodeToString(init) + "\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 101") {
			t.Fatalf("%s: a good handshake is answered %.200q", name, answer)
		}
		conn.Write(record)
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
		conn.Close()
		s.Alive()
	}
}
