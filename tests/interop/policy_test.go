package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/tailcfg"

	"hearth.test/interop/harness"
)

// atOnce is the promise for how soon live nodes live by a new policy.
func atOnce() time.Duration {
	if os.Getenv("HEARTH_RUNNER") != "" {
		return 20 * time.Second
	}
	return time.Second
}

// setPolicy sets a policy by the command line.
func setPolicy(t *testing.T, s *harness.Server, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.hujson")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.CLI("policy", "set", file)
}

// reaches waits until the echo service of a host answers the device, or no
// longer does, and fails unless that is so before the patience ends.
func (d *device) reaches(host string, want bool, patience time.Duration) {
	d.t.Helper()
	what := fmt.Sprintf("%s reaches %s: %v", d.Hostname, host, want)
	harness.Eventually(d.t, patience, what, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 250*time.Millisecond)
		defer cancel()
		err := d.exchange(ctx, host, 10)
		return harness.Check((err == nil) == want, "%v", err)
	})
}

// aliceTo is a policy with which alice's devices reach this, and the port 9
// of everything, so that they stay peers.
func aliceTo(destinations string) string {
	return fmt.Sprintf(`{
		// Ports of all of alice's devices.
		"acls": [
			{"action": "accept", "src": ["alice@"], "dst": ["alice@:9"]},
			{"action": "accept", "src": ["alice@"], "dst": [%s]},
		],
	}`, destinations)
}

// TestPolicyOnLiveNodes changes the policy under devices that run.
func TestPolicyOnLiveNodes(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	s.User("bob")
	key := s.Key("alice", "--reusable")
	alpha := join(t, s, "alpha", key)
	beta := join(t, s, "beta", key).echo()
	gamma := join(t, s, "gamma", s.Key("bob"))
	v4, _ := beta.addresses()
	host := v4.String()
	step(t, "without a policy everyone reaches everyone", func(t *testing.T) {
		alpha.sees("gamma")
		gamma.sees("beta")
		alpha.mustExchange(host, 10)
		gamma.mustExchange(host, 10)
	})
	step(t, "a node without any rule sees nobody, and nobody sees it", func(t *testing.T) {
		setPolicy(t, s, aliceTo(`"alice@:7"`))
		gamma.losesSight("alpha")
		gamma.losesSight("beta")
		alpha.losesSight("gamma")
		beta.losesSight("gamma")
		alpha.sees("beta")
		alpha.reaches(host, true, harness.Patience)
		gamma.reaches(host, false, harness.Patience)
	})
	step(t, "a port closes and opens within a second", func(t *testing.T) {
		for range 3 {
			setPolicy(t, s, aliceTo(`"alice@:8"`))
			alpha.reaches(host, false, atOnce())
			s.CLI("policy", "rollback")
			alpha.reaches(host, true, atOnce())
		}
	})
	step(t, "hearth says why", func(t *testing.T) {
		if got := s.CLI("policy", "why", "alpha", "beta:7"); !strings.Contains(got, "allowed by acls[1] (line 5)") {
			t.Fatal(got)
		}
		if got := s.CLI("policy", "why", "bob", host+":7"); !strings.Contains(got, "denied: ") {
			t.Fatal(got)
		}
	})
	step(t, "what is refused changes nothing", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "bad.hujson")
		for text, want := range map[string]string{
			"{\n\t\"acls\": [,\n}": ":2:11: ",
			"{\n\t\"acls\": [],\n\t\"tests\": [{\"src\": \"alice@\", \"accept\": [\"alice@:7\"]}],\n}": "test(s) failed",
		} {
			os.WriteFile(file, []byte(text), 0o600)
			if _, err := s.TryCLI("policy", "set", file); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("%v", err)
			}
		}
		alpha.mustExchange(host, 10)
	})
	step(t, "a route that the policy approves is served without anybody's help", func(t *testing.T) {
		route := netip.MustParsePrefix("10.1.2.0/24")
		setPolicy(t, s, `{
			"acls": [{"action": "accept", "src": ["alice@"], "dst": ["*:*"]}],
			"autoApprovers": {"routes": {"10.1.0.0/16": ["alice@"]}},
		}`)
		beta.advertise(route)
		alpha.routesTo("beta", route, true)
		if _, approved, _ := routes(s, "beta"); !slices.Contains(approved, route.String()) {
			t.Fatalf("approved are %v", approved)
		}
	})
	step(t, "after a restart the policy still applies", func(t *testing.T) {
		s.Terminate()
		s.Run()
		setPolicy(t, s, aliceTo(`"alice@:7"`))
		s.Terminate()
		s.Run()
		alpha.sees("beta")
		gamma.losesSight("beta")
		alpha.reaches(host, true, harness.Patience)
	})
}

// TestPolicyFile saves the file of the policy under devices that run.
func TestPolicyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.hujson")
	save := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	save(aliceTo(`"alice@:7"`))
	config := fmt.Sprintf("[policy]\nfile = %q\n", file)
	s := start(t, harness.Options{Address: address, Config: config})
	s.User("alice")
	key := s.Key("alice", "--reusable")
	alpha := join(t, s, "alpha", key)
	beta := join(t, s, "beta", key).echo()
	v4, _ := beta.addresses()
	host := v4.String()
	alpha.sees("beta")
	alpha.mustExchange(host, 10)
	// A file is taken once two looks find it the same.
	patience := 2 * atOnce()
	step(t, "saved is applied", func(t *testing.T) {
		save(aliceTo(`"alice@:8"`))
		alpha.reaches(host, false, patience)
		save(aliceTo(`"alice@:7"`))
		alpha.reaches(host, true, patience)
	})
	step(t, "a bad file is named with its line and changes nothing", func(t *testing.T) {
		save("{\n\t\"acls\": [\n}")
		harness.Eventually(t, harness.Patience, "hearth tells of it", func() error {
			got := s.CLI("status")
			return harness.Check(strings.Contains(got, "line 3, column 1: "), "%s", got)
		})
		alpha.mustExchange(host, 10)
		var shown struct{ Policy, Trouble string }
		s.JSON(&shown, "policy", "get")
		if shown.Policy != aliceTo(`"alice@:7"`) || !strings.Contains(shown.Trouble, "line 3, column 1") {
			t.Fatalf("%+v", shown)
		}
	})
	step(t, "with a bad file the last good policy applies after a start", func(t *testing.T) {
		s.Terminate()
		s.Run()
		alpha.sees("beta")
		alpha.reaches(host, true, harness.Patience)
		if got := s.CLI("policy", "why", "alpha", "beta:8"); !strings.Contains(got, "denied: ") {
			t.Fatal(got)
		}
	})
	step(t, "nothing but the file sets the policy", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "other.hujson")
		os.WriteFile(other, []byte("{}"), 0o600)
		_, err := s.TryCLI("policy", "set", other)
		if err == nil || !strings.Contains(err.Error(), file) {
			t.Fatalf("%v", err)
		}
	})
}

// TestTagsOfClients has clients ask for tags when they join.
func TestTagsOfClients(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	s.User("bob")
	setPolicy(t, s, `{"tagOwners": {"tag:server": ["alice@"]}}`)
	alpha := newDevice(t, s, "", "alpha", s.Key("alice"))
	alpha.AdvertiseTags = []string{"tag:server"}
	alpha.up()
	if tags := s.MustNode("alpha").Tags; !slices.Equal(tags, alpha.AdvertiseTags) {
		t.Fatalf("alpha has %v", tags)
	}
	client := harness.NewClient(t, s.URL, "beta", 0)
	request := client.RegisterRequest(s.Key("bob"))
	request.Hostinfo.RequestTags = []string{"tag:server"}
	response, err := client.Register(harness.Within(t, harness.Patience), request)
	if err != nil {
		t.Fatal(err)
	}
	if want := "are invalid or not permitted"; !strings.Contains(response.Error, want) {
		t.Fatalf("%+v", response)
	}
	if node := s.NodeNamed("beta"); node != nil {
		t.Fatalf("%+v", node)
	}

	step(t, "an approval gives requested tags only if that is said", func(t *testing.T) {
		gamma := harness.NewClient(t, s.URL, "gamma", 0)
		request := gamma.RegisterRequest("")
		request.Hostinfo.RequestTags = []string{"tag:server"}
		response, err := gamma.Register(harness.Within(t, harness.Patience), request)
		if err != nil {
			t.Fatal(err)
		}
		id := loginID(t, s, response.AuthURL)
		if list := s.CLI("pending", "list"); !strings.Contains(list, "tag:server") {
			t.Errorf("the list does not show the tags:\n%s", list)
		}
		for _, line := range [][]string{
			{"pending", "approve", "gamma", "--user", "alice"},
			{"pending", "approve", id, "--user", "alice", "--force"},
			{"auth", "register", "--user", "alice", "--auth-id", id},
			{"auth", "approve", "--auth-id", id},
			{"nodes", "register", "--user", "alice", "--key", id},
		} {
			_, err := s.TryCLI(line...)
			if err == nil || !strings.Contains(err.Error(), "hearth pending approve "+id) || !strings.Contains(err.Error(), " --tags`") {
				t.Fatalf("%v: %v", line, err)
			}
		}
		said := s.CLI("pending", "approve", "gamma", "--user", "alice", "--tags")
		if !strings.Contains(said, "tagged tag:server, of no user,") {
			t.Errorf("it says %q", said)
		}
	})
}

// TestSSHByPolicy follows a login as an SSH server in a client does: the rule
// of the map says whom to ask, hearth asks a person and remembers the answer.
func TestSSHByPolicy(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	key := s.Key("alice", "--reusable")
	server, guest := harness.NewClient(t, s.URL, "server", 0), harness.NewClient(t, s.URL, "guest", 0)
	server.Join(t, key)
	guest.Join(t, key)
	stream := server.MustMap(t, server.MapRequest())
	first, err := stream.Next()
	if err != nil {
		t.Fatal(err)
	}
	if first.SSHPolicy != nil && len(first.SSHPolicy.Rules) > 0 {
		t.Fatalf("%+v", first.SSHPolicy)
	}
	guest.MustMap(t, guest.MapRequest())
	setPolicy(t, s, `{"ssh": [{
		"action": "check", "src": ["alice@"], "dst": ["autogroup:self"], "users": ["root"], "checkPeriod": "1h",
	}]}`)
	var rule *tailcfg.SSHRule
	stream.Until(t, "an SSH rule", func(message *tailcfg.MapResponse) bool {
		if message.SSHPolicy == nil || len(message.SSHPolicy.Rules) == 0 {
			return false
		}
		rule = message.SSHPolicy.Rules[0]
		return len(rule.Principals) > 2
	})
	guestNode := s.MustNode("guest")
	fromGuest := func(principal *tailcfg.SSHPrincipal) bool {
		return slices.Contains(guestNode.IPAddresses, principal.NodeIP)
	}
	if !slices.ContainsFunc(rule.Principals, fromGuest) || rule.SSHUsers["root"] != "root" || rule.Action.Accept {
		t.Fatalf("%+v", rule)
	}
	ask := func(url string) *tailcfg.SSHAction {
		t.Helper()
		path := strings.TrimPrefix(url, "https://unused")
		path = strings.NewReplacer("$SRC_NODE_ID", guestNode.ID, "$DST_NODE_ID", s.MustNode("server").ID,
			"$LOCAL_USER", "root").Replace(path)
		status, body, err := server.Do(harness.Within(t, harness.Patience), "GET", path, nil)
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, status, body, err)
		}
		action := new(tailcfg.SSHAction)
		if err := harness.Strict(body, action); err != nil {
			t.Fatal(err)
		}
		return action
	}
	held := ask(rule.Action.HoldAndDelegate)
	if held.Accept || held.Reject || held.HoldAndDelegate == "" || !strings.Contains(held.Message, s.URL+"/ssh/") {
		t.Fatalf("%+v", held)
	}
	var checks []struct {
		ID string `json:"id"`
	}
	s.JSON(&checks, "ssh", "list")
	if len(checks) != 1 {
		t.Fatalf("%+v", checks)
	}
	decided := make(chan error, 1)
	go func() {
		_, err := s.TryCLI("ssh", "approve", checks[0].ID)
		decided <- err
	}()
	if action := ask(held.HoldAndDelegate); !action.Accept {
		t.Fatalf("%+v", action)
	}
	if err := <-decided; err != nil {
		t.Fatal(err)
	}
	if action := ask(rule.Action.HoldAndDelegate); !action.Accept {
		t.Fatalf("it is not remembered: %+v", action)
	}
	if action := ask(strings.Replace(rule.Action.HoldAndDelegate, "$LOCAL_USER", "daemon", 1)); !action.Reject {
		t.Fatalf("who is not in the rule gets in: %+v", action)
	}
	setPolicy(t, s, `{"ssh": []}`)
	if action := ask(rule.Action.HoldAndDelegate); !action.Reject {
		t.Fatalf("without the rule: %+v", action)
	}
}

// TestWhatPoliciesGiveBeside has the stock client take names, relays and the
// loss of its IPv4 address from a policy, while it runs.
func TestWhatPoliciesGiveBeside(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	key := s.Key("alice", "--reusable")
	alpha := join(t, s, "alpha", key)
	beta := join(t, s, "beta", key).echo()
	v4, v6 := beta.addresses()
	alpha.sees("beta")
	hasRegion := func(want bool) {
		t.Helper()
		harness.Eventually(t, harness.Patience, fmt.Sprintf("alpha knows region 950: %v", want), func() error {
			regions, err := alpha.local.CurrentDERPMap(harness.Within(t, harness.Patience))
			if err != nil {
				return err
			}
			return harness.Check((regions.Regions[950] != nil) == want, "it knows %v", regions.RegionIDs())
		})
	}
	tellsIPv4 := func(want bool) {
		t.Helper()
		harness.Eventually(t, harness.Patience, fmt.Sprintf("alpha is told %v of beta: %v", v4, want), func() error {
			peer := alpha.peer("beta")
			if peer == nil || !slices.Contains(peer.TailscaleIPs, v6) {
				return fmt.Errorf("its entry is %+v", peer)
			}
			return harness.Check(slices.Contains(peer.TailscaleIPs, v4) == want, "it has %v", peer.TailscaleIPs)
		})
	}
	step(t, "names and relays come with a policy", func(t *testing.T) {
		setPolicy(t, s, `{
			"extraDNSRecords": [{"Name": "printer.home.arpa", "Type": "A", "Value": "192.168.1.20"}],
			"derpMap": {"Regions": {"950": {"RegionID": 950, "RegionCode": "far", "RegionName": "Far", "Nodes": [
				{"Name": "950a", "RegionID": 950, "HostName": "relay.invalid", "IPv4": "192.0.2.1", "STUNPort": -1},
			]}}},
		}`)
		alpha.resolves("printer.home.arpa", "A", "192.168.1.20")
		hasRegion(true)
	})
	step(t, "and go with it", func(t *testing.T) {
		setPolicy(t, s, "{}")
		hasRegion(false)
	})
	step(t, "a node without IPv4 is reached by IPv6", func(t *testing.T) {
		setPolicy(t, s, `{"nodeAttrs": [{"target": ["alice@"], "attr": ["disable-ipv4"]}]}`)
		tellsIPv4(false)
		alpha.mustExchange(v6.String(), 100)
	})
	step(t, "and gets its IPv4 address back", func(t *testing.T) {
		s.CLI("policy", "rollback")
		tellsIPv4(true)
		alpha.reaches(v4.String(), true, harness.Patience)
	})
}

// TestPolicyByTheOtherAPI sets a policy as gitops-pusher does.
func TestPolicyByTheOtherAPI(t *testing.T) {
	s := startHTTP(t)
	key := strings.TrimSpace(s.CLI("apikeys", "create"))
	send := func(method, path, body, etag string) (*http.Response, map[string]any) {
		t.Helper()
		url := s.URL + "/api/v2/tailnet/-/acl" + path
		req, err := http.NewRequestWithContext(harness.Within(t, harness.Patience), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(key, "")
		req.Header.Set("Content-Type", "application/hujson")
		if etag != "" {
			req.Header.Set("If-Match", etag)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer map[string]any
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatalf("%s %s: %s, %v", method, path, res.Status, err)
		}
		return res, answer
	}
	res, _ := send("GET", "", "", "")
	before := res.Header.Get("ETag")
	for path, status := range map[string]int{"": http.StatusBadRequest, "/validate": http.StatusOK} {
		res, answer := send("POST", path, "{\"acls\": [],\n\"x\": 1}", "")
		message, _ := answer["message"].(string)
		if res.StatusCode != status || !strings.HasPrefix(message, "line 2, column 1: ") {
			t.Fatalf("%s: %s %v", path, res.Status, answer)
		}
	}
	if res, answer := send("POST", "", `{"acls": []}`, before); res.StatusCode != http.StatusOK {
		t.Fatalf("%s %v", res.Status, answer)
	}
	if res, _ := send("POST", "", "{}", before); res.StatusCode != http.StatusPreconditionFailed {
		t.Fatal(res.Status)
	}
	if got := s.CLI("policy", "get"); got != "{\"acls\": []}\n" {
		t.Fatalf("%q", got)
	}
}
