package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"tailscale.com/tailcfg"

	"hearth.test/interop/harness"
)

// TestNoJoinThatWasAnsweredIsLost kills the server in the middle of many joins,
// again and again. Whoever was told "you are in" has to be in afterwards, with a
// number and an address that nobody else has.
func TestNoJoinThatWasAnsweredIsLost(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	s.User("alice")
	key := s.Key("alice", "--reusable")
	serverKey, err := harness.FetchServerKey(s.URL, tailcfg.CurrentCapabilityVersion)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	answered := map[string]bool{}
	for round := range 4 {
		var wait sync.WaitGroup
		for i := range 40 {
			hostname := fmt.Sprintf("device-%d-%d", round, i)
			client := harness.NewClient(t, s.URL, hostname, 0)
			wait.Go(func() {
				response, err := client.Register(harness.Within(t, 5*time.Second), client.RegisterRequest(key))
				if err == nil && response.Error == "" && response.AuthURL == "" {
					mu.Lock()
					answered[client.Node.Public().String()] = true
					mu.Unlock()
				}
			})
		}
		for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
			mu.Lock()
			enough := len(answered) >= round*40+15
			mu.Unlock()
			if enough {
				break
			}
		}
		s.Kill()
		wait.Wait()
		s.Run()
	}
	listed, addresses := map[string]bool{}, map[string]string{}
	for _, node := range s.Nodes() {
		listed[node.NodeKey] = true
		for _, address := range node.IPAddresses {
			if other, taken := addresses[address]; taken {
				t.Errorf("nodes %s and %s both have %s", other, node.ID, address)
			}
			addresses[address] = node.ID
		}
	}
	for key := range answered {
		if !listed[key] {
			t.Errorf("%s was told that it is in, and is not listed", key)
		}
	}
	t.Logf("%d joins were answered, %d nodes are listed", len(answered), len(listed))
	if len(answered) < 40 {
		t.Errorf("only %d joins were answered, which proves little", len(answered))
	}
	after, err := harness.FetchServerKey(s.URL, tailcfg.CurrentCapabilityVersion)
	if err != nil || after != serverKey {
		t.Errorf("the server's key was %v and is %v, error %v", serverKey, after, err)
	}
}

// TestKeyThatRunsOutCutsTheDeviceOff sets an end a moment ahead, and lets it come.
func TestKeyThatRunsOutCutsTheDeviceOff(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	region, clients := relayOf(t, s, 2)
	viewer, leaver := clients[0], clients[1]
	stream := viewer.MustMap(t, viewer.MapRequest())
	stream.Until(t, "the first map", hasSelf)
	relayed := mustRelay(t, region, leaver.Node)
	s.CLI("nodes", "expire", "-i", s.MustNode("node1").ID, "--expiry", "3s")
	mustPing(t, relayed) // the end lies ahead
	thrownOut(t, relayed)
	id := leaver.Node.Public()
	stream.Until(t, "the end of the key", func(r *tailcfg.MapResponse) bool {
		for _, patch := range r.PeersChangedPatch {
			if patch.KeyExpiry != nil && patch.KeyExpiry.Before(time.Now().Add(time.Second)) {
				return true
			}
		}
		peer := peerOf(r, id)
		return peer != nil && (peer.Expired || !peer.KeyExpiry.IsZero() && peer.KeyExpiry.Before(time.Now().Add(time.Second)))
	})
	answer, err := leaver.Register(harness.Within(t, harness.Patience), leaver.RegisterRequest(""))
	if err != nil || !answer.NodeKeyExpired {
		t.Errorf("a plain registration is answered %+v, error %v", answer, err)
	}
}

// TestInterfaceForPrograms asks for the same things by HTTP as the command line.
func TestInterfaceForPrograms(t *testing.T) {
	s := startHTTPS(t)
	s.User("alice")
	client := harness.NewClient(t, s.URL, "printer", 0)
	client.Join(t, s.Key("alice"))
	key := s.CLI("apikeys", "create")
	key = key[:len(key)-1]
	get := func(base, path, key string) (int, []byte) {
		t.Helper()
		req, err := http.NewRequest("GET", base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, body
	}
	for _, base := range []string{"http://" + s.HTTP, "https://" + s.HTTPS} {
		status, body := get(base, "/api/v1/node", key)
		var list struct {
			Nodes []harness.Node `json:"nodes"`
		}
		if err := json.Unmarshal(body, &list); err != nil || status != http.StatusOK || len(list.Nodes) != 1 || list.Nodes[0].GivenName != "printer" {
			t.Errorf("%s: status %d, error %v: %s", base, status, err, body)
		}
		for _, wrong := range []string{"", "x", key + "x", key[:len(key)-1]} {
			if status, _ := get(base, "/api/v1/node", wrong); status != http.StatusUnauthorized {
				t.Errorf("%s: the key %q is answered %d", base, wrong, status)
			}
		}
	}
	if status, body := get(s.URL, "/api/v1/user", key); status != http.StatusOK {
		t.Errorf("users: status %d: %s", status, body)
	}
}
