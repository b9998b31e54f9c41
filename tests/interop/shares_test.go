package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"tailscale.com/tailcfg"

	"hearth.test/interop/harness"
)

// TestUnreadStreamsOfOneNodeKeepNobodyWaiting opens many map streams of one
// node and reads none of them.
func TestUnreadStreamsOfOneNodeKeepNobodyWaiting(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: "[limits]\nmap_streams = 4\nfull_map_builds = 1\n"})
	s.User("alice")
	reusable := s.Key("alice", "--reusable")
	greedy, victim := harness.NewClient(t, s.URL, "greedy", 0), harness.NewClient(t, s.URL, "victim", 0)
	greedy.Join(t, reusable)
	victim.Join(t, reusable)
	for _, once := range []bool{false, true} {
		// Windows from "not a byte" to "a part of the map".
		for _, window := range []uint32{0, 1, 1000} {
			t.Run(fmt.Sprintf("once %v, window %d", once, window), func(t *testing.T) {
				request := greedy.MapRequest()
				request.Stream = !once
				body, err := json.Marshal(request)
				if err != nil {
					t.Fatal(err)
				}
				var connections []*harness.Raw
				for range 4 {
					connection := harness.DialRaw(t, s, greedy.Machine, window)
					connections = append(connections, connection)
					for range 8 {
						connection.Post(t, "/machine/map", body)
					}
				}
				begun := time.Now()
				stream := victim.MustMap(t, victim.MapRequest())
				if _, err := stream.Next(); err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(begun); waited > 2*time.Second {
					t.Errorf("another node got its first map after %v", waited)
				}
				harness.Eventually(t, harness.Patience, "all but one are over", func() error {
					open := 0
					for _, connection := range connections {
						open += len(connection.Open())
						for _, code := range connection.Resets() {
							if code != http2.ErrCodeCancel {
								return fmt.Errorf("reset with %v", code)
							}
						}
					}
					return harness.Check(open <= 1, "%d are open", open)
				})
				stream.Close()
			})
		}
	}
}

// TestNodesWithoutApprovalCrowdOutNobody fills all places with nodes that wait
// for approval.
func TestNodesWithoutApprovalCrowdOutNobody(t *testing.T) {
	s := start(t, harness.Options{
		Address: address, Config: "[node]\napproval = true\n[limits]\nmap_streams = 4\n",
	})
	s.User("alice")
	approved := harness.NewClient(t, s.URL, "approved", 0)
	approved.Join(t, s.Key("alice"))
	waiting := s.Key("alice", "--reusable", "--preauthorized=false")
	for i := range 4 {
		client := harness.NewClient(t, s.URL, fmt.Sprint("waiting", i), 0)
		client.Join(t, waiting)
		stream := client.MustMap(t, client.MapRequest())
		if _, err := stream.Next(); err != nil {
			t.Fatal(err)
		}
	}
	late := harness.NewClient(t, s.URL, "late", 0)
	late.Join(t, waiting)
	if _, err := late.Map(t.Context(), late.MapRequest()); err == nil || !strings.Contains(err.Error(), "http 503") {
		t.Errorf("a fifth stream: %v", err)
	}
	stream := approved.MustMap(t, approved.MapRequest())
	if _, err := stream.Next(); err != nil {
		t.Fatal(err)
	}
}

// TestFloodOfUpdatesOfOneNode sends updates of one node as fast as it can,
// while another sends its own.
func TestFloodOfUpdatesOfOneNode(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: "[limits]\nengine_queue = 16\nengine_batch = 1\n"})
	s.User("alice")
	reusable := s.Key("alice", "--reusable")
	greedy, victim := harness.NewClient(t, s.URL, "greedy", 0), harness.NewClient(t, s.URL, "victim", 0)
	greedy.Join(t, reusable)
	victim.Join(t, reusable)
	done := make(chan struct{})
	var flood sync.WaitGroup
	for i := range 32 {
		flood.Add(1)
		go func() {
			defer flood.Done()
			for number := 0; ; number++ {
				select {
				case <-done:
					return
				default:
				}
				request := greedy.Update(900, fmt.Sprintf("192.0.2.%d:%d", i+1, number%60000+1))
				body, _ := json.Marshal(request)
				greedy.Post(t.Context(), "/machine/map", body)
			}
		}()
	}
	for number := range 48 {
		victim.SendUpdate(t, victim.Update(900, fmt.Sprintf("198.51.100.1:%d", number+1)))
	}
	close(done)
	flood.Wait()
	s.CLI("nodes", "list")
}

// TestEndpointsThatNobodyCanUseAreNotPassedOn reports all kinds of endpoints.
func TestEndpointsThatNobodyCanUseAreNotPassedOn(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	reusable := s.Key("alice", "--reusable")
	odd, viewer := harness.NewClient(t, s.URL, "odd", 0), harness.NewClient(t, s.URL, "viewer", 0)
	odd.Join(t, reusable)
	viewer.Join(t, reusable)
	odd.MustMap(t, odd.MapRequest())
	odd.SendUpdate(t, odd.Update(0, "0.0.0.0:1", "127.0.0.1:1", "255.255.255.255:1", "224.0.0.1:1", "100.64.0.9:1",
		"192.168.1.7:0", "[::]:1", "[::1]:1", "[ff02::1]:1", "[fd7a:115c:a1e0::5]:1", "[::ffff:127.0.0.1]:1",
		"192.168.1.7:41641", "[2001:db8::7]:41641"))
	stream := viewer.MustMap(t, viewer.MapRequest())
	stream.Until(t, "the endpoints", func(message *tailcfg.MapResponse) bool {
		for _, peer := range message.Peers {
			if strings.HasPrefix(peer.Name, "odd.") && len(peer.Endpoints) > 0 {
				if got := fmt.Sprint(peer.Endpoints); got != "[192.168.1.7:41641 [2001:db8::7]:41641]" {
					t.Errorf("endpoints %s", got)
				}
				return true
			}
		}
		return false
	})
}

// TestDeletedDeviceAsksToLogInAgain deletes devices while they are connected,
// and while they are not.
func TestDeletedDeviceAsksToLogInAgain(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	reusable := s.Key("alice", "--reusable")
	step(t, "a stock client that is connected", func(t *testing.T) {
		stays, goes := join(t, s, "stays", reusable), join(t, s, "goes", reusable)
		stays.sees("goes")
		s.CLI("nodes", "delete", "goes")
		harness.Eventually(t, harness.Patience, "the client asks to log in", func() error {
			state := goes.status().BackendState
			return harness.Check(state == "NeedsLogin", "it is %s", state)
		})
		stays.losesSight("goes")
		if state := stays.status().BackendState; state != "Running" {
			t.Errorf("the other one is %s", state)
		}
	})
	step(t, "the last message says so, and so does a later poll, which stays open", func(t *testing.T) {
		client := harness.NewClient(t, s.URL, "raw", 0)
		client.Join(t, reusable)
		stream := client.MustMap(t, client.MapRequest())
		if _, err := stream.Next(); err != nil {
			t.Fatal(err)
		}
		isFarewell := func(message *tailcfg.MapResponse) bool {
			node := message.Node
			return node != nil && node.Expired && !node.KeyExpiry.IsZero() && node.KeyExpiry.Before(time.Now())
		}
		s.CLI("nodes", "delete", "raw")
		stream.Until(t, "the farewell", isFarewell)
		if message, err := stream.Next(); err == nil {
			t.Errorf("after the farewell: %+v", message)
		}
		later := client.MustMap(t, client.MapRequest())
		if message, err := later.Next(); err != nil || !isFarewell(message) {
			t.Fatalf("a later poll: %+v, %v", message, err)
		}
		ended := make(chan error, 1)
		go func() { ended <- later.Read() }()
		select {
		case err := <-ended:
			t.Errorf("the later poll ends at once: %v", err)
		case <-time.After(500 * time.Millisecond):
		}
		request := client.MapRequest()
		request.Stream = false
		once, err := client.Map(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if message, err := once.Next(); err != nil || !isFarewell(message) {
			t.Errorf("a single map: %+v, %v", message, err)
		}
		body, _ := json.Marshal(client.Update(0))
		if status, _, err := client.Post(t.Context(), "/machine/map", body); err != nil || status != http.StatusNotFound {
			t.Errorf("an update: %d, %v", status, err)
		}
	})
}

// TestNewOwnerIsShownAtOnce gives a device to somebody whom the other device
// has not heard of.
func TestNewOwnerIsShownAtOnce(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	s.User("ben")
	reusable := s.Key("alice", "--reusable")
	viewer, moved := join(t, s, "viewer", reusable), join(t, s, "moved", reusable)
	viewer.sees("moved")
	moved.sees("viewer")
	for _, change := range []struct {
		owner string
		args  []string
	}{
		{"ben", []string{"nodes", "move", "moved", "--user", "ben"}},
		{"tagged-devices", []string{"nodes", "tag", "moved", "-t", "tag:server"}},
	} {
		s.CLI(change.args...)
		harness.Eventually(t, harness.Patience, "the other device shows "+change.owner, func() error {
			peer := viewer.peer("moved")
			if peer == nil {
				return fmt.Errorf("it is gone")
			}
			owner := viewer.status().User[peer.UserID].LoginName
			return harness.Check(owner == change.owner, "it shows %q of %v", owner, peer.UserID)
		})
	}
}

// TestBodiesWithManyValues sends what would be large once it is decoded.
func TestBodiesWithManyValues(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	known := harness.NewClient(t, s.URL, "known", 0)
	known.Join(t, s.Key("alice"))
	stranger := harness.NewClient(t, s.URL, "stranger", 0)
	send := func(who *harness.Client, path, hostinfo string, wanted int) {
		t.Helper()
		body := fmt.Sprintf(`{"Version":%d,"NodeKey":%q,"OmitPeers":true,"Hostinfo":%s}`,
			who.Version, who.Node.Public().String(), hostinfo)
		status, text, err := who.Post(t.Context(), path, []byte(body))
		if err != nil || status != wanted {
			t.Errorf("%s of %s with %d bytes: %d %.100s, %v, want %d", path, who.Hostname, len(body), status, text, err, wanted)
		}
	}
	for _, path := range []string{"/machine/register", "/machine/map"} {
		for _, piece := range []string{"[]", "{}", "1", `""`, `{"":1}`} {
			many := strings.Repeat(piece+",", 4500) + piece
			if len(many) < 30_000 {
				send(stranger, path, `{"X":[`+many+`]}`, http.StatusBadRequest)
			}
			send(known, path, `{"X":[`+many+`]}`, http.StatusBadRequest)
		}
		send(stranger, path, `{"X":`+strings.Repeat("[", 500)+strings.Repeat("]", 500)+`}`, http.StatusBadRequest)
		send(stranger, path, `{"X":"`+strings.Repeat("x", 40_000)+`"}`, http.StatusRequestEntityTooLarge)
		send(known, path, `{"X":"`+strings.Repeat("x", 40_000)+`"}`, http.StatusOK)
	}
	// A router with a thousand routes asks to join.
	routes := make([]string, 1000)
	for i := range routes {
		routes[i] = fmt.Sprintf(`"10.%d.%d.0/24"`, 100+i/250, i%250)
	}
	send(stranger, "/machine/register", `{"Hostname":"router","RoutableIPs":[`+strings.Join(routes, ",")+`]}`, http.StatusOK)
}
